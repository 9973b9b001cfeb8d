"""Arithmetic that stays finite: counters that saturate, norms that neither overflow nor give NaN.

Why norms need care. The Euclidean norm squares its input, so in float32 an entry of ``1e20``
overflows and an entry of ``1e-25`` vanishes, although the norm itself is an ordinary number. Here

    ||x|| = sqrt(sum_i |x_i|^2)                           if the sum lies in a safe range,
    ||x|| = sqrt(sum_i |s x_i|^2) / s,  s a power of two  otherwise,

and only the second, rare case reads the input twice. The derivative ``x / ||x||`` is taken to be 0
at ``x = 0``, where the norm has a kink.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.types import Numeric

__all__ = [
    "abs_sq",
    "one_minus_power",
    "root_sum_squares",
    "safe_divide",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "safe_sqrt",
    "sum_squares",
]

_Dtype = np.dtype[Any]


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
    if jnp.issubdtype(count.dtype, jnp.integer):
        largest = jnp.iinfo(count.dtype).max
    elif jnp.issubdtype(count.dtype, jnp.floating):
        largest = jnp.finfo(count.dtype).max
    else:
        raise ValueError(
            f"safe_increment: count must be of an integer or floating dtype, got {count.dtype}."
        )
    limit = jnp.asarray(largest, count.dtype)
    return jnp.where(count < limit, count + jnp.ones((), count.dtype), limit)


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
    if isinstance(decay, numbers.Real):
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


def abs_sq(x: jax.Array | np.ndarray[Any, _Dtype]) -> jax.Array:
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
    if not jnp.iscomplexobj(x):
        return x * x  # type: ignore[return-value]  # a numpy array stays one
    return x.real * x.real + x.imag * x.imag


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
    is_zero = x == 0
    return jnp.where(is_zero, jnp.zeros_like(x), jnp.sqrt(jnp.where(is_zero, 1, x)))


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
    is_zero = y == 0
    quotient = x / jnp.where(is_zero, 1, y)
    return jnp.where(is_zero, jnp.zeros_like(quotient), quotient)


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
    return jnp.sum(abs_sq(_widen(x) * jnp.asarray(scale, _accumulator_dtype(x))))


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


@jax.jit  # one dispatch outside jit, however many leaves
def _root_sum_squares(arrays: tuple[jax.Array, ...]) -> jax.Array:
    dtype = _accumulator_dtype(*arrays)
    # The custom derivative below must not meet integers: their tangents are of no numeric dtype.
    return _norm(tuple(_widen(x) if _is_integer(x) else x for x in arrays)).astype(dtype)


@jax.custom_jvp
def _norm(arrays: tuple[jax.Array, ...]) -> jax.Array:
    dtype = _accumulator_dtype(*arrays)
    low, high, scale = _safe_range(dtype)

    def total(scale: Numeric) -> jax.Array:
        return jnp.sum(jnp.stack([sum_squares(x, scale).astype(dtype) for x in arrays]))

    def rescaled() -> jax.Array:
        factor = jnp.where(plain > 1, 1 / scale, scale).astype(dtype)
        return jnp.sqrt(total(factor)) / factor

    plain = total(1.0)
    in_range = (low < plain) & (plain < high)
    return jax.lax.cond(in_range, lambda: jnp.sqrt(plain), rescaled)


@_norm.defjvp
def _norm_jvp(
    primals: tuple[tuple[jax.Array, ...]], tangents: tuple[tuple[jax.Array, ...]]
) -> tuple[jax.Array, jax.Array]:
    (arrays,), (directions,) = primals, tangents
    norm = _norm(arrays)
    length = jnp.where(norm == 0, 1, norm)  # x / length is then 0 at x = 0

    def along(x: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(jnp.conj(_widen(x) / length) * _widen(dx))).astype(norm.dtype)

    return norm, jnp.sum(jnp.stack([along(*pair) for pair in zip(arrays, directions, strict=True)]))


class _SafeRange(NamedTuple):
    low: float
    high: float
    scale: float


def _safe_range(dtype: _Dtype) -> _SafeRange:
    """Between which sums of squares no significant square was lost, and how to rescale others.

    Squares below the smallest normal number, 2^-126 (2^-1022), are lost; below ``low`` they may
    count. ``scale`` squared times ``low`` does not overflow, and the largest number divided by
    ``scale`` squares to far less than the largest number.
    """
    if dtype == jnp.float64:
        return _SafeRange(low=2.0**-900, high=2.0**1022, scale=2.0**600)
    return _SafeRange(low=2.0**-76, high=2.0**126, scale=2.0**100)


def safe_norm(
    x: Numeric,
    min_norm: Numeric,
    ord: int | float | str | None = None,
    axis: None | tuple[int, ...] | int = None,
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
    if axis is None and (ord is None or (ord == 2 and x.ndim == 1)):
        norm = root_sum_squares([x])
        norm = norm.reshape((1,) * x.ndim) if keepdims else norm
    else:
        norm = _scaled_linalg_norm(_widen(x), ord, axis, keepdims)
    norm = norm.astype(_real_dtype(x))
    return jnp.where(norm <= min_norm, min_norm, norm)


def _scaled_linalg_norm(
    x: jax.Array,
    ord: int | float | str | None,
    axis: None | tuple[int, ...] | int,
    keepdims: bool,
) -> jax.Array:
    """``m * norm(x / m)`` with ``m = max |x|``: every norm but ord 0 is homogeneous."""
    if ord == 0:
        return jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
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
    rms = (root_sum_squares([x]) / math.sqrt(max(x.size, 1))).astype(_real_dtype(x))
    return jnp.where(rms <= min_rms, min_rms, rms)


# --- dtypes ----------------------------------------------------------------------------------


def _is_integer(x: Numeric) -> bool:
    return not jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _real_dtype(x: Numeric) -> _Dtype:
    """The dtype of ``|x|``: float16 stays float16, complex64 and integers become float32."""
    dtype = jnp.result_type(x)
    return jnp.finfo(jnp.promote_types(dtype, jnp.float32) if _is_integer(x) else dtype).dtype


def _accumulator_dtype(*arrays: Numeric) -> _Dtype:
    """The real dtype in which sums over ``arrays`` are taken: the widest, at least float32."""
    return jnp.finfo(jnp.promote_types(jnp.result_type(*arrays), jnp.float32)).dtype


def _widen(x: Numeric) -> jax.Array:
    """``x`` in at least float32, real or complex as it was."""
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))
