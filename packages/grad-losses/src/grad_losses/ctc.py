r"""Connectionist temporal classification: the likelihood of a label sequence, unaligned.

Each frame t emits a class, of probability :math:`p_t(k)`. An alignment reads as a label sequence
when runs of one class are merged, and then blanks removed. The loss is minus the log of the
probability of all alignments that read as the labels :math:`y_1 \dots y_N`. With
:math:`b_t(n)`, the probability that the first n labels have been read after frame t, which was
blank, and :math:`e_t(n)`, that it was label n:

.. math::

    b_t(n) &= p_t(\mathrm{blank})\, (b_{t-1}(n) + e_{t-1}(n)), \\
    e_t(n) &= p_t(y_n)\, (e_{t-1}(n) + b_{t-1}(n - 1) + e_{t-1}(n - 1)\, [y_n \neq y_{n-1}]), \\
    \mathrm{loss} &= -\log (b_T(N) + e_T(N)),
    \qquad b_0 = (1, 0, \dots, 0), \quad e_0 = 0

All are kept as logarithms, and log 0 is `log_epsilon`, so that losses and gradients are finite even
where no alignment reads as the labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, between, floating, integer, real, widened
from grad_losses._logits import attainable, peak

LOGITS = np.array(
    [
        [[0.5, -1.0, 2.0], [1.0, 0.0, 0.3], [-0.4, 0.9, 0.1], [0.2, -0.7, 1.1]],
        [[-0.3, 1.2, 0.4], [0.7, 0.8, -1.1], [1.3, -0.6, 0.25], [0.6, 0.15, -0.2]],
    ],
    np.float32,
)
FRAME_PADDINGS = np.array([[0, 0, 0, 0], [0, 0, 0, 1]], np.float32)
LABELS = np.array([[2, 1], [1, 0]])
LABEL_PADDINGS = np.array([[0, 0], [0, 1]], np.float32)


@promises(fixed=("logit_paddings", "label_paddings"))
@promises(ranges={"log_epsilon": (-1e12, 0.0)})
@example(LOGITS, FRAME_PADDINGS, LABELS, LABEL_PADDINGS)
def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> jax.Array:
    """Minus the log probability that the frames read as the labels, never negative.

    The equations stand at the top of the module.

    Args:
      logits: Unnormalized log probabilities of the classes, of shape [batch, frames, classes] and
        floating point dtype.
      logit_paddings: 1 for frames to skip, 0 for others, of shape [batch, frames] and any real
        dtype. What is skipped has no influence, whatever it holds.
      labels: Classes other than the blank, of shape [batch, labels] and integer dtype. Those that
        are no class give NaN: an array's values cannot raise.
      label_paddings: 0 for the labels of an example, then 1 up to the end of its row, of shape
        [batch, labels] and any real dtype.
      blank_id: The class of the blank.
      log_epsilon: What stands for log 0, in [-1e12, 0]. It is the price of every step that the
        equations forbid: to begin in the midst of the labels, or to read a label that repeats the
        one before with no blank in between. So labels that do not fit into the frames cost about
        `-log_epsilon`, and their gradient is that of the least forbidden alignments.

    Returns:
      The losses, of shape [batch], in the dtype of `logits`; the largest number of that dtype where
      it is too narrow.

    Raises:
      TypeError: If `logits` is not floating point, `labels` not integer or a padding not real.
      ValueError: If shapes do not fit, `blank_id` is no class or `log_epsilon` out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ctc_loss
      >>> logits = jnp.zeros((1, 2, 2))  # blank or label at even odds, in two frames
      >>> loss = ctc_loss(logits, jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1)))
      >>> loss.round(4)  # -log(3 / 4)
      Array([0.2877], dtype=float32)

    Reference:
      Graves, Fernández, Gomez and Schmidhuber, Connectionist temporal classification, 2006.
    """
    given = (logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)
    dtype, problem = _problem("ctc_loss", *given)
    state, _ = _read(problem)
    return _settled(problem, _loss(problem, state), dtype)


@promises(fixed=("logit_paddings", "label_paddings"))
@promises(ranges={"log_epsilon": (-1e12, 0.0)})
@example(LOGITS, FRAME_PADDINGS, LABELS, LABEL_PADDINGS)
def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`ctc_loss`, and the logarithms of b and e of the equations at the top of the module.

    Args:
      logits: As for `ctc_loss`.
      logit_paddings: As for `ctc_loss`.
      labels: As for `ctc_loss`.
      label_paddings: As for `ctc_loss`.
      blank_id: As for `ctc_loss`.
      log_epsilon: As for `ctc_loss`.

    Returns:
      The losses, of shape [batch]; log b_t(n) at [t - 1, :, n], of shape [frames, batch, labels +
      1]; and log e_t(n) at [t - 1, :, n - 1], of shape [frames, batch, labels]. In the last frame
      of all, log(b + e) stands in place of log b: its entry for all labels is minus the loss.

    Raises:
      TypeError: As for `ctc_loss`.
      ValueError: As for `ctc_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ctc_loss_with_forward_probs
      >>> logits, padding = jnp.zeros((1, 2, 2)), jnp.zeros((1, 2))
      >>> _, blank, label = ctc_loss_with_forward_probs(
      ...     logits, padding, jnp.array([[1]]), jnp.zeros((1, 1))
      ... )
      >>> jnp.exp(label[:, 0, 0])  # [1/2, 1/2]
      Array([0.5, 0.5], dtype=float32)

    Reference:
      Graves, Fernández, Gomez and Schmidhuber, Connectionist temporal classification, 2006.
    """
    given = (logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)
    dtype, problem = _problem("ctc_loss_with_forward_probs", *given)
    state, (blank, label) = _read(problem)
    blank = blank.at[-1:].set(_either(state))
    loss, blank, label = (
        _settled(problem, x, dtype) for x in (_loss(problem, state), blank, label)
    )
    return loss, jnp.swapaxes(blank, 1, 2), jnp.swapaxes(label, 1, 2)


