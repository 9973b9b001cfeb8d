"""Transforming only some of the updates: when they are finite, or when a condition holds."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    NonNegative,
    OptState,
    Params,
    TreeRule,
    Updates,
    chain,
    example,
    exempt,
    rule,
    safe_increment,
    scale_by_learning_rate,
    trace,
)
from grad_core.errors import shown
from grad_core.structure import means_no_update
from grad_wrappers._branches import either, map_present, nothing
from grad_wrappers._leaves import zero_count


class ApplyIfFiniteState(NamedTuple):
    """How updates that are not finite fared, and the inner state.

    Attributes:
      notfinite_count: How many there were without a finite one in between, up to the last update.
      last_finite: Whether the last update was finite.
      total_notfinite: How many there were in all.
      inner_state: The state of the inner transformation.
    """

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: OptState


@example(trace(0.9), 2)
@rule
def apply_if_finite(
    inner: GradientTransformation,
    max_consecutive_errors: NonNegative,
    *,
    on_give_up: Literal["apply", "skip", "zero"] = "apply",
) -> TreeRule:
    """Skips updates in which any number is NaN or infinite, up to a number of them in a row.

    A skipped update is zero and leaves the inner state alone. When more than
    `max_consecutive_errors` in a row were not finite, something is broken, and by default that
    shows: the update is applied, and makes parameters NaN. A finite update ends the row.

    Args:
      inner: The transformation of updates that are finite.
      max_consecutive_errors: How many updates in a row to skip, >= 0.
      on_give_up: What becomes of those after them: with ``"apply"`` they go to `inner` as they are;
        with ``"zero"`` they do with zeros for numbers that are not finite; with ``"skip"`` they are
        skipped too.

    Returns:
      A transformation whose state is an `ApplyIfFiniteState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale
      >>> from grad_wrappers import apply_if_finite
      >>> tx = apply_if_finite(scale(-1.0), 2)
      >>> updates, state = tx.update(jnp.nan, tx.init(0.0))
      >>> updates, state.notfinite_count
      (Array(0., dtype=float32), Array(1, dtype=int32))
    """

    def init(params: Params) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(zero_count(), jnp.array(True), zero_count(), inner.init(params))

    def update(
        updates: Updates, state: ApplyIfFiniteState, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        is_finite = _all_finite(updates)
        in_a_row = jnp.where(is_finite, 0, safe_increment(state.notfinite_count))
        total = jnp.where(is_finite, state.total_notfinite, safe_increment(state.total_notfinite))
        gives_up = on_give_up != "skip" and in_a_row > max_consecutive_errors

        def advance() -> tuple[Updates, OptState]:
            g = map_present(_finite_part, updates) if on_give_up == "zero" else updates
            return inner.update(g, state.inner_state, params, **extra_args)

        def skip() -> tuple[Updates, OptState]:
            return nothing(updates), state.inner_state

        updates, inner_state = either(
            is_finite | gives_up, advance, skip, updates, state.inner_state
        )
        return updates, ApplyIfFiniteState(in_a_row, is_finite, total, inner_state)

    return TreeRule(update, init)


def _all_finite(updates: Updates) -> jax.Array:
    leaves = [g for g in jax.tree.leaves(updates) if not means_no_update(g)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(g)) for g in leaves], bool))


def _finite_part(g: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(g), g, 0)


class ConditionFn(Protocol):
    """``condition(step)``, or with extra arguments ``condition(step, **extra_args)``: a bool.

    The step is the number of updates before this one. It is called outside of compiled code.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class ConditionallyTransformState(NamedTuple):
    """The inner state, and the number of updates."""

    inner_state: OptState
    step: jax.Array


class ConditionallyMaskState(NamedTuple):
    """The number of updates, and the inner state."""

    step: jax.Array
    inner_state: OptState


MaybeUpdateState = ConditionallyTransformState


def _first_two(step: jax.Array, **extra_args: object) -> jax.Array:
    return step < 2


_STEPS = chain(trace(0.9), scale_by_learning_rate(0.01))
_UPHILL = "between steps, gradients pass as they are"


@exempt("decreases_convex_loss", reason=_UPHILL)
@exempt("decreases_nonconvex_loss", reason=_UPHILL)
@exempt("decreases_stochastic_loss", reason=_UPHILL)
@example(_STEPS, _first_two)
@rule
def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: ConditionFn,
    forward_extra_args: bool = False,
) -> TreeRule:
    """Transforms updates when a condition holds; at other times they pass as they are.

    Then the inner state stays as it is, too.

    Args:
      inner: The transformation.
      should_transform_fn: The condition, a function of the number of updates before this one. It is
        the user's, and called outside of compiled code, with concrete values if there are any.
      forward_extra_args: Whether it is given the extra arguments of ``update`` too.

    Returns:
      A transformation whose state is a `ConditionallyTransformState`.

    Example:
      >>> from grad_core import scale
      >>> from grad_wrappers import conditionally_transform
      >>> tx = conditionally_transform(scale(10.0), lambda step: step >= 1)
      >>> state = tx.init(0.0)
      >>> for _ in range(2):
      ...     updates, state = tx.update(1.0, state)
      ...     print(updates)
      1.0
      10.0
    """
    _check_condition("conditionally_transform", "should_transform_fn", should_transform_fn)
    return _conditionally(
        inner,
        should_transform_fn,
        forward_extra_args,
        lambda updates: updates,
        ConditionallyTransformState,
    )


@example(_STEPS, _first_two)
@rule
def conditionally_mask(
    inner: GradientTransformation,
    should_transform_fn: ConditionFn,
    forward_extra_args: bool = False,
) -> TreeRule:
    """Transforms updates when a condition holds; at other times they become zero.

    Then the inner state stays as it is.

    Args:
      inner: The transformation.
      should_transform_fn: As for `conditionally_transform`.
      forward_extra_args: As for `conditionally_transform`.

    Returns:
      A transformation whose state is a `ConditionallyMaskState`.

    Example:
      >>> from grad_core import scale
      >>> from grad_wrappers import conditionally_mask
      >>> tx = conditionally_mask(scale(10.0), lambda step: step >= 1)
      >>> state = tx.init(0.0)
      >>> for _ in range(2):
      ...     updates, state = tx.update(1.0, state)
      ...     print(updates)
      0.0
      10.0
    """
    _check_condition("conditionally_mask", "should_transform_fn", should_transform_fn)
    return _conditionally(
        inner, should_transform_fn, forward_extra_args, nothing, ConditionallyMaskState
    )


@exempt("decreases_convex_loss", reason=_UPHILL)
@exempt("decreases_nonconvex_loss", reason=_UPHILL)
@exempt("decreases_stochastic_loss", reason=_UPHILL)
@example(_STEPS, _first_two)
@rule
def maybe_update(inner: GradientTransformation, should_update_fn: ConditionFn) -> TreeRule:
    """`conditionally_transform`, by the name that it had in the first releases.

    Args:
      inner: The transformation.
      should_update_fn: The condition, a function of the number of updates before this one.

    Returns:
      A transformation whose state is a `MaybeUpdateState`.

    Example:
      >>> from grad_core import scale
      >>> from grad_wrappers import maybe_update
      >>> tx = maybe_update(scale(10.0), lambda step: step >= 1)
      >>> float(tx.update(1.0, tx.init(0.0))[0])
      1.0
    """
    _check_condition("maybe_update", "should_update_fn", should_update_fn)
    return _conditionally(inner, should_update_fn, False, lambda updates: updates, MaybeUpdateState)


def _check_condition(factory: str, name: str, condition: object) -> None:
    if not callable(condition):
        raise TypeError(
            f"{factory}: {name} must be a function of the step; got {shown(condition)}."
        )


def _conditionally(
    inner: GradientTransformation,
    condition: ConditionFn,
    forward_extra_args: bool,
    otherwise: Callable[[Updates], Updates],
    kind: Callable[..., Any],
) -> TreeRule:
    """Transforms if a condition holds; does something else with the updates if not."""

    def init(params: Params) -> OptState:
        return kind(step=zero_count(), inner_state=inner.init(params))

    def update(
        updates: Updates, state: Any, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        holds = condition(state.step, **(extra_args if forward_extra_args else {}))
        updates, inner_state = either(
            holds,
            lambda: inner.update(updates, state.inner_state, params, **extra_args),
            lambda: (otherwise(updates), state.inner_state),
            updates,
            state.inner_state,
        )
        return updates, kind(step=safe_increment(state.step), inner_state=inner_state)

    return TreeRule(update, init, compiled=False)
