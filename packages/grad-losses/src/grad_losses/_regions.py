"""What losses of segmentations share: checks, and how well two regions overlap."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core.numerics import safe_divide
from grad_losses._checks import ShapeError, floating, real, widened


def regions(
    loss: str, predictions: ArrayLike, targets: ArrayLike
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Both arguments to compute with, and the dtype to return."""
    p, y = floating(loss, "predictions", predictions), real(loss, "targets", targets)
    shape = max(p.shape, y.shape, key=len)
    fits = shape and all(
        x.shape == shape or (x.shape == shape[:-1] and shape[-1] == 1) for x in (p, y)
    )
    if not fits:
        raise ShapeError(
            f"{loss}: predictions of shape {p.shape} and targets of shape {y.shape} must have the "
            "same shape, with an axis of examples. Convert integer labels with jax.nn.one_hot."
        )
    dtype = p.dtype
    p, y = (x.reshape(shape) for x in widened(p, y))
    return p, y, dtype


def tversky(
    p: jax.Array,
    y: jax.Array,
    axes: Sequence[int],
    smooth: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    q: jax.Array | None = None,
) -> jax.Array:
    """The loss as (alpha FP + beta FN) / (TP + alpha FP + beta FN + s), which does not cancel.

    ``q`` is 1 - p, if that is known with more digits than the subtraction leaves.
    """
    q = 1 - p if q is None else q
    overlap, excess, missed = (jnp.sum(x, axis=tuple(axes)) for x in (p * y, p * (1 - y), q * y))
    wrong = alpha * excess + beta * missed
    return safe_divide(jnp.asarray(wrong), overlap + wrong + smooth)