class _Problem(NamedTuple):
    """What the recursion needs, all as [..., batch]: neighbours in the last axis do not interact.

    Attributes:
      blank: Log probability of the blank, [frames, 1, batch].
      label: Log probability of each label, [frames, labels, batch].
      is_padded: Which frames to skip, [frames, 1, batch].
      is_repeat: Which labels but the first equal the one before, [labels - 1, batch].
      length: How many labels there are, [batch].
      is_known: Whether all of them are classes, [batch].
      log_epsilon: What stands for log 0.
    """

    blank: jax.Array
    label: jax.Array
    is_padded: jax.Array
    is_repeat: jax.Array
    length: jax.Array
    is_known: jax.Array
    log_epsilon: ArrayLike


_State = tuple[jax.Array, jax.Array]
"""Log b(n), [labels + 1, batch], and log e(n), [labels, batch]."""


def _problem(
    loss: str,
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    blank_id: int,
    log_epsilon: ArrayLike,
) -> tuple[jnp.dtype, _Problem]:
    """The arguments of `loss`, checked: the dtype to return it in, and what to compute."""
    logits = floating(loss, "logits", logits)
    labels = integer(loss, "labels", labels, "They are indices of classes.")
    is_padded = real(loss, "logit_paddings", logit_paddings) != 0
    is_no_label = real(loss, "label_paddings", label_paddings) != 0
    _check_shapes(loss, logits, is_padded, labels, is_no_label)
    between(loss, -1e12, 0, log_epsilon=log_epsilon)
    classes, dtype = logits.shape[-1], logits.dtype
    if isinstance(blank_id, int) and not 0 <= blank_id < classes:
        raise ValueError(
            f"{loss}: blank_id must be one of the {classes} classes of logits; got {blank_id}."
        )

    (logits,) = widened(logits)
    log_p = _log_softmax(jnp.where(is_padded[..., None], 0, logits), log_epsilon)
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    labels = jnp.where(labels < 0, labels + classes, labels)
    is_class = (labels >= 0) & (labels < classes)
    labels = jnp.where(is_class, labels, 0)
    label = jnp.take_along_axis(log_p, labels[:, None], axis=-1)
    return dtype, _Problem(
        blank=jnp.transpose(log_p[..., blank_id, None], (1, 2, 0)),
        label=jnp.transpose(label, (1, 2, 0)),
        is_padded=is_padded.T[:, None],
        is_repeat=(labels[:, 1:] == labels[:, :-1]).T,
        length=jnp.sum(~is_no_label, axis=-1),
        is_known=jnp.all(is_class | is_no_label, axis=-1),
        log_epsilon=jnp.asarray(log_epsilon, log_p.dtype),
    )


