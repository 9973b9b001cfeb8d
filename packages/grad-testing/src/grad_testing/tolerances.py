"""How far results may be from what they should be, by dtype and backend."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_testing.devices import current_backend

__all__ = ["Tolerance", "tolerance_for"]


class Tolerance(NamedTuple):
    """The relative and the absolute error allowed, as `numpy.testing.assert_allclose` has it."""

    rtol: float
    atol: float


_UNITS = {"cpu": 32, "gpu": 64, "tpu": 128}
"""Errors in units of the last place: a TPU approximates what a CPU rounds correctly."""


def tolerance_for(dtype: Any, backend: str | None = None) -> Tolerance:
    """The error that a few elementwise operations may make.

    Args:
      dtype: The dtype of the results; only exact results pass if it is no floating-point one.
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; the current one with None.

    Returns:
      The tolerance.

    Example:
      >>> from grad_testing import tolerance_for
      >>> tolerance_for("float32", "cpu").rtol < tolerance_for("bfloat16", "cpu").rtol
      True
      >>> tolerance_for("int32", "cpu")
      Tolerance(rtol=0.0, atol=0.0)
    """
    if dtype == jax.dtypes.float0 or not jnp.issubdtype(dtype, jnp.inexact):
        return Tolerance(0.0, 0.0)
    units = _UNITS[backend or current_backend()]
    eps = float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    if eps > 1e-4:  # half precision rounds once: its arithmetic is done in float32
        units //= 8
    return Tolerance(units * eps, units * eps / 4)
