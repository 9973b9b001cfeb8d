r"""Distillation between two linear heads, without an array of all logits of either.

With hidden states h and a kernel W of the student, the same of the teacher, and a temperature T:

.. math::

    q = \mathrm{softmax}((h W + b) / T), \quad
    p = \mathrm{softmax}((h' W' + b') / T), \qquad
    \mathrm{KL}(p, q) &= \sum_k p_k (\log p_k - \log q_k) \\
    \mathrm{JS}_\beta(p, q) &= \beta\, \mathrm{KL}(p, m) + (1 - \beta)\, \mathrm{KL}(q, m),
    \quad m = \beta p + (1 - \beta) q

The teacher is a constant: no gradient flows to it. Logits may be capped before, as in
`linear_softmax_cross_entropy`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, exempt, promises
from grad_losses._checks import ShapeError, between, boolean, positive
from grad_losses._chunked_losses import Head, Loss, logits_of
from grad_losses._class_divergences import Divergence, forward_kl, jensen_shannon, reverse_kl
from grad_losses._dense import surprisals
from grad_losses._linear_heads import WIDE, Reduction, chunks_of, head_of, reduced, rows_of, without
from grad_losses._logits import soft_capped

_HEADS = (
    np.array([[0.5, -1.0], [2.0, 0.3], [-0.4, 1.2]], np.float32),
    np.array([[0.2, -0.7, 1.1, 0.4], [-0.5, 0.9, 0.1, 0.6]], np.float32),
    np.array([[0.3, 0.8, -0.6], [-1.1, 0.4, 0.7], [0.9, -0.2, 0.1]], np.float32),
    np.array([[1.2, -0.3, 0.5, 0.1], [0.4, 0.6, -0.9, 0.2], [-0.1, 0.7, 0.3, -0.8]], np.float32),
)
_of_heads = promises(
    shared=("kernel", "teacher_kernel"),
    fixed=("teacher_hidden", "teacher_kernel"),  # constants
)


class _Model(NamedTuple):
    """What users pass of a student or a teacher."""

    hidden: ArrayLike
    kernel: ArrayLike
    bias: ArrayLike | None
    soft_cap: ArrayLike | None


class _Shared(NamedTuple):
    """What all tokens have in common: the teacher's head, and numbers."""

    kernel: jax.Array
    bias: jax.Array | None
    cap: ArrayLike | None
    teacher_cap: ArrayLike | None
    temperature: ArrayLike
    shares: tuple[ArrayLike, ArrayLike]