def _check_shapes(
    loss: str, logits: jax.Array, is_padded: jax.Array, labels: jax.Array, is_no_label: jax.Array
) -> None:
    if logits.ndim != 3 or labels.ndim != 2 or len(logits) != len(labels):
        raise ShapeError(
            f"{loss}: logits must have shape [batch, frames, classes], and labels [batch, labels]; "
            f"got {logits.shape} and {labels.shape}. Add a batch axis with logits[None]."
        )
    for name, array, padding in (("logit", logits, is_padded), ("label", labels, is_no_label)):
        if padding.shape != array.shape[:2]:
            raise ShapeError(
                f"{loss}: {name}_paddings of shape {padding.shape} must have shape "
                f"{array.shape[:2]}, that of {name}s of shape {array.shape}."
            )


def _log_softmax(logits: jax.Array, log_epsilon: ArrayLike) -> jax.Array:
    """The log softmax, also of probabilities near 1; `log_epsilon` for probabilities of 0.

    Near 1 it is -log1p of what the other classes have, which a sum with the 1 would round away.
    """
    logits = attainable(logits, -1)
    scores = logits - peak(logits, -1)
    is_largest = scores == 0
    ties = jnp.sum(is_largest, axis=-1, keepdims=True)
    others = jnp.sum(jnp.exp(scores) - is_largest, axis=-1, keepdims=True)
    log_p = scores - jnp.log1p(others + jnp.maximum(ties - 1, 0))
    return jnp.where(jnp.isneginf(log_p), log_epsilon, log_p)


def _read(problem: _Problem) -> tuple[_State, _State]:
    """The state after all frames, and the states after each."""

    def step(state: _State, frame: tuple[jax.Array, ...]) -> tuple[_State, _State]:
        (b, e), (blank, label, is_padded) = state, frame
        either = _either(state)
        forbidden = _log_add(b[1:-1], e[:-1] + problem.log_epsilon)
        before = jnp.where(problem.is_repeat, forbidden, either[1:-1])
        before = jnp.concatenate([b[:1], before])[: len(e)]
        # Sums of huge log probabilities may overflow, but an infinity minus itself is not 0.
        new_b = jnp.maximum(either + blank, least)
        new_e = jnp.maximum(_log_add(e, before) + label, least)
        state = jnp.where(is_padded, b, new_b), jnp.where(is_padded, e, new_e)
        return state, state

    least = jnp.finfo(problem.label.dtype).min  # type: ignore[no-untyped-call]
    n = jnp.arange(problem.label.shape[1] + 1)[:, None]
    b = jnp.where((n == 0) & (problem.length >= 0), 0, problem.log_epsilon)
    e = jnp.full_like(b[1:], problem.log_epsilon)
    return jax.lax.scan(step, (b, e), (problem.blank, problem.label, problem.is_padded))


def _either(state: _State) -> jax.Array:
    """log(b(n) + e(n)), that n labels have been read: [labels + 1, batch]."""
    b, e = state
    return jnp.concatenate([b[:1], _log_add(b[1:], e)])


def _loss(problem: _Problem, state: _State) -> jax.Array:
    """Minus the log probability of all labels; 0 where rounding would make it negative."""
    either = _either(state)
    is_last = jnp.arange(len(either))[:, None] == problem.length
    loss = -jnp.sum(jnp.where(is_last, either, 0), axis=0)
    return loss + jax.lax.stop_gradient(jnp.maximum(loss, 0) - loss)


@jax.custom_jvp
def _log_add(a: jax.Array, b: jax.Array) -> jax.Array:
    """log(exp(a) + exp(b)), for finite numbers."""
    return jnp.maximum(a, b) + jnp.log1p(jnp.exp(-jnp.abs(a - b)))


@_log_add.defjvp
def _log_add_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Its gradient, the share of each, takes no exponential but that of the value."""
    (a, b), (da, db) = primals, tangents
    is_first = a >= b
    ratio = jnp.exp(jnp.where(is_first, b - a, a - b))
    larger = 1 / (1 + ratio)
    share = jnp.where(is_first, larger, ratio * larger)
    return jnp.where(is_first, a, b) + jnp.log1p(ratio), db + share * (da - db)


def _settled(problem: _Problem, array: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array [..., batch] in a dtype, finite there too, and NaN where labels are no class."""
    largest = float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]
    return jnp.where(problem.is_known, jnp.clip(array, -largest, largest), jnp.nan).astype(dtype)
