"""Gradient accumulation: one step for several microbatches.

The gradient of a mean loss over a batch is the mean of its gradients over k microbatches of equal
size, so that a large batch can be taken in parts. `MultiSteps` keeps the mean m of the n gradients
so far,

    m_n = m_(n-1) + (g_n - m_(n-1)) / n,

which, unlike a sum, overflows for no gradients of one sign, and whose rounding errors do not grow
with k: each is of the size of one gradient's. With the k-th it calls the optimizer, once.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    DType,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    Numeric,
    OptState,
    Params,
    PyTree,
    TreeRule,
    Updates,
    abs_sq,
    example,
    exempt,
    first_moment,
    rule,
    safe_increment,
    trace,
    transformation,
    with_extra_args_support,
    zeros_like,
)
from grad_core.errors import shown
from grad_core.hyperparameters import Range
from grad_core.rules import in_compute_precision
from grad_core.schedules import ScheduleFn
from grad_core.structure import means_no_update
from grad_core.values import Factory, factory_of
from grad_wrappers._branches import either, map_present, nothing
from grad_wrappers._leaves import zero_count

EveryK: TypeAlias = Annotated[int | jax.Array | Callable[[jax.Array], Numeric], Range(low=1)]
"""After how many updates to step: a positive integer, or a function of the steps so far."""

EveryUpdates: TypeAlias = Annotated[int | jax.Array, Range(low=1)]
"""Every how many updates: a positive integer."""


class MultiStepsState(NamedTuple):
    """Where an accumulation stands.

    Attributes:
      mini_step: The number of gradients accumulated since the last step.
      gradient_step: The number of steps of the optimizer.
      inner_opt_state: The optimizer's state.
      acc_grads: The mean, or sum, of those gradients; ``()`` if every gradient makes a step.
      skip_state: What `should_skip_update_fn` returned last; ``()`` without one.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: OptState
    acc_grads: Updates
    skip_state: PyTree = ()


class ShouldSkipUpdateFunction(Protocol):
    """Says whether to leave a gradient out, and what to keep of that in the state.

    It is called with the updates, the number of steps so far and the parameters, or None, and
    returns a bool and a tree of arrays. Its own functions apart, `MultiSteps` calls it outside of
    compiled code; at ``init``, with updates of zero.
    """

    def __call__(self, updates: Any, gradient_step: Any, params: Any, /) -> tuple[Any, PyTree]: ...


