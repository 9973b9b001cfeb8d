"""Losses: one value per example, however they are called and whatever their dtype.

A *check* is a function of a `LossSubject` that raises if the loss breaks a property.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_testing.checking import DoesNotApply, require, require_close, require_finite
from grad_testing.loss_subject import LossSubject, Results, quick_jit
from grad_testing.tolerances import Tolerance

__all__ = [
    "arithmetic_is_in_float32",
    "empty_batch_is_empty",
    "jit_changes_nothing",
    "lists_are_arrays",
    "one_value_per_example",
    "order_of_examples_is_kept",
    "vmap_is_a_loop",
    "works_in_dtype",
]

_ROUNDING = """
acos acosh add add_any asin asinh atan atan2 atanh cbrt conv_general_dilated cos cosh cumlogsumexp
cumprod cumsum digamma div dot_general erf erf_inv erfc exp exp2 expm1 integer_pow lgamma log log1p
logistic mul pow reduce_prod reduce_sum rsqrt sin sinh sqrt square sub tan tanh
"""
ROUNDING = frozenset(_ROUNDING.split())
"""Primitives that round what they compute to its dtype."""


def tolerance(dtype: str, expected: Any, roundings: int = 1) -> Tolerance:
    """The error of a result that is computed in at least float32 and then rounded to a dtype.

    A gradient is rounded more than once where an argument is widened more than once.
    """
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    wide = float(np.finfo(np.float64 if dtype == "float64" else np.float32).eps)
    narrow = float(limits.eps) / 2 if limits.bits < 32 else 0.0
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max(initial=1.0))
    relative = roundings * narrow + 64 * wide
    absolute = (roundings - 1) * narrow + 16 * wide
    return Tolerance(relative, absolute * scale + float(limits.smallest_subnormal))


# Batches.


def one_value_per_example(subject: LossSubject) -> None:
    """The value of a batch is that of its examples, each alone, stacked: there is no reduction."""
    if not subject.is_per_example:
        raise DoesNotApply("its module says that it is defined on the batch")
    batched = {name: subject.arrays[name] for name in subject.batched}

    @quick_jit
    @jax.vmap
    def alone(example: dict[str, Any]) -> Any:
        return subject.make(**{name: a[None] for name, a in example.items()})

    got, want = subject.value, np.asarray(alone(batched))
    shape = (subject.batch_size,)
    require(
        got.shape[:1] == shape and want.shape[1:2] == (1,),
        f"{subject.name} should give a value for each of {subject.batch_size} examples, but gives "
        f"one of shape {got.shape} for all, and {want.shape[1:]} for one. If it is defined on the "
        'batch, say so with @grad_core.promises(per="batch").',
    )
    what = f"{subject.name} of the batch, against its examples alone"
    require_close(got, want[:, 0], what, tolerance("float32", want))


def order_of_examples_is_kept(subject: LossSubject) -> None:
    """Examples in another order have their values in that order, or one value for all, the same.

    Of losses with one value per example this is no news.
    """
    if subject.is_per_example:
        raise DoesNotApply("each example has its own value")
    backwards = {name: subject.arrays[name][::-1].copy() for name in subject.batched}
    got, want = np.asarray(quick_jit(subject.call)(backwards)), subject.value
    if want.shape[:1] == (subject.batch_size,):
        want = want[::-1]
    what = f"{subject.name} of the examples in reversed order"
    require_close(got, want, what, tolerance("float32", want))


def empty_batch_is_empty(subject: LossSubject) -> None:
    """A batch without examples has no values, and gradients that are finite."""
    if not subject.is_per_example:
        raise DoesNotApply("its module says that it is defined on the batch")
    arrays = {n: a[:0] if n in subject.batched else a for n, a in subject.arrays.items()}
    reals = {name: arrays.pop(name) for name in subject.reals}
    value, gradients = quick_jit(subject.value_and_gradients)(reals, arrays)
    want = (0, *subject.value.shape[1:])
    require(
        value.shape == want,
        f"{subject.name} of no examples has shape {value.shape}, but should have {want}",
    )
    require_finite(gradients, f"{subject.name} of no examples: gradients")


# Ways to call.


def jit_changes_nothing(subject: LossSubject) -> None:
    """Under `jax.jit` values are the same, with traced arrays for floats too.

    Unless an annotation says ``float``: such an argument has to be one.
    """
    parameters = inspect.signature(subject.factory).parameters
    traced = {
        name: jnp.float32(x)
        for name, x in subject.numbers.items()
        if parameters[name].annotation not in (float, "float", float | None, "float | None")
    }
    got, want = np.asarray(jax.jit(subject.call)({**subject.arrays, **traced})), subject.value
    what = f"{subject.name} under jit, traced by {', '.join([*subject.arrays, *traced])}"
    require_close(got, want, what, tolerance("float32", want))


def vmap_is_a_loop(subject: LossSubject) -> None:
    """`jax.vmap` over a new axis gives what a loop gives, of values and of gradients."""
    cases, results = subject.cases("float32"), subject.results("float32")
    for case, got in list(zip(cases, results, strict=True))[:2]:
        arrays = {name: a.astype(np.float32) for name, a in case.arrays.items()}
        want = np.asarray(subject.make(**arrays))
        what = f"{subject.name} under vmap, of the example {case.what}"
        require_close(got.value, want, what, tolerance("float32", want))
    gradients = subject.results("float64")[0].gradients
    for name, gradient in subject.derivatives.gradients.items():
        what = f"the gradient of {subject.name} by {name} under vmap"
        require_close(gradients[name], gradient, what, Tolerance(1e-9, 1e-9))


def lists_are_arrays(subject: LossSubject) -> None:
    """Lists of Python numbers stand for arrays, and so do weakly typed arrays."""
    lists = {name: a.tolist() for name, a in subject.arrays.items()}
    weak = {name: jnp.broadcast_to(0.5, subject.arrays[name].shape) for name in subject.reals}
    for what, arrays in (("lists", lists), ("weakly typed arrays", weak)):
        got, want = subject.shape_of(**arrays), subject.value
        require(
            (got.shape, got.dtype) == (want.shape, want.dtype),
            f"{subject.name} of {what} is {got.dtype}{list(got.shape)}, "
            f"but should be {want.dtype}{list(want.shape)}",
        )


# Dtypes.


def works_in_dtype(subject: LossSubject, dtype: str) -> None:
    """The value has the dtype of the arguments, and is that of float64 rounded; so are gradients.

    An argument ``dtype`` of the loss, if there is one, decides instead.
    """
    if dtype == "bfloat16":  # its gradients are made as those of float16, and not compiled
        got = Results(np.asarray(quick_jit(subject.call)(subject.cast(dtype))), {})
    else:
        got = subject.results(dtype)[0]
    want = subject.exact_results(dtype)[0]
    require(got.value.dtype == dtype, f"{subject.name} in {dtype} is {got.value.dtype}")
    _require_rounded(got.value, want.value, f"{subject.name} in {dtype}", 1)
    for name, gradient in got.gradients.items():
        what = f"the gradient of {subject.name} by {name} in {dtype}"
        _require_rounded(gradient, want.gradients[name], what, 3)
    if "dtype" in inspect.signature(subject.factory).parameters:
        chosen = subject.shape_of(**subject.cast(dtype), dtype=jnp.float32).dtype
        require(chosen == "float32", f"{subject.name} in {dtype} with dtype=float32 is {chosen}")


def _require_rounded(got: Any, want: Any, what: str, roundings: int) -> None:
    require_close(got.astype(np.float64), want, what, tolerance(got.dtype.name, want, roundings))


def arithmetic_is_in_float32(subject: LossSubject) -> None:
    """Of float16 and bfloat16, nothing is computed before they are widened to float32."""
    for dtype in ("float16", "bfloat16"):
        traced = jax.make_jaxpr(subject.call)(subject.cast(dtype))
        narrow = sorted({name for name, result in _primitives(traced.jaxpr) if result == dtype})
        require(
            not narrow, f"{subject.name} of {dtype} computes {', '.join(narrow)} in {dtype}; widen"
        )


def _primitives(jaxpr: Any) -> Iterator[tuple[str, Any]]:
    """The rounding primitives of a jaxpr and those inside it, with the dtype of the result."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ROUNDING:
            yield equation.primitive.name, equation.outvars[0].aval.dtype
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)
