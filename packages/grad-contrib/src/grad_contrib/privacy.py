r"""Differentially private descent: clipped gradients of single examples, and noise.

With the gradients :math:`g_i` of the B examples of a batch:

.. math::

    u = \frac{1}{B} \Bigl( \sum_{i=1}^B g_i \min\bigl(1, C / \|g_i\|\bigr) + \sigma C \, n \Bigr),
    \qquad n \sim \mathcal{N}(0, I)

where :math:`\|g_i\|` is the norm of the whole tree: no example moves the sum by more than C.

Updates come in with an axis of examples in front, and go out without it, so this stands first in a
chain, with no accumulation of gradients before it. ``jax.vmap(jax.grad(loss), in_axes=(None, 0))``
makes such updates, at B times the memory of one gradient. The state is a random key.

Pitfalls. How private a training is, an accountant must tell, from :math:`\sigma`, B, the number of
examples and of steps; it supposes that batches are drawn at random. The noise is only as secret as
the key. What else looks at the data (statistics of batches, choice of hyperparameters) is not
covered.

References:
  Abadi et al., Deep learning with differential privacy, 2016 (arXiv 1607.00133), algorithm 1.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from grad_contrib._random import RandomKey, Seed, key_of
from grad_core import (
    Decay,
    GradientTransformation,
    LeafTypeError,
    LearningRate,
    NonNegative,
    Params,
    Real,
    TreeMismatchError,
    TreeRule,
    Updates,
    chain,
    example,
    exempt,
    identity,
    means_no_update,
    per_example_global_norm_clip,
    rule,
    scale_by_learning_rate,
    trace,
    transformation,
    widen,
)

F = TypeVar("F", bound=Callable[..., Any])
_NOT_FOR_THE_SUITE = """
    agrees_with_float32 can_be_a_static_argument compiles_for_tpu copies_are_equal
    decreases_convex_loss
    decreases_nonconvex_loss decreases_stochastic_loss donation_changes_nothing
    end_points_are_legal extra_arguments_are_ignored extreme_gradients_are_finite gradients_flow
    is_pure jit_changes_nothing missing_params_are_named needs_little_memory_on_tpu
    numbers_do_not_recompile numbers_may_be_traced pickles scan_is_a_loop sharding_changes_nothing
    state_holds_only_arrays state_is_a_carry state_round_trips survives_tree_map_and_replace
    takes_trees vmap_is_a_loop works_in_dtype wrong_trees_are_named zero_gradients_are_finite
""".split()  # noqa: SIM905 - it is long enough


def _of_examples(factory: F) -> F:
    """Excuses from checks whose updates are no gradients of examples; `test_privacy` makes up."""
    for check in _NOT_FOR_THE_SUITE:
        factory = exempt(check, reason="its updates have an axis of examples")(factory)
    return factory


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The random key from which the next noise is drawn."""

    rng_key: jax.Array


