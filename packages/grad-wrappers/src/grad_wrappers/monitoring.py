"""Measuring updates on their way, for logging: `snapshot`, `monitor`, `measure_with_ema`.

Put one of them where you want to look: in front of a clip, it sees the norms before clipping. The
updates pass as they are. Measures are functions of the updates, yours: outside `jax.jit` they are
called with concrete arrays. What they return (numbers, arrays, trees of them) is in the state, in
which `grad_core.tree.get` finds it by name. Where a leaf has no update, measures see None.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    PyTree,
    Updates,
    ema,
    example,
    exempt,
    global_norm,
    structure,
    transformation,
    with_extra_args_support,
    zeros_like,
)
from grad_core.errors import shown
from grad_core.tree._map_params import ParamsPlaceholder

Measure: TypeAlias = Callable[[Updates], PyTree]
"""A function of the updates: a norm, a histogram."""


class SnapshotState(NamedTuple):
    """What the measure returned last, by its name."""

    measurement: dict[str, PyTree]


class MonitorState(NamedTuple):
    """What the measures returned last, by name; and their states, in order."""

    measurements: dict[str, PyTree]
    measure_states: tuple[OptState, ...]


def itself(updates: Updates) -> Updates:
    """The simplest measure."""
    return updates


_UNTOUCHED = "what is not touched may be of any dtype"


@exempt("integer_leaves_are_refused", reason=_UNTOUCHED)
@example("norm", global_norm)
@transformation
def snapshot(measure_name: str, measure: Measure) -> GradientTransformation:
    """Measures the updates, and keeps the last measurement in the state.

    Costs what the measure returns.

    Args:
      measure_name: The key of the measurement in the state.
      measure: A function of the updates that returns arrays or numbers. ``init`` calls it with the
        parameters.

    Returns:
      A transformation whose state is a `SnapshotState`.

    Raises:
      TypeError: If `measure` is no function.

    Example:
      >>> from grad_core import chain, clip_by_global_norm, global_norm, tree
      >>> from grad_wrappers import snapshot
      >>> tx = chain(snapshot("norm", global_norm), clip_by_global_norm(1.0))
      >>> params = {"a": 3.0, "b": 4.0}
      >>> updates, state = tx.update(params, tx.init(params))
      >>> tree.get(state, "norm")
      Array(5., dtype=float32)
    """
    _check_callable("snapshot", measure_name, measure)

    def init(params: Params) -> SnapshotState:
        return SnapshotState({measure_name: _measured_first(measure, params)})

    def update(
        updates: Updates, state: SnapshotState, params: Params | None = None
    ) -> tuple[Updates, SnapshotState]:
        return updates, SnapshotState({measure_name: _as_arrays(measure(_there(updates)))})

    return GradientTransformation(init, update)


@exempt("integer_leaves_are_refused", reason=_UNTOUCHED)
@example({"norm": global_norm})
@transformation
def monitor(
    measures: Mapping[str, Measure | GradientTransformation],
) -> GradientTransformationExtraArgs:
    """Takes several measures of the updates, and keeps the last measurements in the state.

    Before the first update they are zero.

    Costs what the measures return.

    Args:
      measures: Functions of the updates by name; or, for measures with a state of their own,
        transformations that return measurements in place of updates, such as `measure_with_ema`.

    Returns:
      A transformation whose state is a `MonitorState`. Extra arguments of its ``update`` reach
      those measures that are transformations.

    Raises:
      TypeError: If a measure is neither a function nor a transformation.

    Example:
      >>> from grad_core import global_norm, tree
      >>> from grad_wrappers import measure_with_ema, monitor
      >>> tx = monitor({"norm": global_norm, "smooth": measure_with_ema(global_norm, 0.5)})
      >>> updates = {"a": 3.0, "b": 4.0}
      >>> _, state = tx.update(updates, tx.init(updates))
      >>> {name: float(x) for name, x in state.measurements.items()}
      {'norm': 5.0, 'smooth': 5.0}
    """
    if not isinstance(measures, Mapping):
        raise TypeError(f"monitor: measures must be a dict of them by name; got {shown(measures)}.")
    transformations = {name: _as_transformation(name, m) for name, m in measures.items()}

    def init(params: Params) -> MonitorState:
        states = {name: tx.init(params) for name, tx in transformations.items()}

        def first(name: str) -> PyTree:
            tx = transformations[name]
            return _measured_first(lambda zero: tx.update(zero, states[name], params)[0], params)

        zeros = {name: jax.tree.map(zeros_like, first(name)) for name in states}
        return MonitorState(zeros, tuple(states.values()))

    def update(
        updates: Updates,
        state: MonitorState,
        params: Params | None = None,
        **extra_args: object,
    ) -> tuple[Updates, MonitorState]:
        measurements, states, seen = {}, [], _there(updates)
        for (name, tx), old in zip(transformations.items(), state.measure_states, strict=True):
            measured, new = tx.update(seen, old, params, **extra_args)
            measurements[name] = _as_arrays(measured)
            states.append(new)
        return updates, MonitorState(measurements, tuple(states))

    return GradientTransformationExtraArgs(init, update)


@example(itself, 0.9)
@transformation
def measure_with_ema(
    measure: Measure, decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None
) -> GradientTransformationExtraArgs:
    """A measure for `monitor`: the exponential moving average of another, as in `ema`.

    Costs what the measure returns, in `accumulator_dtype`.

    Args:
      measure: A function of the updates that returns arrays or numbers. ``init`` calls it with the
        parameters.
      decay: The decay, in [0, 1].
      debias: Whether to correct the start from zero.
      accumulator_dtype: The dtype of the average; the measurement's with None.

    Returns:
      A transformation that returns averages in place of updates.

    Raises:
      TypeError: If `measure` is no function.

    Example:
      >>> from grad_wrappers import measure_with_ema
      >>> mean = measure_with_ema(lambda updates: updates["a"], 0.5, debias=False)
      >>> mean.update({"a": 4.0}, mean.init({"a": 0.0}))[0]
      Array(2., dtype=float32)
    """
    _check_callable("measure_with_ema", "measure", measure)
    average = ema(decay, debias, accumulator_dtype)

    def init(params: Params) -> tuple[EmptyState, OptState]:
        return EmptyState(), average.init(_measured_first(measure, params))

    def update(
        updates: Updates,
        state: tuple[EmptyState, OptState],
        params: Params | None = None,
        **extra_args: object,
    ) -> tuple[PyTree, tuple[EmptyState, OptState]]:
        measured, new = average.update(_as_arrays(measure(updates)), state[1])
        return measured, (state[0], new)

    return GradientTransformationExtraArgs(init, update)


def _measured_first(measure: Measure, params: Params) -> PyTree:
    """A measurement of the parameters, in place of updates."""
    if isinstance(params, ParamsPlaceholder):  # of tree.map_params
        return jnp.zeros([])
    if any(isinstance(p, jax.ShapeDtypeStruct) for p in jax.tree.leaves(params)):
        params = jax.tree.map(zeros_like, params)
    return _as_arrays(measure(params))


def _there(updates: Updates) -> Updates:
    """The updates as measures see them: float0 arrays, which have no numbers, are None."""
    return jax.tree.map(lambda g: None if structure.means_no_update(g) else g, updates)


def _as_arrays(measured: PyTree) -> PyTree:
    """Numbers as arrays, of dtypes that are not weak, so that states keep their types."""
    return jax.tree.map(_as_array, measured)


def _as_array(x: Any) -> Any:
    if getattr(x, "dtype", None) == jax.dtypes.float0:
        return x
    return jnp.asarray(x, jnp.result_type(x))


def _as_transformation(
    name: str, measure: Measure | GradientTransformation
) -> GradientTransformationExtraArgs:
    if isinstance(measure, GradientTransformation):
        return with_extra_args_support(measure)
    _check_callable("monitor", name, measure)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra_args: object
    ) -> tuple[PyTree, OptState]:
        return measure(updates), state

    return GradientTransformationExtraArgs(lambda params: EmptyState(), update)


def _check_callable(factory: str, name: str, measure: object) -> None:
    if not callable(measure):
        raise TypeError(
            f"{factory}: the measure {name!r} must be a function of the updates; "
            f"got {shown(measure)}."
        )
