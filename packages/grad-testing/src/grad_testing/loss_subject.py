"""A loss under test: its example call, that call at extremes, and what it gives, computed once.

All checks of a loss share a handful of compiled functions: for each dtype one that gives values and
gradients at all cases at once, one of derivatives in double precision, one of other batches.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.values import Factory as Function
from grad_testing.checking import Factory, Subject, require
from grad_testing.loss_cases import Array, Arrays, Case, make_cases

__all__ = [
    "DTYPES",
    "Derivatives",
    "LossSubject",
    "Results",
    "loss_subject_of",
    "quick_jit",
]

DTYPES = ("float16", "bfloat16", "float32", "float64")

STEP = 1e-5
"""Of finite differences, in double precision."""


class Results(NamedTuple):
    """The value of a loss and its gradients, by argument, of the weighted sum of the value."""

    value: Array
    gradients: Arrays


class Derivatives(NamedTuple):
    """Derivatives of a loss at the example, in double precision, not under `jax.vmap`.

    Attributes:
      gradients: Of the weighted sum of the value, by reverse mode.
      tangent: Of the value along all directions together, by forward mode.
      forward_over_reverse: The change of the gradients along all directions together.
      reverse_over_reverse: The same.
    """

    gradients: Arrays
    tangent: Array
    forward_over_reverse: Arrays
    reverse_over_reverse: Arrays


class LossSubject(Subject):
    """A loss under test, with the call that its module gives as an example."""

    # The arguments.

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The arguments of the example call that are arrays; reals among them in float32."""
        found = {}
        for name, value in self.arguments.arguments.items():
            if isinstance(value, np.ndarray | jax.Array) and _is_number(value):
                array = np.asarray(value)
                found[name] = array.astype(np.float32) if _is_real(array) else array
        return found

    @functools.cached_property
    def reals(self) -> list[str]:
        """The arrays of floating point numbers that derivatives are taken of."""
        fixed = self.promised("fixed", ())
        return [name for name, a in self.arrays.items() if _is_real(a) and name not in fixed]

    @functools.cached_property
    def batched(self) -> list[str]:
        """The arrays whose first axis is the batch."""
        shared = self.promised("shared", ())
        return [name for name in self.arrays if name not in shared]

    @functools.cached_property
    def batch_size(self) -> int:
        """How many examples there are."""
        return int(self.arrays[self.batched[0]].shape[0])

    @functools.cached_property
    def is_per_example(self) -> bool:
        """Whether the loss of an example depends on that example alone."""
        return bool(self.promised("per", "example") == "example")

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """What annotations say of the arguments."""
        return Function(self.factory).parameters

    def promised(self, what: str, default: Any) -> Any:
        """What the loss's module promises; or the default."""
        return self.conformance.promises.get(what, default)

    def range_of(self, name: str) -> tuple[float, float]:
        """The closed interval from which an argument may come, as promised or annotated."""
        annotated = self.ranges.get(name, (-math.inf, math.inf))
        low, high = self.promised("ranges", {}).get(name, annotated[:2])
        return float(low), float(high)

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """The arguments that are Python floats in the example call."""
        given = self.arguments.arguments
        return {name: value for name, value in given.items() if type(value) is float}

    # Calls.

    def make(self, **changes: object) -> Any:
        """The value of the example call with other values of some arguments."""
        made = super().make(**{**self.arrays, **changes})
        return made[0] if isinstance(made, tuple) else made

    def call(self, arrays: Mapping[str, Any]) -> Any:
        """The value at arguments given by name."""
        return self.make(**arrays)

    @functools.cached_property
    def value(self) -> Array:
        """The value of the example call, not compiled."""
        require(self.reals, f"{self.name} should take arrays of floating point numbers")
        value = np.asarray(self.made)
        is_good = _is_real(value) and np.isfinite(value).all()
        require(is_good, f"{self.name} should give finite floating point numbers, not {value!r}")
        return value

    @functools.cached_property
    def reason_to_skip(self) -> str | None:
        """Why no check can look at it; None if all can."""
        no_loss = self.conformance.exceptions.get("is_a_loss")
        if no_loss is not None:
            return f"no loss: {no_loss}"
        try:
            self.value  # noqa: B018 - it is what may fail
        except Exception:  # the suite has a test that shows it
            return "its example call fails: see test_is_a_loss"
        return None

    def shape_of(self, **changes: object) -> Any:
        """Shape and dtype of the value, without computing it."""
        return jax.eval_shape(lambda: self.make(**changes))

    def cast(self, dtype: Any) -> dict[str, Any]:
        """All arrays, those of reals in a dtype."""
        return {n: a.astype(dtype) if _is_real(a) else a for n, a in self.arrays.items()}

    # Cases.

    @functools.cached_property
    def example(self) -> Arrays:
        """What the example gives of the arguments that derivatives are taken of."""
        return {name: self.arrays[name].astype(np.float64) for name in self.reals}

    @functools.cache  # noqa: B019 - subjects live as long as the process
    def cases(self, dtype: str) -> list[Case]:
        """The example, and what lies at the extremes of a dtype; as many for each dtype."""
        ranges = {name: self.range_of(name) for name in self.reals}
        return make_cases(self.example, ranges, self.promised("infinite", ()), dtype)

    # Results.

    def weights(self, shape: tuple[int, ...]) -> Array:
        """Of the elements of the value in the sum that gradients are of; exact in any dtype."""
        return np.resize(0.5 + 5 * np.arange(self.value.size) % 16 / 8, shape)

    def value_and_gradients(self, reals: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
        """The value, and gradients of its weighted sum by `reals`."""

        def total(reals: Mapping[str, Any]) -> Any:
            value = self.make(**others, **reals)
            wide = value.astype(jnp.promote_types(value.dtype, jnp.float32))
            return jnp.sum(wide * self.weights(value.shape).astype(wide.dtype)), value

        (_, value), gradients = jax.value_and_grad(total, has_aux=True)(dict(reals))
        return value, gradients

    @functools.cache  # noqa: B019
    def _compiled(self, dtype: str) -> Any:
        jit = usual_jit if dtype == "float32" else quick_jit
        return jit(jax.vmap(self.value_and_gradients, (0, None)))

    def at(self, cases: list[Case], dtype: str) -> list[Results]:
        """Results at cases, computed in a dtype; all in one call of one compiled function."""
        number = len(self.cases("float32"))
        padded = [cases[i % len(cases)] for i in range(number)]
        with jax.enable_x64(dtype == "float64"):
            reals = {n: np.stack([c.arrays[n] for c in padded]).astype(dtype) for n in self.reals}
            others = {n: a for n, a in self.cast(dtype).items() if n not in reals}
            value, gradients = jax.device_get(self._compiled(dtype)(reals, others))
        return [
            Results(value[i], {n: g[i] for n, g in gradients.items()}) for i in range(len(cases))
        ]

    @functools.cache  # noqa: B019
    def results(self, dtype: str) -> list[Results]:
        """Results at the cases of a dtype, computed in it."""
        return self.at(self.cases(dtype), dtype)

    @functools.cache  # noqa: B019
    def exact_results(self, dtype: str) -> list[Results]:
        """Results at the cases of a dtype, rounded to it, but computed in double precision."""
        return self.at([case.rounded_to(dtype) for case in self.cases(dtype)], "float64")

    # Derivatives.

    @functools.cached_property
    def directions(self) -> Arrays:
        """A direction for each argument that derivatives are taken of."""
        rng = np.random.default_rng(0)
        return {name: np.array(rng.normal(size=x.shape)) for name, x in self.example.items()}

    @functools.cached_property
    def derivatives(self) -> Derivatives:
        """Derivatives at the example along `directions`, by one compiled function."""

        def derivatives(x: Arrays, v: Arrays, others: Arrays) -> Derivatives:
            def gradients(x: Arrays) -> Any:
                return self.value_and_gradients(x, others)[1]

            def along(x: Arrays) -> Any:
                return sum(jnp.vdot(g, v[name]) for name, g in gradients(x).items())

            _, tangent = jax.jvp(lambda x: self.make(**others, **x), (x,), (v,))
            g, forward = jax.jvp(gradients, (x,), (v,))
            return Derivatives(g, tangent, forward, jax.grad(along)(x))

        with jax.enable_x64(True):
            others = {n: a for n, a in self.cast(np.float64).items() if n not in self.reals}
            found = quick_jit(derivatives)(self.example, self.directions, others)
            return jax.device_get(found)  # type: ignore[no-any-return]

    @functools.cached_property
    def slopes(self) -> dict[str, Results]:
        """Central differences along each argument's direction, and along all together (``""``)."""
        cases = []
        for moved in (*self.reals, ""):
            for sign in (1, -1):
                arrays = {
                    n: x + sign * STEP * self.directions[n] * (moved in (n, ""))
                    for n, x in self.example.items()
                }
                cases.append(Case("moved", moved, arrays))
        found = self.at(cases, "float64")
        return {
            case.what: jax.tree.map(lambda a, b: (a - b) / (2 * STEP), after, before)
            for case, after, before in zip(cases[::2], found[::2], found[1::2], strict=True)
        }


@functools.lru_cache(maxsize=1024)
def loss_subject_of(loss: Factory) -> LossSubject:
    """The `LossSubject` for a loss; one for all checks."""
    return LossSubject(loss)


def quick_jit(function: Callable[..., Any]) -> Any:
    """`jax.jit` for what runs but once: on a CPU it compiles up to four times as fast."""
    return jax.jit(function, compiler_options=_options(quick=True))


def usual_jit(function: Callable[..., Any]) -> Any:
    """`jax.jit` as it is for users, whatever XLA is told by the environment."""
    return jax.jit(function, compiler_options=_options(quick=False))


@functools.cache
def _options(quick: bool) -> dict[str, Any]:
    """The options that this version of XLA has of those that matter."""
    wanted = {
        "xla_backend_optimization_level": 0 if quick else 3,
        "xla_cpu_use_fusion_emitters": not quick,
    }
    found = {}
    for name, value in wanted.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0, compiler_options={name: value})()
            found[name] = value
    return found


def _is_number(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool)


def _is_real(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.floating))