def skip_not_finite(
    updates: Updates, gradient_step: Numeric, params: Params | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Says to skip updates in which any number is NaN or infinite, for `MultiSteps`.

    Args:
      updates: The updates.
      gradient_step: Not used.
      params: Not used.

    Returns:
      Whether to skip them; and that again, as ``should_skip``, with ``num_not_finite``, their
      number of such numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers import skip_not_finite
      >>> skip, details = skip_not_finite(jnp.array([1.0, jnp.inf, jnp.nan]), 0, None)
      >>> bool(skip), int(details["num_not_finite"])
      (True, 2)
    """
    counts = [jnp.sum(~jnp.isfinite(g), dtype=jnp.int32) for g in _arrays(updates)]
    count = sum(counts, jnp.zeros([], jnp.int32))
    return count > 0, {"should_skip": count > 0, "num_not_finite": count}


def skip_large_updates(
    updates: Updates, gradient_step: Numeric, params: Params | None, max_squared_norm: Numeric
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Says to skip updates of too large a norm, for `MultiSteps`: those with ||g||^2 >= the bound.

    Updates with NaN are skipped too. Bind the bound with `functools.partial`.

    Args:
      updates: The updates.
      gradient_step: Not used.
      params: Not used.
      max_squared_norm: The bound on the squared Euclidean norm over all leaves.

    Returns:
      Whether to skip them; and that again, as ``should_skip``, with the ``norm_squared``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers import skip_large_updates
      >>> skip, details = skip_large_updates(jnp.array([3.0, 4.0]), 0, None, 30.0)
      >>> bool(skip), float(details["norm_squared"])
      (False, 25.0)
    """
    squares = [jnp.sum(abs_sq(in_compute_precision(g))) for g in _arrays(updates)]
    norm_squared = sum(squares, jnp.zeros([], jnp.float32))
    skip = ~(norm_squared < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": norm_squared}


def _arrays(updates: Updates) -> list[Any]:
    return [g for g in jax.tree.leaves(updates) if not means_no_update(g)]


def _accumulator_dtype(p: Any, dtype: DType | None) -> Any:
    """That of a parameter's accumulator: at least float32 for float32, complex where it is."""
    if dtype is None or jnp.dtype(dtype) == jnp.float32:
        return None if dtype is None else jnp.promote_types(jnp.result_type(p), jnp.float32)
    return jnp.promote_types(dtype, jnp.complex64) if jnp.iscomplexobj(p) else dtype


class _Accumulated(NamedTuple):
    acc_grads: Updates


@rule
def accumulate(mean: bool, dtype: DType | None) -> LeafRule:
    """The mean, or sum, of updates so far, in its state.

    The extra argument n is their number with this one; if it is to be left out, skip is true.
    """

    def step(
        g: jax.Array, acc_grads: jax.Array, n: jax.Array, skip: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        change = (g - acc_grads) / n if mean else g
        return g, acc_grads + jnp.where(skip, 0, change)

    def first(p: jax.Array) -> jax.Array:
        return zeros_like(p, _accumulator_dtype(p, dtype))

    def once(n: jax.Array, skip: jax.Array) -> dict[str, Any]:
        return {"n": n, "skip": skip}

    return LeafRule(step, _Accumulated, once=once, acc_grads=first)


@rule
def step_every(
    opt: GradientTransformation, k: EveryK, mean: bool, accumulator_dtype: DType | None
) -> TreeRule:
    """`MultiSteps` that accumulates."""
    accumulator: Any = accumulate(mean, accumulator_dtype)

    def init(params: Params) -> MultiStepsState:
        gradients: Any = accumulator.init(params)
        return MultiStepsState(zero_count(), zero_count(), opt.init(params), gradients.acc_grads)

    def update(
        updates: Updates,
        state: MultiStepsState,
        params: Params | None,
        _skip: Any = False,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]:
        n = state.mini_step + 1
        is_due = n >= (k(state.gradient_step) if callable(k) else k)

        new: Any
        _, new = accumulator.update(updates, _Accumulated(state.acc_grads), n=n, skip=_skip)

        def step() -> tuple[Updates, OptState]:
            g = map_present(_widened, updates, new.acc_grads)
            u, inner = opt.update(g, state.inner_opt_state, params, **extra_args)
            return u, state._replace(
                mini_step=jnp.zeros_like(n),
                gradient_step=safe_increment(state.gradient_step),
                inner_opt_state=inner,
                acc_grads=jax.tree.map(zeros_like, new.acc_grads),
            )

        def wait() -> tuple[Updates, OptState]:
            so_far = jnp.where(_skip, state.mini_step, n)
            return nothing(updates), state._replace(mini_step=so_far, acc_grads=new.acc_grads)

        return either(is_due & ~jnp.asarray(_skip), step, wait, updates, state)

    return TreeRule(
        update,
        init,
        extra_names=["_skip"],
        inner_state=attrgetter("inner_opt_state"),
        count=attrgetter("gradient_step"),
    )


def _widened(g: Any, accumulated: jax.Array) -> jax.Array:
    """What was accumulated, in its own dtype if that holds more than the update's."""
    return accumulated.astype(jnp.promote_types(accumulated.dtype, jnp.result_type(g)))


@rule
def step_always(opt: GradientTransformation) -> TreeRule:
    """`MultiSteps` that has nothing to accumulate."""

    def init(params: Params) -> MultiStepsState:
        return MultiStepsState(zero_count(), zero_count(), opt.init(params), ())

    def update(
        updates: Updates,
        state: MultiStepsState,
        params: Params | None,
        _skip: Any = False,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]:
        def step() -> tuple[Updates, OptState]:
            u, inner = opt.update(updates, state.inner_opt_state, params, **extra_args)
            steps = safe_increment(state.gradient_step)
            return u, state._replace(gradient_step=steps, inner_opt_state=inner)

        return either(_skip, lambda: (nothing(updates), state), step, updates, state)

    inner_state = attrgetter("inner_opt_state")
    return TreeRule(update, init, extra_names=["_skip"], inner_state=inner_state)


@rule
def unless_skipped(
    steps: GradientTransformation, should_skip: ShouldSkipUpdateFunction
) -> TreeRule:
    """`MultiSteps` that leaves gradients out."""
    is_ours = getattr(should_skip, "func", should_skip) in (skip_not_finite, skip_large_updates)

    def init(params: Params) -> OptState:
        zeros = jax.tree.map(zeros_like, params)
        _, skip_state = should_skip(zeros, zero_count(), params)
        state: Any = steps.init(params)
        return state._replace(skip_state=skip_state)

    def update(
        updates: Updates, state: MultiStepsState, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        skip, skip_state = should_skip(updates, state.gradient_step, params)
        extra_args["_skip"] = skip
        new: Any
        updates, new = steps.update(updates, state, params, **extra_args)
        return updates, new._replace(skip_state=skip_state)

    return TreeRule(update, init, compiled=is_ours, inner_state=lambda state: state)


class _Positive:
    """A user's schedule, of which values that are known are checked."""

    def __init__(self, schedule: Callable[[jax.Array], Numeric]) -> None:
        self.schedule = schedule

    def __call__(self, gradient_step: jax.Array) -> Numeric:
        k = self.schedule(gradient_step)
        if not isinstance(k, jax.core.Tracer) and not k >= 1:
            raise ValueError(
                f"MultiSteps: every_k_schedule must return positive integers; at step "
                f"{gradient_step} it returned {k}."
            )
        return k

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Positive) and self.schedule == other.schedule

    def __hash__(self) -> int:
        return hash(self.schedule)


@transformation
def _multi_steps(
    opt: GradientTransformation,
    every_k_schedule: EveryK,
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
    accumulator_dtype: DType | None = jnp.float32,
) -> GradientTransformation:
    """What `MultiSteps` makes."""
    k: Any = every_k_schedule
    if isinstance(k, float | np.floating) and not float(k).is_integer():
        raise ValueError(f"MultiSteps: every_k_schedule must be an integer; got {k!r}.")
    if callable(k) and not isinstance(k, ScheduleFn):
        k = _Positive(k)
    if isinstance(k, int | float | np.number) and k == 1:
        steps = step_always(opt)
    else:
        steps = step_every(opt, k, use_grad_mean, accumulator_dtype)
    if should_skip_update_fn is None:
        return steps
    if not callable(should_skip_update_fn):
        raise TypeError(
            "MultiSteps: should_skip_update_fn must be a function such as skip_not_finite; "
            f"got {shown(should_skip_update_fn)}."
        )
    return unless_skipped(steps, should_skip_update_fn)


@exempt("extra_arguments_are_routed", reason="its first update is no step of what is in it")
@exempt("schedules_stand_for_numbers", reason="its schedule's count is of steps, not of updates")
@example(trace(0.9), 2)
class MultiSteps(GradientTransformationExtraArgs):
    """Calls an optimizer once for every k updates, with their mean.

    Updates in between are zero, and cost no step of the optimizer. ``init``, ``update`` and
    ``_replace`` are those of any transformation, so it can stand in a `chain`. With a Python 1 for
    k there is no accumulator, and nothing is computed beyond the optimizer's step.

    Args:
      opt: The optimizer.
      every_k_schedule: k, a positive integer, or a function of the number of steps so far that
        returns one. A traced number below 1 counts as 1.
      use_grad_mean: Whether the optimizer gets the mean of the updates, or else their sum.
      should_skip_update_fn: Says which updates to leave out, as if they had not been: see
        `ShouldSkipUpdateFunction`, `skip_not_finite` and `skip_large_updates`.
      accumulator_dtype: The dtype that updates are accumulated in: complex ones in a complex dtype
        of that precision, float64 ones in float64 if it is the default, and all in the parameter's
        dtype if it is None. The optimizer gets them in it, if it holds more than the updates'.

    Returns:
      A transformation whose state is a `MultiStepsState`.

    Raises:
      ValueError: If k is no positive integer.

    Example:
      >>> from grad_core import scale
      >>> from grad_wrappers import MultiSteps
      >>> optimizer = MultiSteps(scale(-0.5), every_k_schedule=2)
      >>> state = optimizer.init(0.0)
      >>> for gradient in (1.0, 3.0):
      ...     updates, state = optimizer.update(gradient, state)
      ...     print(updates, optimizer.has_updated(state))
      0.0 False
      -1.0 True
    """

    __slots__ = ()
    __factory__: ClassVar[Factory] = factory_of(_multi_steps)

    def __new__(
        cls,
        opt: GradientTransformation,
        every_k_schedule: EveryK,
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DType | None = jnp.float32,
    ) -> "MultiSteps":
        return cls._make(
            _multi_steps(
                opt, every_k_schedule, use_grad_mean, should_skip_update_fn, accumulator_dtype
            )
        )

    @property
    def inner_opt(self) -> GradientTransformationExtraArgs:
        """The optimizer."""
        call = self.init.call  # type: ignore[attr-defined]
        return with_extra_args_support(call.arguments["opt"])

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the last update was a step of the optimizer."""
        skipped: Any = False
        if isinstance(state.skip_state, dict):
            skipped = state.skip_state.get("should_skip", False)
        return (state.mini_step == 0) & (state.gradient_step > 0) & ~jnp.asarray(skipped)

    def gradient_transformation(self) -> GradientTransformationExtraArgs:
        """Itself, which is one."""
        return self

    def __repr__(self) -> str:
        return super().__repr__().replace("(opt=", "(", 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return MultiSteps._make, (tuple(self),)


# A call of the function behind it prints, and is unpickled, as one of the class.
MultiSteps.__factory__.name = "MultiSteps"
MultiSteps.__factory__.public = MultiSteps
# JAX would rebuild it as other named tuples, by calling the class with its fields.
jax.tree_util.register_pytree_with_keys(
    MultiSteps,
    lambda pair: (
        [(jax.tree_util.GetAttrKey(name), getattr(pair, name)) for name in pair._fields],
        None,
    ),
    lambda _, fields: MultiSteps._make(fields),
)


class ApplyEvery(NamedTuple):
    """The place in a cycle of k updates, and the sum of those so far."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    grad_acc: Updates


@example(2)
@rule
def apply_every(k: EveryUpdates = 1, *, accumulator_dtype: DType | None = None) -> LeafRule:
    """Lets the sum of k updates pass at every k-th update, and zeros at the others.

    Within a chain it follows what is to see every gradient; `MultiSteps` instead spares its
    optimizer those in between.

    Args:
      k: A positive integer.
      accumulator_dtype: The dtype of the sum; the parameter's with None.

    Returns:
      A transformation whose state is an `ApplyEvery`.

    Example:
      >>> from grad_wrappers import apply_every
      >>> tx = apply_every(2)
      >>> state = tx.init(0.0)
      >>> for g in (1.0, 2.0, 3.0, 4.0):
      ...     updates, state = tx.update(g, state)
      ...     print(updates)
      0.0
      3.0
      0.0
      7.0
    """

    def once(count: jax.Array) -> dict[str, Any]:
        place = count % k
        return {"is_first": place == 0, "is_last": place + 1 >= k, "count": (place + 1) % k}

    def step(
        g: jax.Array, grad_acc: jax.Array, is_first: jax.Array, is_last: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        total = jnp.where(is_first, g, grad_acc + g)
        return jnp.where(is_last, total, 0), total

    return LeafRule(
        step,
        ApplyEvery,
        once=once,
        count=np.int32(0),
        grad_acc=first_moment(accumulator_dtype),
    )
