"""Arithmetic that stays finite: counters that saturate, norms that neither overflow nor give NaN.

Why norms need care. The Euclidean norm squares its input, so in float32 an entry of ``1e20``
overflows and an entry of ``1e-25`` vanishes, although the norm itself is an ordinary number. Here

    ||x|| = sqrt(sum_i |x_i|^2)                           if the sum lies in a safe range,
    ||x|| = sqrt(sum_i |s x_i|^2) / s,  s a power of two  otherwise,

and only the second, rare case reads the input twice. The derivative ``x / ||x||`` is taken to be 0
at ``x = 0``, where the norm has a kink.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.sharing import dispatched_once, map_rows
from grad_core.types import Numeric

if TYPE_CHECKING:
    from jax.typing import ArrayLike

__all__ = [
    "abs_sq",
    "inexact_dtype",
    "one_minus_power",
    "real_dtype",
    "root_sum_squares",
    "safe_divide",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "safe_sqrt",
    "sum_squares",
    "widen",
]

Dtype: TypeAlias = np.dtype[Any]
# Numbers known when a function is traced; bool is an int.
_STATIC = (int, float, np.integer, np.floating)


# --- counters --------------------------------------------------------------------------------


def safe_increment(count: Numeric) -> jax.Array:
    """Add one, but stay at the largest number of the dtype instead of wrapping around.

    ``count + 1`` if ``count < max(dtype)``, else ``max(dtype)``.

    Args:
      count: integer or real array of any shape.

    Returns:
      An array of the shape and dtype of ``count``.

    Raises:
      ValueError: ``count`` is boolean or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import safe_increment
      >>> int(safe_increment(jnp.int8(126))), int(safe_increment(jnp.int8(127)))
      (127, 127)
    """
    count = jnp.asarray(count)
    largest = jnp.asarray(_largest(count.dtype), count.dtype)
    return jnp.where(count < largest, count + jnp.ones((), count.dtype), largest)


def _largest(dtype: Dtype) -> float:
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).max  # type: ignore[no-untyped-call]
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.finfo(dtype).max  # type: ignore[no-untyped-call,return-value]
    raise ValueError(f"safe_increment: count must be of an integer or real dtype, got {dtype}.")


def safe_int32_increment(count: Numeric) -> jax.Array:
    """Add one without wrapping around; another name of `safe_increment`.

    Args:
      count: integer or real array of any shape.

    Returns:
      An array of the shape and dtype of ``count``.

    Raises:
      ValueError: ``count`` is boolean or complex.

    Example:
      >>> from grad_core.numerics import safe_int32_increment
      >>> int(safe_int32_increment(2**31 - 1)) == 2**31 - 1
      True
    """
    return safe_increment(count)


def one_minus_power(decay: Numeric, count: Numeric) -> jax.Array:
    """Return ``1 - decay**count`` without cancellation.

    ``1 - decay**count = -expm1(count * log(decay))``. With ``decay = 0.999999`` and ``count = 1``
    the left side has one correct digit in float32 and the right side all of them.

    Args:
      decay: a number, by rights in [0, 1]. The logarithm of a Python or NumPy number is taken
        in float64 before anything is rounded.
      count: how many steps were taken; number or array of any shape.

    Returns:
      A float array (at least float32) of the shape of ``count`` (broadcast with ``decay``).

    Example:
      >>> from grad_core.numerics import one_minus_power
      >>> print(f"{one_minus_power(0.999999, 1):.4e}")
      1.0000e-06
    """
    if isinstance(decay, _STATIC):
        return _one_minus_static_power(float(decay), count)
    decay, count = jnp.asarray(decay), jnp.asarray(count)
    dtype = jnp.promote_types(_accumulator_dtype(decay), jnp.result_type(float))
    decay, count = decay.astype(dtype), count.astype(dtype)
    regular = decay > 0
    # decay - 1 is exact from 0.5 on, so this logarithm keeps all digits of a decay close to one.
    log_decay = jnp.log1p(jnp.where(regular, decay, 1.0) - 1.0)
    return jnp.where(regular, -jnp.expm1(count * log_decay), 1 - decay**count)


def _one_minus_static_power(decay: float, count: Numeric) -> jax.Array:
    count = jnp.asarray(count)
    count = count.astype(jnp.promote_types(_accumulator_dtype(count), jnp.result_type(float)))
    if decay > 0:
        return -jnp.expm1(count * math.log(decay))
    return 1 - jnp.asarray(decay, count.dtype) ** count


# --- elementwise -----------------------------------------------------------------------------


def abs_sq(x: jax.Array | np.ndarray[Any, Dtype]) -> jax.Array:
    """Return the squared modulus, ``|x|^2 = re(x)^2 + im(x)^2``.

    Unlike ``abs(x)**2`` it takes no square root, so it is differentiable at zero.

    Args:
      x: array of any shape; real or complex.

    Returns:
      A real array of the shape of ``x``.

    Raises:
      ValueError: ``x`` is no array.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import abs_sq
      >>> abs_sq(jnp.array([3 + 4j]))
      Array([25.], dtype=float32)
    """
    if not isinstance(x, jax.Array | np.ndarray | np.generic):
        raise ValueError(f"abs_sq: x must be a jax or numpy array, got {x!r}.")
    if jnp.iscomplexobj(x):
        return x.real**2 + x.imag**2  # type: ignore[return-value]  # or a numpy array
    return x**2  # type: ignore[return-value]


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return ``sqrt(x)`` with the derivative 0, in place of infinity, at zero.

    Args:
      x: real array of any shape, non-negative.

    Returns:
      An array of the shape and dtype of ``x``; NaN where ``x`` is negative.

    Example:
      >>> import jax
      >>> from grad_core.numerics import safe_sqrt
      >>> float(jax.grad(safe_sqrt)(0.0))
      0.0
    """
    # In arithmetic, since each `jnp.where` is a call, which costs time to trace and lower.
    zero = jnp.equal(x, 0).astype(jnp.result_type(x))  # 1 where x is 0, else 0
    return jnp.sqrt(x + zero) * (1 - zero)


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``x / y``, and 0 where ``y`` is 0, with finite derivatives there.

    Args:
      x: array of any shape.
      y: array that broadcasts with ``x``.

    Returns:
      The quotient, of the broadcast shape and the promoted dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import safe_divide
      >>> safe_divide(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]))
      Array([0.5, 0. ], dtype=float32)
    """
    zero = jnp.equal(y, 0).astype(jnp.result_type(y))  # 1 where y is 0, else 0
    return x / (y + zero) * (1 - zero)


# --- norms -----------------------------------------------------------------------------------


@jax.jit  # at module level: traced once per shape and dtype, whatever tree the leaf sits in
def sum_squares(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Return ``sum_i |scale * x_i|^2``, accumulated in at least float32.

    Args:
      x: array of any shape; real, complex or integer.
      scale: real number.

    Returns:
      A real array of shape () and of at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import sum_squares
      >>> float(sum_squares(jnp.array([200.0] * 1000, jnp.float16), 1.0))
      40000000.0
    """
    return _plain_sum_squares(x, scale)