@_of_examples
@example(1.0, 1.1, key=0)
@transformation
def differentially_private_aggregate(
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: RandomKey | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    """Sums clipped gradients of single examples, adds noise, and divides by their number.

    Everything is computed in at least float32. Of complex leaves, real and imaginary parts each get
    the noise of a real number.

    Args:
      l2_norm_clip: The largest norm C that the gradient of an example keeps.
      noise_multiplier: The standard deviation of the noise, over C; 0 adds none.
      key: A random key, of either kind that JAX has, or an integer seed. With None the noise is
        that of the seed 0, which is no secret, and a warning says so.
      seed: The old name of `key`, deprecated.

    Returns:
      A transformation whose state is a `DifferentiallyPrivateAggregateState`.

    Raises:
      ValueError: If both `key` and `seed` are given. By ``update``, if the leaves have no axis of
        examples, or not one of the same length, at least 1.
      TypeError: If `key` is neither a random key nor an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import differentially_private_aggregate
      >>> tx = differentially_private_aggregate(2.5, noise_multiplier=0.0, key=0)
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.5, 0.0]])}  # of two examples
      >>> tx.update(grads, tx.init({"w": jnp.zeros(2)}))[0]
      {'w': Array([1., 1.], dtype=float32)}

    Reference:
      Abadi et al., Deep learning with differential privacy, 2016, algorithm 1.
    """
    given = Seed.of("differentially_private_aggregate", key, seed)
    return aggregate(l2_norm_clip, noise_multiplier, given.value, given.impl)


@rule
def aggregate(
    l2_norm_clip: NonNegative, noise_multiplier: NonNegative, seed: Real, impl: Hashable | None
) -> TreeRule:
    """`differentially_private_aggregate` with a `Seed`, whose value is an operand."""

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        for path, p in jax.tree_util.tree_flatten_with_path(params)[0]:
            _check_inexact("params", path, p)
        return DifferentiallyPrivateAggregateState(key_of(seed, impl))

    def update(
        updates: Updates, state: DifferentiallyPrivateAggregateState, params: Params | None
    ) -> tuple[Updates, DifferentiallyPrivateAggregateState]:
        treedef: Any
        leaves, treedef = jax.tree.flatten(updates, is_leaf=means_no_update)
        there = [i for i, g in enumerate(leaves) if not means_no_update(g)]
        size = _number_of_examples(updates)
        gradients = [widen(leaves[i]) for i in there]
        next_key, *keys = jax.random.split(state.rng_key, len(there) + 1)
        sums: Any = per_example_global_norm_clip(gradients, l2_norm_clip)[0] if there else []
        deviation = jnp.asarray(l2_norm_clip * noise_multiplier)
        for i, total, key in zip(there, sums, keys, strict=True):
            noise = _noise(key, total) * deviation.astype(total.real.dtype)
            leaves[i] = ((total + noise) / size).astype(leaves[i].dtype)
        return treedef.unflatten(leaves), DifferentiallyPrivateAggregateState(next_key)

    return TreeRule(update, init)


def _noise(key: jax.Array, like: jax.Array) -> jax.Array:
    """Independent normal numbers; of complex ones both parts are."""
    noise = jax.random.normal(key, like.shape, like.dtype)
    return noise * 2**0.5 if jnp.iscomplexobj(like) else noise


def _check_inexact(name: str, path: Any, x: Any) -> None:
    if not means_no_update(x) and not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        raise LeafTypeError(
            f"{name}{jax.tree_util.keystr(path)} is {jnp.result_type(x)}, but only floating-point "
            "and complex arrays can be optimized. Cast it, or leave it out with masked."
        )


def _number_of_examples(updates: Updates) -> int:
    """The length of the first axis of all leaves."""
    found = jax.tree_util.tree_flatten_with_path(updates, is_leaf=means_no_update)[0]
    sizes = []
    for path, g in found:
        if means_no_update(g):
            continue
        _check_inexact("updates", path, g)
        if jnp.ndim(g) == 0 or jnp.shape(g)[0] == 0:
            raise TreeMismatchError(
                f"updates{jax.tree_util.keystr(path)} has shape {jnp.shape(g)}; updates must be "
                "gradients of single examples, with an axis of at least one example in front, as "
                "jax.vmap(jax.grad(loss), in_axes=(None, 0)) makes them."
            )
        sizes.append((jnp.shape(g)[0], path))
    for size, path in sizes:
        if size != sizes[0][0]:
            raise TreeMismatchError(
                f"updates{jax.tree_util.keystr(path)} has {size} examples, but "
                f"updates{jax.tree_util.keystr(sizes[0][1])} has {sizes[0][0]}."
            )
    return sizes[0][0] if sizes else 1


@exempt("schedules_stand_for_numbers", reason="its updates have an axis of examples")
@_of_examples
@example(0.1, 1.0, 1.1, key=0)
@transformation
def dpsgd(
    learning_rate: LearningRate,
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: RandomKey | None = None,
    momentum: Decay | None = None,
    nesterov: bool = False,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    """Differentially private gradient descent.

    State: a random key, and with momentum one number a parameter, 4 bytes for float32.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      l2_norm_clip: As for `differentially_private_aggregate`, and so are `noise_multiplier`, `key`
        and `seed`.
      noise_multiplier: The standard deviation of the noise, over `l2_norm_clip`.
      key: A random key or an integer seed.
      momentum: The decay of the momentum, in [0, 1]; none with None.
      nesterov: Whether to look one step ahead.
      seed: The old name of `key`, deprecated.

    Returns:
      A transformation whose state is the tuple of a `DifferentiallyPrivateAggregateState` and the
      states of momentum and learning rate.

    Raises:
      ValueError: As `differentially_private_aggregate`, and so is TypeError.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_contrib import dpsgd
      >>> from grad_core import apply_updates
      >>> def loss(w, x):
      ...     return (w - x) ** 2
      >>> optimizer = dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, key=0)
      >>> params, batch = jnp.array(0.0), jnp.linspace(4.0, 6.0, 100)
      >>> state = optimizer.init(params)
      >>> per_example = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))
      >>> for _ in range(100):
      ...     updates, state = optimizer.update(per_example(params, batch), state, params)
      ...     params = apply_updates(params, updates)
      >>> print(f"{params:.0f}")
      5

    Reference:
      Abadi et al., Deep learning with differential privacy, 2016, algorithm 1.
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, key, seed=seed),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )
