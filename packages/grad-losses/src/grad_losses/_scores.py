"""What multiclass losses of scores share: checks, and how far scores are above the label's."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, floating, integer, widened
from grad_losses._logits import less_peak, peak, pick


def scores_and_labels(
    loss: str, scores: ArrayLike, labels: ArrayLike, name: str = "scores"
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Scores [..., classes] to compute with, labels [...], and the dtype to return.

    Users know the scores by `name`.
    """
    scores = floating(loss, name, scores)
    labels = integer(loss, "labels", labels, "Convert one-hot labels with labels.argmax(-1).")
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ShapeError(
            f"{loss}: {name} must have a last axis of at least one class; got {scores.shape}."
        )
    examples = scores.shape[:-1]
    if labels.ndim > len(examples) or any(
        size not in (1, whole)
        for size, whole in zip(labels.shape[::-1], examples[::-1], strict=False)
    ):
        raise ShapeError(
            f"{loss}: labels of shape {labels.shape} must have the shape of {name} of shape "
            f"{scores.shape} without the last axis, {examples}: one integer per example. Convert "
            "one-hot labels with labels.argmax(-1)."
        )
    labels = jnp.broadcast_to(labels.astype(jnp.promote_types(labels.dtype, jnp.int32)), examples)
    return widened(scores)[0], labels, scores.dtype


def one_hot(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Booleans of the shape of the values: which class is the label, counted from either end."""
    classes, labels = jnp.arange(values.shape[-1]), labels[..., None]
    return (classes == labels) | (classes - classes.size == labels)


def known(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The labels, counted from 0, with some class in place of what is none; which are classes.

    For losses that are NaN at their very end: gradients are finite, so that a mask makes them 0.
    """
    classes = scores.shape[-1]
    labels = jnp.where(labels < 0, labels + classes, labels)
    is_class = (labels >= 0) & (labels < classes)
    return jnp.where(is_class, labels, 0), is_class


def excess(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """How much higher each score is than that of the label; 0 for the label itself."""
    scores = less_peak(scores, peak(scores, -1))
    is_absent = jnp.isneginf(scores)  # of two that are, the difference would be NaN
    gap = jnp.where(is_absent, 0, scores) - pick(scores, labels)[..., None]
    return jnp.where(one_hot(scores, labels), 0, jnp.where(is_absent, -jnp.inf, gap))