def _plain_sum_squares(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.sum(abs_sq(widen(x) * jnp.asarray(scale, _accumulator_dtype(x))))


def root_sum_squares(arrays: Sequence[Numeric]) -> jax.Array:
    """Return the Euclidean norm of all arrays together, without overflow or underflow.

    ``sqrt(sum_k sum_i |x_ki|^2)``, with the gradient ``x / norm``, which is 0 at zero.

    Args:
      arrays: real, complex or integer arrays of any shapes, possibly none.

    Returns:
      A real array of shape () in the widest dtype of the arrays, and at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import root_sum_squares
      >>> print(f"{root_sum_squares([jnp.array([3e25]), jnp.array([4e25])]):.4e}")
      5.0000e+25
    """
    if not arrays:
        return jnp.asarray(0.0)
    return _root_sum_squares(tuple(arrays))


@dispatched_once
def _root_sum_squares(arrays: tuple[Numeric, ...]) -> jax.Array:
    # The custom derivative below must not meet integers: their tangents are of no numeric dtype.
    norm: jax.Array = _norm(tuple(jnp.asarray(x).astype(inexact_dtype(x)) for x in arrays))
    return norm


@jax.custom_jvp
def _norm(arrays: tuple[jax.Array, ...]) -> jax.Array:
    dtype = _accumulator_dtype(*arrays)
    low, high, up, down = _safe_range(dtype)

    def rescaled() -> jax.Array:
        factor = jnp.where(plain > 1, down, up).astype(dtype)
        return jnp.sqrt(_total(arrays, factor)) / factor

    plain = _total(arrays, jnp.ones([], dtype))
    in_range = (low < plain) & (plain < high)
    norm: jax.Array = jax.lax.cond(in_range, lambda: jnp.sqrt(plain), rescaled)
    return norm


@jax.jit  # both branches above share one jaxpr
def _total(arrays: tuple[jax.Array, ...], scale: jax.Array) -> jax.Array:
    return jnp.sum(jnp.stack(map_rows(_sum_squares, scale, _small_ones_stacked(arrays))))


def _small_ones_stacked(arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Small arrays of one type in stacks of eight: XLA takes 4 ms to compile a reduction."""
    alike: dict[Any, list[jax.Array]] = {}
    for x in arrays:
        alike.setdefault(jax.typeof(x), []).append(x)
    stacked: list[jax.Array] = []
    for group in alike.values():
        at_once = 8 if group[0].size <= 1024 else 1
        whole = len(group) - len(group) % at_once if at_once > 1 else 0
        stacked += [jnp.stack(group[i : i + at_once]) for i in range(0, whole, at_once)]
        stacked += group[whole:]
    return stacked


def _sum_squares(scale: jax.Array, x: jax.Array) -> jax.Array:
    return _plain_sum_squares(x, scale).astype(scale.dtype)


@_norm.defjvp
def _norm_jvp(
    primals: tuple[tuple[jax.Array, ...]], tangents: tuple[tuple[jax.Array, ...]]
) -> tuple[jax.Array, jax.Array]:
    (arrays,), (directions,) = primals, tangents
    norm = _norm(arrays)
    length = jnp.where(norm == 0, 1, norm)  # x / length is then 0 at x = 0

    def along(x: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(jnp.conj(widen(x) / length) * widen(dx))).astype(norm.dtype)

    return norm, jnp.sum(jnp.stack([along(*pair) for pair in zip(arrays, directions, strict=True)]))


class _SafeRange(NamedTuple):
    low: float
    high: float
    up: float
    down: float


def _safe_range(dtype: Dtype) -> _SafeRange:
    """Between which sums of squares no significant square was lost, and how to rescale others.

    Squares below the smallest normal number, 2^-126 (2^-1022), are lost; below ``low`` they may
    count. That number times ``up`` has a square that is normal. The largest number times ``down``
    squares to far less than the largest number. The square of ``up`` must not overflow: where all
    is constant, XLA multiplies by it.
    """
    if dtype == jnp.float64:
        return _SafeRange(low=2.0**-900, high=2.0**1022, up=2.0**511, down=2.0**-600)
    return _SafeRange(low=2.0**-76, high=2.0**126, up=2.0**63, down=2.0**-100)


def safe_norm(
    x: Numeric,
    min_norm: Numeric,
    ord: int | float | str | None = None,
    axis: tuple[int, ...] | int | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """Return ``max(||x||, min_norm)``, with the gradient 0 where ``||x|| <= min_norm``.

    Args:
      x: array of any shape; real, complex or integer.
      min_norm: the smallest value returned, a real number (or one for each norm).
      ord: which norm, as in `jax.numpy.linalg.norm`.
      axis: along which axis or axes, as in `jax.numpy.linalg.norm`; None means all.
      keepdims: whether reduced axes are kept with size one.

    Returns:
      The norms in the real dtype of ``x`` (float32 for integers), accumulated in at least
      float32, without overflow or underflow on the way.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core.numerics import safe_norm
      >>> safe_norm(jnp.array([3.0, 4.0]), 1e-3)
      Array(5., dtype=float32)
      >>> jax.grad(safe_norm)(jnp.zeros(2), 1e-3)
      Array([0., 0.], dtype=float32)
    """
    x = jnp.asarray(x)
    norm = _norm_along(x, ord, axis, keepdims).astype(real_dtype(x))
    return jnp.where(norm <= min_norm, min_norm, norm)


def _norm_along(
    x: jax.Array,
    ord: int | float | str | None,
    axis: tuple[int, ...] | int | None,
    keepdims: bool,
) -> jax.Array:
    if axis is None and (ord is None or (ord == 2 and x.ndim == 1)):
        norm = root_sum_squares([x])
        return norm.reshape((1,) * x.ndim) if keepdims else norm
    return _scaled_linalg_norm(widen(x), ord, axis, keepdims)


def _scaled_linalg_norm(
    x: jax.Array,
    ord: int | float | str | None,
    axis: tuple[int, ...] | int | None,
    keepdims: bool,
) -> jax.Array:
    """``m * norm(x / m)`` with ``m = max |x|``: every norm but ord 0 is homogeneous."""
    if ord == 0:
        count: jax.Array = jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
        return count
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0))
    is_zero = largest == 0
    # A slice of zeros is replaced before the norm: its derivative would be 0/0 there.
    unit = jnp.where(is_zero, 1.0, x / jnp.where(is_zero, 1.0, largest))
    norm = largest * jnp.linalg.norm(unit, ord=ord, axis=axis, keepdims=True)
    return norm if keepdims else jnp.squeeze(norm, axis)


def safe_root_mean_squares(x: Numeric, min_rms: Numeric) -> jax.Array:
    """Return ``max(sqrt(mean |x|^2), min_rms)``, with the gradient 0 where ``min_rms`` wins.

    Args:
      x: array of any shape; real, complex or integer.
      min_rms: the smallest value returned, a real number.

    Returns:
      An array of shape () in the real dtype of ``x`` (float32 for integers), accumulated in at
      least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import safe_root_mean_squares
      >>> safe_root_mean_squares(jnp.array([1.0, -7.0]), 1e-3)
      Array(5., dtype=float32)
    """
    x = jnp.asarray(x)
    rms = (root_sum_squares([x]) / math.sqrt(max(x.size, 1))).astype(real_dtype(x))
    return jnp.where(rms <= min_rms, min_rms, rms)


# --- dtypes ----------------------------------------------------------------------------------


def inexact_dtype(*arrays: "ArrayLike") -> Dtype:
    """Return the dtype that arrays promote to, or float32 if that is an integer dtype.

    Args:
      *arrays: arrays or numbers.

    Returns:
      A real or complex floating dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import inexact_dtype
      >>> inexact_dtype(jnp.array([1, 2]))
      dtype('float32')
    """
    dtype = jnp.result_type(*arrays)
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return dtype if is_inexact else jnp.promote_types(dtype, jnp.float32)


def real_dtype(*arrays: "ArrayLike") -> Dtype:
    """Return the dtype of the moduli of arrays: float16 for float16, float32 for complex64.

    Args:
      *arrays: arrays or numbers.

    Returns:
      A real floating dtype; float32 for integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import real_dtype
      >>> real_dtype(jnp.array([1j]))
      dtype('float32')
    """
    return np.empty((), inexact_dtype(*arrays)).real.dtype


def widen(x: "ArrayLike") -> jax.Array:
    """Convert ``x`` to at least float32, real or complex as it was: the dtype to compute in.

    Args:
      x: array or number.

    Returns:
      An array of the shape of ``x``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.numerics import widen
      >>> widen(jnp.array([1.0], jnp.bfloat16))
      Array([1.], dtype=float32)
    """
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _accumulator_dtype(*arrays: "ArrayLike") -> Dtype:
    """The real dtype in which sums over ``arrays`` are taken: the widest, at least float32."""
    return jnp.promote_types(real_dtype(*arrays), jnp.float32)
