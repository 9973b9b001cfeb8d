"""Schedules as values, and how compiled code meets them.

A schedule is any function from the step count to a hyperparameter. Those made by a factory that is
decorated with `schedule` print, compare, hash and pickle as their call, and are evaluated inside
compiled code; any other callable is called as it is, outside, with a concrete count if there is
one.
"""

from collections.abc import Callable
from typing import Any, ParamSpec

import jax

from grad_core.hyperparameters import TracedSchedule
from grad_core.types import Numeric, Schedule
from grad_core.values import Call, Remembering, publish

P = ParamSpec("P")


class ScheduleFn(Remembering):
    """A schedule that remembers the call that made it."""

    def __call__(self, count: Numeric) -> jax.Array:
        return _evaluate(self.call, count)  # type: ignore[no-any-return]


@jax.jit
def _evaluate(call: Call, count: Numeric) -> Any:
    return call.build()(count)


def schedule(body: Callable[P, Schedule]) -> Callable[P, Callable[[Numeric], jax.Array]]:
    """Makes a schedule factory's results values: printed, compared, hashed, pickled by their call.

    The body takes the hyperparameters and returns a function of the step count, written in
    `jax.numpy`. It may run more than once, also with traced hyperparameters; numeric arguments are
    those annotated as such (see `grad_core.hyperparameters`).

    Example:
      >>> from grad_core import Real, Schedule, schedule
      >>> @schedule
      ... def halving(init_value: Real) -> Schedule:
      ...     return lambda count: init_value * 0.5**count
      >>> halving(8.0)
      halving(init_value=8.0)
      >>> float(halving(8.0)(2)), halving(8.0) == halving(8.0)
      (2.0, True)
    """

    def finish(call: Call) -> Callable[[Numeric], jax.Array]:
        call.build()  # so that what the body refuses is refused now
        return ScheduleFn(call)

    return publish(body, finish)


def in_compiled_code(call: Call) -> Call:
    """The call with each schedule of ours in the form that compiled code takes."""
    ours = {
        name: TracedSchedule(in_compiled_code(value.call))
        for name, value in call.arguments.items()
        if isinstance(value, ScheduleFn)
    }
    return call.replace(**ours) if ours else call
