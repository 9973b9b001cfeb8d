"""How far a step is into a span of steps, without loss of precision or finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import Numeric


def is_number(x: object) -> bool:
    """Whether `x` is a number that can be checked, and not traced."""
    return isinstance(x, int | float | np.number)


def steps_since(begin: Numeric, count: Numeric) -> jax.Array:
    """``max(count - begin, 0)``, where a `begin` before step 0 means 0.

    Of integers it is an integer: in float32, steps from 2^24 on would be rounded before the
    difference is taken. The order of the operations keeps int32 from overflowing.
    """
    begin = jnp.maximum(begin, 0)
    return jnp.maximum(_widened(count), begin) - begin


def fractions(count: Numeric, begin: Numeric, length: Numeric) -> tuple[jax.Array, jax.Array]:
    """The parts of the span of `length` steps from `begin` that are passed and that are left.

    Each is rounded once, so that both are precise when small, and exactly 0 or 1 at the ends. A
    span without steps (`length` <= 0) is never left: (0, 1).
    """
    is_empty = jnp.less_equal(length, 0)
    length = jnp.where(is_empty, 1, length)
    passed = jnp.where(is_empty, 0, jnp.minimum(steps_since(begin, count), length))
    return passed / length, (length - passed) / length


def power(base: jax.Array, exponent: Numeric) -> jax.Array:
    """``base**exponent`` for both >= 0, where 0**0 = 1, with finite gradients at 0 too."""
    is_zero = base <= 0
    at_zero = jnp.where(jnp.equal(exponent, 0), 1.0, 0.0)
    return jnp.where(is_zero, at_zero, jnp.where(is_zero, 1.0, base) ** exponent)


def _widened(count: Numeric) -> jax.Array:
    """The count in a dtype that the lengths of spans fit in (uint8 and float16 are too narrow)."""
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.floating):
        return count.astype(jnp.float32) if count.dtype.itemsize < 4 else count
    return count.astype(int) if count.dtype.itemsize < jnp.result_type(int).itemsize else count
