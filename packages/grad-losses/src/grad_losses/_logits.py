"""What losses of logits share: softmaxes that are exact where logits are infinite, and checks."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, axes_of, broadcast_shape

Axis = int | tuple[int, ...]


def attainable(logits: jax.Array, axis: Axis | None, mask: jax.Array | None = None) -> jax.Array:
    """The logits, but 0 instead of +inf, and -inf beside it: the same softmax, in the limit."""
    is_certain = jnp.isposinf(logits)
    any_certain = jnp.any(is_certain, axis=axis, keepdims=True, where=mask)
    return jnp.where(any_certain, jnp.where(is_certain, 0.0, -jnp.inf), logits)


def peak(logits: jax.Array, axis: Axis | None) -> jax.Array:
    """The largest of the logits, keeping the axis, as a constant; 0 where all are -inf.

    A softmax does not change when it is subtracted first, and large logits then lose no digits.
    """
    logits = jax.lax.stop_gradient(logits)
    largest = jnp.max(logits, axis=axis, keepdims=True, initial=-jnp.inf)
    return jnp.where(jnp.isneginf(largest), 0.0, largest)


def log_normalizer(logits: jax.Array, axis: Axis | None) -> jax.Array:
    """``log(sum(exp(logits)))``, keeping the axis; but 0, not -inf, where all are -inf."""
    total = jnp.sum(jnp.exp(logits), axis=axis, keepdims=True)
    return jnp.log(jnp.where(total == 0, 1.0, total))


@jax.custom_jvp
def less_peak(logits: jax.Array, largest: jax.Array) -> jax.Array:
    """``logits - largest`` for what `peak` gives, a constant; where both are infinite, 0."""
    return jnp.where(jnp.isposinf(logits), 0.0, logits - largest)


less_peak.defjvp(lambda primals, tangents: (less_peak(*primals), tangents[0]))


@jax.custom_jvp
def pick(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit of each label, the classes being the last axis; NaN for labels that are no class.

    Its gradient compares labels and classes, which XLA fuses with the rest of the gradient; that of
    a gather would be scattered into an array of zeros.
    """
    if jax.typeof(logits).sharding.spec[-1] is None:
        return jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    is_label = _is_label(logits, labels)  # sharded classes cannot be gathered from
    chosen = jnp.max(jnp.where(is_label, logits, -jnp.inf), axis=-1)
    return jnp.where(jnp.any(is_label, axis=-1), chosen, jnp.nan)


@pick.defjvp
def _pick_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, object]
) -> tuple[jax.Array, jax.Array]:
    is_label = _is_label(*primals).astype(primals[0].dtype)
    return pick(*primals), jnp.sum(is_label * tangents[0], axis=-1)


def _is_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    classes = logits.shape[-1]
    labels = jnp.where(labels < 0, labels + classes, labels)
    return labels[..., None] == jnp.arange(classes, dtype=labels.dtype)


def soft_capped(logits: jax.Array, bound: ArrayLike | None) -> jax.Array:
    """``bound * tanh(logits / bound)``; the logits themselves with None."""
    return logits if bound is None else jnp.tanh(logits / bound) * bound


def product(weight: jax.Array, cost: jax.Array) -> jax.Array:
    """``weight * cost``, where 0 * inf is 0, in value and gradients."""
    is_void = (weight == 0) & jnp.isinf(cost)
    return jnp.where(is_void, 0.0, weight * jnp.where(is_void, 0.0, cost))


def class_mask(
    loss: str, where: ArrayLike | None, logits: jax.Array, name: str = "logits"
) -> jax.Array:
    """The argument `where`, or all, with the shape of `logits`, which users know by `name`."""
    if where is None:
        return jnp.ones(logits.shape, bool)
    mask = jnp.asarray(where)
    if mask.dtype != bool:
        raise ValueError(f"{loss}: where must be boolean; got {mask.dtype}. Try where != 0.")
    if broadcast_shape(loss, **{name: logits}, where=mask) != logits.shape:
        raise ShapeError(
            f"{loss}: where of shape {mask.shape} has more elements than {name} of shape "
            f"{logits.shape}. Broadcast the {name} first."
        )
    return jnp.broadcast_to(mask, logits.shape)


def classes_last(loss: str, array: jax.Array, axis: Axis) -> jax.Array:
    """The array with `axis` last, several axes merged into one."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(one, int) for one in axes):
        raise ValueError(f"{loss}: axis must be an int or a tuple of ints; got {axis!r}.")
    moved = jnp.moveaxis(array, axes_of(loss, axis, "logits", array), range(-len(axes), 0))
    return moved if len(axes) == 1 else moved.reshape(*moved.shape[: array.ndim - len(axes)], -1)


def class_indices(loss: str, labels: jax.Array, logits: jax.Array) -> jax.Array:
    """The labels in a dtype that counts all classes, after a check of their shape."""
    examples = logits.shape[:-1]
    try:
        fits = labels.ndim == len(examples) and jnp.broadcast_shapes(labels.shape, examples)
    except ValueError:
        fits = False
    if fits is False:
        raise ShapeError(
            f"{loss}: labels of shape {labels.shape} must have the shape of logits without the "
            f"axis of the classes, {examples}: one integer per example. For one-hot labels use "
            "softmax_cross_entropy."
        )
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
