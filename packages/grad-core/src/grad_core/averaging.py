"""Running sums and averages of updates: momentum (`trace`) and `ema`."""

from typing import Any, NamedTuple

import jax

from grad_core.conformance import example
from grad_core.hyperparameters import Decay, DType
from grad_core.rules import LeafRule
from grad_core.statistics import first_moment
from grad_core.transformations import rule
from grad_core.types import Updates


class TraceState(NamedTuple):
    """The decaying sum of past updates."""

    trace: Updates


class EmaState(NamedTuple):
    """The number of updates, and their exponential moving average, not debiased."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    ema: Updates


@example(0.9)
@rule
def trace(decay: Decay, nesterov: bool = False, accumulator_dtype: DType | None = None) -> LeafRule:
    """Momentum: a decaying sum of updates, t' = g + decay * t.

    The update is t', or with `nesterov` g + decay * t'.

    Args:
      decay: The decay, in [0, 1].
      nesterov: Whether to look one step ahead.
      accumulator_dtype: The dtype of the sum; the parameter's with None.

    Returns:
      A transformation whose state is the sum.

    Example:
      >>> from grad_core import trace
      >>> tx = trace(0.5)
      >>> state = tx.init(0.0)
      >>> for _ in range(3):
      ...     updates, state = tx.update(1.0, state)
      >>> updates
      Array(1.75, dtype=float32)

    Reference:
      Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    def step(g: jax.Array, trace: jax.Array) -> tuple[jax.Array, jax.Array]:
        trace = g + decay * trace
        return (g + decay * trace if nesterov else trace), trace

    return LeafRule(step, TraceState, trace=first_moment(accumulator_dtype))


@example(0.9)
@rule
def ema(decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None) -> LeafRule:
    """Replaces updates by their exponential moving average, e' = decay * e + (1 - decay) * g.

    With `debias` the update is e' / (1 - decay^t), the weighted mean of the t updates so far.

    Args:
      decay: The decay, in [0, 1].
      debias: Whether to correct the start from zero.
      accumulator_dtype: The dtype of the average; the parameter's with None.

    Returns:
      A transformation whose state is the average and the count.

    Example:
      >>> from grad_core import ema
      >>> tx = ema(0.9)
      >>> tx.update(3.0, tx.init(0.0))[0].round(4)
      Array(3., dtype=float32)

    Reference:
      Kingma and Ba, Adam: a method for stochastic optimization, 2014, section 3.
    """

    def once(t: jax.Array) -> dict[str, Any]:
        return {"weight": 1 - decay**t}

    def step(g: jax.Array, ema: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        ema = decay * ema + (1 - decay) * g
        return (ema / weight if debias else ema), ema

    return LeafRule(step, EmaState, once=once, ema=first_moment(accumulator_dtype))
