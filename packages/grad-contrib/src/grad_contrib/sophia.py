r"""Sophia: momentum over the diagonal of the Hessian, clipped.

For the gradient :math:`g_t` of a parameter, elementwise, and an estimate :math:`\hat h_t` of the
diagonal of the Hessian that is made at every k-th update only:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad \hat m_t = m_t / (1 - \beta_1^t) \\
    u_t &= \mathrm{clip}\Bigl(\frac{\hat m_t}{\max(\gamma h_{t-1}, \varepsilon)}, -\rho, \rho\Bigr)
        \\
    h_t &= \beta_2 h_{t-1} + (1 - \beta_2) \hat h_t, \quad \text{if } k \mid t - 1,
    \text{ else } h_{t-1}

and the step is :math:`-\alpha (u_t + \lambda \theta_t)`. Where the curvature is small or negative
the step is that of a sign. As in the released library, but not in the paper, an estimate is used
from the next update on, and momentum is debiased.

State: two numbers a parameter, 8 bytes for float32, and that of the estimator. An estimate costs
about as much as one or two gradients.

Pitfalls. With several devices that hold different data, the estimate must be averaged over them
too. `gamma` is to be such that from 10% to 50% of the elements are not clipped; ``verbose`` tells.

References:
  Liu, Li, Hall, Liang and Ma, Sophia: a scalable stochastic second-order optimizer for language
  model pre-training, 2023 (arXiv 2305.14342), algorithms 1 and 3.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    Decay,
    DType,
    EmptyState,
    GradientTransformation,
    LeafRule,
    LearningRate,
    MaskOrFn,
    MissingArgumentError,
    NonNegative,
    OptState,
    Params,
    Real,
    TreeRule,
    Updates,
    add_decayed_weights,
    chain,
    example,
    exempt,
    first_moment,
    needs_extra_args,
    rule,
    safe_increment,
    scale_by_learning_rate,
    second_moment,
    transformation,
    tree,
    zeros_like,
)
from grad_second_order import hessian_operator

_NO_LOSS = "the suite does not pass the loss as obj_fn"


def _half_square(params: Params) -> jax.Array:
    """A loss for the suite."""
    return tree.norm(params, squared=True) / 2


class HutchinsonState(NamedTuple):
    """The random key from which the next vector is drawn."""

    key: jax.Array


class SophiaState(NamedTuple):
    """The number of updates, momentum, mean of the estimates, and the estimator's state."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates
    hessian_fn_state: OptState


@exempt("complex64", reason="curvature is that of real parameters")
@exempt("decreases_convex_loss", reason="it gives curvature, not a direction")
@exempt("decreases_nonconvex_loss", reason="it gives curvature, not a direction")
@exempt("decreases_stochastic_loss", reason="it gives curvature, not a direction")
@needs_extra_args(obj_fn=_half_square)
@rule
def hutchinson_estimator_diag_hessian(
    random_seed: jax.Array | int | None = None,
) -> TreeRule:
    """Estimates the diagonal of the Hessian by v * (H v), v of random signs, in place of updates.

    ``update`` needs the parameters and the extra argument ``obj_fn``, a function of the parameters
    that returns the loss, a number. What the updates are does not matter, but where there is none,
    none is returned. Unbiased; the variance of an entry is the sum of the squares of the rest of
    its row.

    Args:
      random_seed: A random key, of either kind that JAX has, or an integer; 0 with None.

    Returns:
      A transformation whose state is a `HutchinsonState`.

    Raises:
      TypeError: If `random_seed` is neither a key nor an integer. By ``update``, if a parameter is
        complex.
      MissingArgumentError: By ``update``, without parameters or ``obj_fn``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import hutchinson_estimator_diag_hessian
      >>> tx = hutchinson_estimator_diag_hessian()
      >>> x = jnp.array([1.0, 2.0])
      >>> tx.update(x, tx.init(x), x, obj_fn=lambda x: jnp.sum(x**3))[0]
      Array([ 6., 12.], dtype=float32)

    Reference:
      Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007.
    """
    _check_seed(random_seed)
    present: Any = where_present()

    def init(params: Params) -> HutchinsonState:
        present.init(params)  # refuses what cannot be optimized
        return HutchinsonState(_first_key(random_seed))

    def update(
        updates: Updates,
        state: HutchinsonState,
        params: Params,
        obj_fn: Callable[[Params], jax.Array] | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, HutchinsonState]:
        if obj_fn is None:
            raise MissingArgumentError(
                "update() needs the extra argument 'obj_fn', the loss as a function of the "
                "parameters: call update(updates, state, params, obj_fn=...)."
            )
        key, next_key = jax.random.split(state.key)[::-1]
        signs = tree.random_like(key, params, jax.random.rademacher)
        signs = tree.add(signs, jax.tree.map(zeros_like, params))  # sharded like the parameters
        estimate = signs
        if tree.size(params):
            estimate = tree.mul(signs, hessian_operator(obj_fn, params)(signs))
        updates, _ = present.update(updates, EmptyState(), estimate)
        return updates, HutchinsonState(next_key)

    return TreeRule(update, init, needs_params=True, extra_names=["obj_fn"], compiled=False)


