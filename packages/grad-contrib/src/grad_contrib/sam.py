r"""Sharpness-aware minimization: descent by the gradients at worse parameters nearby.

From the parameters :math:`\theta`, an adversarial optimizer ascends for :math:`k - 1` steps, and
the outer optimizer steps from :math:`\theta` by the gradient found there:

.. math::

    \vartheta_0 &= \theta, \qquad
    \vartheta_{i+1} = \vartheta_i - u^{\mathrm{adv}}(\nabla f(\vartheta_i)) \\
    \theta' &= \theta + u(\nabla f(\vartheta_{k-1}))

In the paper :math:`k = 2`, and :math:`u^{\mathrm{adv}} = \rho \, g / \|g\|` with the norm of the
whole tree: ``chain(normalize(), sgd(rho))``, whose steps, like those of all optimizers, descend
when added.

Every step costs k gradients. By default, each is an ``update`` of its own, and the parameters are
adversarial in between: evaluate and save them after each k-th update. In opaque mode one ``update``
calls the gradient function itself, so that all else that a training step does (statistics of batch
normalization) happens once. Without opaque mode, the state costs a copy of the parameters.

References:
  Foret et al., Sharpness-aware minimization for efficiently improving generalization, 2020
  (arXiv 2010.01412), algorithm 1.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from grad_core import (
    EmptyState,
    GradientTransformation,
    LeafRule,
    MissingArgumentError,
    OptState,
    Params,
    TreeRule,
    Updates,
    apply_updates,
    chain,
    copy_of,
    example,
    normalize_by_update_norm,
    rule,
    scale,
    transformation,
)
from grad_optimizers import sgd

T = TypeVar("T")
NormalizeState = EmptyState


class SAMState(NamedTuple):
    """Where a cycle of updates stands.

    Attributes:
      steps_since_sync: The number of adversarial updates since the last of the outer optimizer.
      opt_state: The state of the outer optimizer.
      adv_state: The state of the adversarial optimizer.
      cache: The parameters from which it started; None in opaque mode.
    """

    steps_since_sync: jax.Array
    opt_state: OptState
    adv_state: OptState
    cache: Params | None


@transformation
def normalize() -> GradientTransformation:
    """Divides updates by their global norm: u = g / |g|, and zeros where that is 0.

    |g|^2 sums over all leaves, in at least float32, without overflow or underflow.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import normalize
      >>> tx = normalize()
      >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
      Array([0.6, 0.8], dtype=float32)
    """
    return normalize_by_update_norm(eps=0.0)


@example(sgd(0.05), chain(normalize(), sgd(0.05)))
@rule
def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> TreeRule:
    """Sharpness-aware minimization: ascends by one optimizer, descends by the other from the start.

    Of `sync_period` updates, all but the last are those of `adv_optimizer`, with the opposite sign.
    The last returns to the parameters before them, and makes the step of `optimizer` from there.

    In opaque mode each update is such a whole cycle. ``update`` then needs the extra argument
    ``grad_fn``, a function ``grad_fn(params, i)`` of the parameters and the number of the
    adversarial step, from 0, that returns the gradients there.

    Args:
      optimizer: The transformation of the parameters; it makes the whole step.
      adv_optimizer: The adversarial one, which descends too: its steps are turned round.
      sync_period: The number k of gradients for a step, at least 1.
      reset_state: Whether each cycle starts the state of `adv_optimizer` anew.
      opaque_mode: Whether one update is a whole cycle.
      batch_axis_name: The axis of `jax.pmap`, `jax.vmap` or `jax.shard_map` along which to take
        the mean of what ``grad_fn`` returns; for opaque mode.

    Returns:
      A transformation whose state is a `SAMState`. Its ``update`` needs the parameters.

    Raises:
      ValueError: If `sync_period` is not positive, or `batch_axis_name` is given without
        `opaque_mode`.
      MissingArgumentError: By ``update``, without parameters, or ``grad_fn`` in opaque mode.

    Example:
      >>> import jax
      >>> from grad_contrib import normalize, sam
      >>> from grad_core import apply_updates, chain
      >>> from grad_optimizers import sgd
      >>> grad = jax.grad(lambda x: x**2)
      >>> optimizer = sam(sgd(0.1), chain(normalize(), sgd(0.5)))
      >>> params = 1.0
      >>> state = optimizer.init(params)
      >>> for _ in range(2):  # the gradient at 1 leads to 1.5; that at 1.5 is 3
      ...     updates, state = optimizer.update(grad(params), state, params)
      ...     params = apply_updates(params, updates)
      >>> print(f"{params:.3f}")
      0.700

    Reference:
      Foret et al., Sharpness-aware minimization for efficiently improving generalization, 2020.
    """
    if sync_period < 1:
        raise ValueError(f"sam: sync_period must be at least 1; got {sync_period}.")
    if batch_axis_name is not None and not opaque_mode:
        raise ValueError(
            f"sam: batch_axis_name must be None unless opaque_mode is True; got "
            f"{batch_axis_name!r}. Take the mean of the gradients before update."
        )
    optimizers = optimizer, adv_optimizer, sync_period, reset_state
    if opaque_mode:
        return _opaque(*optimizers, batch_axis_name)
    return _transparent(*optimizers)


class _Cache(NamedTuple):
    cache: Params


@rule
def excursion() -> LeafRule:
    """Turns round adversarial updates, and the last one of a cycle into one from its start."""

    def once(is_first: jax.Array, is_last: jax.Array) -> dict[str, Any]:
        return {"is_first": is_first, "is_last": is_last}

    def step(
        g: jax.Array, p: jax.Array, cache: jax.Array, is_first: jax.Array, is_last: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        start = jnp.where(is_first, p, cache)
        return jnp.where(is_last, start - p + g, -g), start

    return LeafRule(step, _Cache, once=once, cache=copy_of)


def _transparent(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
) -> TreeRule:
    moving: Any = excursion()

    def init(params: Params) -> SAMState:
        return SAMState(
            jnp.zeros([], jnp.int32),
            optimizer.init(params),
            adv_optimizer.init(params),
            moving.init(params).cache,
        )

    def update(
        updates: Updates, state: SAMState, params: Params, **extra_args: Any
    ) -> tuple[Updates, SAMState]:
        is_last = state.steps_since_sync == sync_period - 1
        start = state.cache if sync_period > 1 else params

        def ascend() -> tuple[Updates, OptState, OptState]:
            u, adv_state = adv_optimizer.update(updates, state.adv_state, params, **extra_args)
            return u, state.opt_state, adv_state

        def descend() -> tuple[Updates, OptState, OptState]:
            u, opt_state = optimizer.update(updates, state.opt_state, start, **extra_args)
            return u, opt_state, state.adv_state

        u, opt_state, adv_state = _either(is_last, descend, ascend)
        scalars: Any = {"is_first": state.steps_since_sync == 0, "is_last": is_last}
        new: Any
        u, new = moving.update(u, _Cache(state.cache), params, **scalars)
        if reset_state:
            after = apply_updates(params, u)
            adv_state = _either(is_last, lambda: adv_optimizer.init(after), lambda: adv_state)
        steps = jnp.where(is_last, 0, state.steps_since_sync + 1)
        return u, SAMState(steps, opt_state, adv_state, new.cache)

    return TreeRule(
        update, init, needs_params=True, compiled=False, inner_state=attrgetter("opt_state")
    )


def _opaque(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
    batch_axis_name: str | None,
) -> TreeRule:
    turned = scale(-1.0)

    def init(params: Params) -> SAMState:
        steps = jnp.zeros([], jnp.int32)
        return SAMState(steps, optimizer.init(params), adv_optimizer.init(params), None)

    def update(
        updates: Updates,
        state: SAMState,
        params: Params,
        grad_fn: Callable[[Params, int], Updates] | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, SAMState]:
        if grad_fn is None:
            raise MissingArgumentError(
                "update() needs the extra argument 'grad_fn' in opaque mode: "
                "call update(updates, state, params, grad_fn=lambda params, i: ...)."
            )
        g, there, adv_state = updates, params, state.adv_state
        for i in range(sync_period - 1):
            u, adv_state = adv_optimizer.update(g, adv_state, there, **extra_args)
            there = apply_updates(there, turned.update(u, EmptyState())[0])
            g = grad_fn(there, i)
            if batch_axis_name is not None:
                g = jax.lax.pmean(g, batch_axis_name)  # type: ignore[no-untyped-call]
        updates, opt_state = optimizer.update(g, state.opt_state, params, **extra_args)
        if reset_state:
            adv_state = adv_optimizer.init(apply_updates(params, updates))
        return updates, SAMState(state.steps_since_sync, opt_state, adv_state, None)

    return TreeRule(
        update,
        init,
        needs_params=True,
        extra_names=["grad_fn"],
        compiled=False,
        inner_state=attrgetter("opt_state"),
    )


def _either(condition: jax.Array, yes: Callable[[], T], no: Callable[[], T]) -> T:
    """What one of two functions returns; both run where the condition is traced."""
    if not isinstance(condition, jax.core.Tracer):
        return yes() if condition else no()

    def choose(x: Any, y: Any) -> Any:
        return x if x.dtype == jax.dtypes.float0 else jnp.where(condition, x, y)

    chosen: T = jax.tree.map(choose, yes(), no())
    return chosen