@exempt("works_in_dtype[float16]", reason=WIDE)
@exempt("works_in_dtype[bfloat16]", reason=WIDE)
@example(*_HEADS)
@_of_heads
def linear_distillation_kl_divergence(
    hidden: ArrayLike,
    kernel: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    teacher_soft_cap: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    reverse: bool = False,
    where: ArrayLike | None = None,
    reduction: Reduction = "none",
    chunk_size: int | None = None,
) -> jax.Array:
    """Divergence of a linear head's softmax from a teacher's, KL(p, q), some tokens at a time.

    The logits of either head are never all in memory, as in `linear_softmax_cross_entropy`, which
    tells of gradients, dtypes, sharding and chunks. The teacher, all its arguments, is a constant.

    Args:
      hidden: The student's hidden states, of shape [..., features] and floating point dtype.
      kernel: The student's output matrix, of shape [features, classes] and floating point dtype.
      teacher_hidden: The teacher's hidden states, of shape [..., teacher features].
      teacher_kernel: The teacher's output matrix, of shape [teacher features, classes].
      bias: Added to the student's logits, of shape [classes]; nothing with None.
      teacher_bias: Added to the teacher's logits, of shape [classes]; nothing with None.
      soft_cap: The bound, > 0, that the student's logits approach as
        ``soft_cap * tanh(logits / soft_cap)``, before the temperature; none with None.
      teacher_soft_cap: The same of the teacher's logits.
      temperature: What the logits of both are divided by, > 0. The loss is not multiplied by its
        square.
      reverse: Whether to take KL(q, p), of which students cover few modes of the teacher, but well,
        rather than KL(p, q), of which they cover all.
      where: Which tokens count, booleans of shape [...]; all with None. The others cost 0, whatever
        their hidden states.
      reduction: "none" for a loss per token; "sum"; or "mean" over the tokens that count, 0 if none
        do.
      chunk_size: How many tokens at most have logits at a time; with None half as many as in
        `linear_softmax_cross_entropy`.

    Returns:
      The divergences of shape [...], or the reduced one of shape [], in float32; in float64 if
      `hidden` or `kernel` is. Infinite where something possible is held to be impossible.

    Raises:
      TypeError: If an array is not floating point, or `chunk_size` not an int.
      ValueError: If shapes do not fit, `where` is not boolean, or `temperature`, `chunk_size` or
        `reduction` is none of those allowed.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import linear_distillation_kl_divergence
      >>> hidden, kernel = jnp.ones((5, 3)), jnp.zeros((3, 2))
      >>> teacher = jnp.ones((5, 1)), jnp.array([[jnp.log(3.0), 0.0]])
      >>> linear_distillation_kl_divergence(hidden, kernel, *teacher, reduction="mean").round(4)
      Array(0.1308, dtype=float32)

    Reference:
      Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015 (arXiv
      1503.02531). Gu et al., MiniLLM, 2023 (arXiv 2306.08543), for the reverse.
    """
    return _distillation(
        "linear_distillation_kl_divergence",
        _reverse_kl if reverse else _forward_kl,
        _Model(hidden, kernel, bias, soft_cap),
        _Model(teacher_hidden, teacher_kernel, teacher_bias, teacher_soft_cap),
        temperature,
        (0.0, 1.0),  # of no concern
        where,
        reduction,
        chunk_size,
    )


@exempt("works_in_dtype[float16]", reason=WIDE)
@exempt("works_in_dtype[bfloat16]", reason=WIDE)
@example(*_HEADS)
@_of_heads
def linear_distillation_jensen_shannon(
    hidden: ArrayLike,
    kernel: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_kernel: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    teacher_soft_cap: ArrayLike | None = None,
    beta: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    reduction: Reduction = "none",
    chunk_size: int | None = None,
) -> jax.Array:
    """Jensen-Shannon divergence of a linear head's softmax and a teacher's, some tokens at a time.

    With m = beta * p + (1 - beta) * q it is beta * KL(p, m) + (1 - beta) * KL(q, m), which is
    bounded. Divided by beta it tends to KL(p, q) where beta is small, and divided by 1 - beta to
    KL(q, p) where that is. All else is as in `linear_distillation_kl_divergence`.

    Args:
      hidden: The student's hidden states, of shape [..., features] and floating point dtype.
      kernel: The student's output matrix, of shape [features, classes] and floating point dtype.
      teacher_hidden: The teacher's hidden states, of shape [..., teacher features].
      teacher_kernel: The teacher's output matrix, of shape [teacher features, classes].
      bias: Added to the student's logits, of shape [classes]; nothing with None.
      teacher_bias: Added to the teacher's logits, of shape [classes]; nothing with None.
      soft_cap: The bound, > 0, that the student's logits approach as
        ``soft_cap * tanh(logits / soft_cap)``, before the temperature; none with None.
      teacher_soft_cap: The same of the teacher's logits.
      beta: The teacher's share of the mixture m, in [0, 1]; at both ends the divergence is 0.
      temperature: What the logits of both are divided by, > 0.
      where: Which tokens count, booleans of shape [...]; all with None.
      reduction: "none" for a loss per token; "sum"; or "mean" over the tokens that count.
      chunk_size: How many tokens at most have logits at a time.

    Returns:
      The divergences of shape [...], or the reduced one of shape [], in float32; in float64 if
      `hidden` or `kernel` is.

    Raises:
      TypeError: If an array is not floating point, or `chunk_size` not an int.
      ValueError: If shapes do not fit, `where` is not boolean, or `beta`, `temperature`,
        `chunk_size` or `reduction` is none of those allowed.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import linear_distillation_jensen_shannon
      >>> hidden, kernel = jnp.ones((5, 3)), jnp.zeros((3, 2))
      >>> teacher = jnp.ones((5, 1)), jnp.array([[jnp.log(3.0), 0.0]])
      >>> linear_distillation_jensen_shannon(hidden, kernel, *teacher, reduction="mean").round(4)
      Array(0.0338, dtype=float32)

    Reference:
      Agarwal et al., On-policy distillation of language models, 2023 (arXiv 2306.13649), equation
      1.
    """
    between("linear_distillation_jensen_shannon", 0, 1, beta=beta)
    return _distillation(
        "linear_distillation_jensen_shannon",
        _jensen_shannon,
        _Model(hidden, kernel, bias, soft_cap),
        _Model(teacher_hidden, teacher_kernel, teacher_bias, teacher_soft_cap),
        temperature,
        (beta, 1 - beta),
        where,
        reduction,
        chunk_size,
    )