@rule
def where_present() -> LeafRule:
    """The parameters in place of the updates that there are."""
    return LeafRule(lambda g, p: p)


def _check_seed(random_seed: Any) -> None:
    is_array = isinstance(random_seed, jax.Array | np.ndarray)
    is_integer = isinstance(random_seed, int | np.integer) and not isinstance(random_seed, bool)
    if random_seed is not None and not is_array and not is_integer:
        raise TypeError(
            "hutchinson_estimator_diag_hessian: random_seed must be a random key or an integer; "
            f"got {random_seed!r}."
        )


def _first_key(random_seed: Any) -> jax.Array:
    if random_seed is None:
        return jax.random.PRNGKey(0)
    if jnp.ndim(random_seed) == 0 and not _is_key(random_seed):
        return jax.random.PRNGKey(random_seed)
    return jnp.array(random_seed, copy=True)  # states may be donated


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


class _Momentum(NamedTuple):
    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates


@rule
def clipped_quotient(
    b1: Decay,
    eps: NonNegative,
    gamma: Real,
    clip_threshold: NonNegative,
    mu_dtype: DType | None,
    nu_dtype: DType | None,
) -> LeafRule:
    """Sophia's direction, given the curvature nu."""

    def once(t: jax.Array) -> dict[str, Any]:
        return {"c1": 1 / (1 - b1**t)}

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, c1: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        divisor = jnp.maximum(gamma * nu, eps)
        is_flat = divisor == 0
        u = jnp.clip(c1 * mu / jnp.where(is_flat, 1, divisor), -clip_threshold, clip_threshold)
        return jnp.where(is_flat, clip_threshold * jnp.sign(mu), u), mu, nu

    return LeafRule(
        step, _Momentum, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


class _Curvature(NamedTuple):
    nu: Updates


@rule
def average(b2: Decay, nu_dtype: DType | None) -> LeafRule:
    """The mean of the updates, in its state."""

    def step(g: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
        return g, b2 * nu + (1 - b2) * g

    return LeafRule(step, _Curvature, nu=second_moment(nu_dtype))


@rule
def scale_by_sophia(
    b1: Decay,
    b2: Decay,
    eps: NonNegative,
    gamma: Real,
    clip_threshold: NonNegative,
    update_interval: int,
    hessian_diagonal_fn: GradientTransformation,
    mu_dtype: DType | None,
    nu_dtype: DType | None,
    print_every: int,
) -> TreeRule:
    """`sophia` before weight decay and learning rate; `print_every` is 0 to print nothing."""
    momentum: Any = clipped_quotient(b1, eps, gamma, clip_threshold, mu_dtype, nu_dtype)
    averaging: Any = average(b2, nu_dtype)

    def init(params: Params) -> SophiaState:
        first = momentum.init(params)
        return SophiaState(first.count, first.mu, first.nu, hessian_diagonal_fn.init(params))

    def update(
        updates: Updates, state: SophiaState, params: Params, **extra_args: Any
    ) -> tuple[Updates, SophiaState]:
        u, new = momentum.update(updates, _Momentum(*state[:3]))

        def estimate() -> tuple[Updates, OptState]:
            h, hessian_fn_state = hessian_diagonal_fn.update(
                updates, state.hessian_fn_state, params, **extra_args
            )
            return averaging.update(h, _Curvature(state.nu))[1].nu, hessian_fn_state

        def keep() -> tuple[Updates, OptState]:
            return state.nu, state.hessian_fn_state

        nu, hessian_fn_state = _either(state.count % update_interval == 0, estimate, keep)
        count = safe_increment(state.count)
        if print_every:
            is_due = count % print_every == 0
            jax.lax.cond(is_due, lambda: _print_win_rate(u, clip_threshold), lambda: None)
        return u, SophiaState(count, new.mu, nu, hessian_fn_state)

    return TreeRule(
        update,
        init,
        needs_params=True,
        compiled=False,
        inner_state=attrgetter("hessian_fn_state"),
    )


def _either(condition: jax.Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """What one of two functions returns; only that one runs."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def _print_win_rate(updates: Updates, clip_threshold: Any) -> None:
    """Prints which part of the elements is not clipped."""
    arrays = [u for u in jax.tree.leaves(updates) if u.dtype != jax.dtypes.float0]
    inside = [jnp.sum(jnp.abs(u) < clip_threshold) for u in arrays]
    number = max(sum(u.size for u in arrays), 1)
    jax.debug.print("Sophia: win rate {:.3f}", sum(inside, jnp.zeros([])) / number)


_HUTCHINSON = hutchinson_estimator_diag_hessian()


@exempt("complex64", reason="curvature is that of real parameters")
@exempt("decreases_convex_loss", reason=_NO_LOSS)
@exempt("decreases_nonconvex_loss", reason=_NO_LOSS)
@exempt("decreases_stochastic_loss", reason=_NO_LOSS)
@needs_extra_args(obj_fn=_half_square)
@example(1e-2)
@transformation
def sophia(
    learning_rate: LearningRate,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: LearningRate = 1e-4,
    weight_decay_mask: MaskOrFn | None = None,
    gamma: Real = 0.01,
    clip_threshold: NonNegative = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Sophia: descent by momentum over curvature, clipped; see the module.

    ``update`` needs the extra arguments of `hessian_diagonal_fn`: by default ``obj_fn``, the loss
    on this batch as a function of the parameters.

    Args:
      learning_rate: A number, an array of shape () or a schedule; about as for Lion.
      b1: Decay of the momentum, in [0, 1].
      b2: Decay of the mean of the estimates, in [0, 1], for each of them.
      eps: The least divisor.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      weight_decay_mask: Which leaves to decay, as in `masked`; all with None.
      gamma: The multiple of the curvature that momentum is divided by.
      clip_threshold: The largest modulus of an element of the direction.
      update_interval: The number k of updates from one estimate to the next.
      hessian_diagonal_fn: A transformation that returns an estimate of the diagonal in place of
        updates.
      mu_dtype: The dtype of the momentum; the parameter's with None.
      verbose: Whether to print which part of the elements is not clipped.
      print_win_rate_every_n_steps: How often; never with 0.
      nu_dtype: The dtype of the mean of the estimates; with None the parameter's, but at least
        float32.

    Returns:
      A transformation whose state is the tuple of a `SophiaState` and the states of decay and
      rate.

    Raises:
      ValueError: If `update_interval` is not positive, or `print_win_rate_every_n_steps` negative.
      MissingArgumentError: By ``update``, without parameters or ``obj_fn``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import sophia
      >>> optimizer = sophia(0.1, b1=0.0, b2=0.0, weight_decay=0.0, gamma=1.0)
      >>> h, x = jnp.array([1.0, 100.0]), jnp.array([0.5, 2.0])
      >>> state = optimizer.init(x)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(
      ...         h * x, state, x, obj_fn=lambda x: jnp.sum(h * x**2) / 2
      ...     )
      ...     print(updates)
      [-0.1 -0.1]
      [-0.05 -0.1 ]

    Reference:
      Liu et al., Sophia: a scalable stochastic second-order optimizer for language model
      pre-training, 2023, algorithm 3.
    """
    least = {"update_interval": (update_interval, 1)}
    least["print_win_rate_every_n_steps"] = (print_win_rate_every_n_steps, 0)
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"sophia: {name} must be at least {low}; got {value}.")
    print_every = print_win_rate_every_n_steps if verbose else 0
    return chain(
        scale_by_sophia(
            *(b1, b2, eps, gamma, clip_threshold, update_interval, hessian_diagonal_fn),
            *(mu_dtype, nu_dtype, print_every),
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