def _distillation(
    name: str,
    loss: Loss,
    student: _Model,
    teacher: _Model,
    temperature: ArrayLike,
    shares: tuple[ArrayLike, ArrayLike],
    where: ArrayLike | None,
    reduction: Reduction,
    chunk_size: int | None,
) -> jax.Array:
    positive(name, temperature=temperature)
    for prefix, model in ("", student), ("teacher_", teacher):
        if model.soft_cap is not None:
            positive(name, **{f"{prefix}soft_cap": model.soft_cap})
    student_head, shape = head_of(name, *student[:3])
    teacher_head, teacher_shape = head_of(name, *teacher[:3], prefix="teacher_")
    if teacher_shape != shape or teacher_head.kernel.shape[1] != student_head.kernel.shape[1]:
        raise ShapeError(
            f"{name}: hidden of shape {jnp.shape(student.hidden)} and kernel of shape "
            f"{jnp.shape(student.kernel)} must have as many tokens and classes as teacher_hidden "
            f"of shape {jnp.shape(teacher.hidden)} and teacher_kernel of shape "
            f"{jnp.shape(teacher.kernel)}."
        )
    kept = None
    if where is not None:
        kept = rows_of(name, "where", boolean(name, "where", where), shape)
        student_head, teacher_head = without(~kept, student_head), without(~kept, teacher_head)
    chunks = chunks_of(name, student_head, chunk_size, heads=2)
    shared = _Shared(
        teacher_head.kernel,
        teacher_head.bias,
        student.soft_cap,
        teacher.soft_cap,
        temperature,
        shares,
    )
    rows = teacher_head.hidden
    result = reduced(name, reduction, loss, chunks, student_head, rows, shared, kept)
    return result.reshape(shape) if reduction == "none" else result


def _loss(divergence: Divergence, logits: jax.Array, hidden: jax.Array, shared: Any) -> jax.Array:
    """The divergence for each token, of the student's logits and the teacher's hidden states."""
    teacher = logits_of(Head(hidden, shared.kernel, shared.bias)).astype(logits.dtype)
    log_p = -surprisals(soft_capped(teacher, shared.teacher_cap) / shared.temperature, -1)
    log_q = -surprisals(soft_capped(logits, shared.cap) / shared.temperature, -1)
    beta, rest = (jnp.asarray(share, logits.dtype) for share in shared.shares)
    return jnp.sum(divergence(log_p, log_q, (beta, rest)), axis=-1)


# One object each, as what is compiled is found by it.
_forward_kl = functools.partial(_loss, forward_kl)
_reverse_kl = functools.partial(_loss, reverse_kl)
_jensen_shannon = functools.partial(_loss, jensen_shannon)
