r"""Distillation between two linear heads, without an array of all logits of either.

With hidden states h and a kernel W of the student, the same of the teacher, and a temperature T:

.. math::

    q = \mathrm{softmax}((h W + b) / T), \quad
    p = \mathrm{softmax}((h' W' + b') / T), \qquad
    \mathrm{KL}(p, q) &= \sum_k p_k (\log p_k - \log q_k) \\
    \mathrm{JS}_\beta(p, q) &= \beta\, \mathrm{KL}(p, m) + (1 - \beta)\, \mathrm{KL}(q, m),
    \quad m = \beta p + (1 - \beta) q

The teacher is a constant: no gradient flows to it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, between, boolean, positive
from grad_losses._chunked_losses import Head, Loss, logits_of
from grad_losses._dense import surprisals
from grad_losses._linear_heads import Reduction, chunks_of, head_of, reduced, rows_of, without
from grad_losses._logits import product
from grad_losses.divergence import kl_divergence_with_log_targets

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
        _reverse_kl if reverse else _kl,
        (hidden, kernel, bias),
        (teacher_hidden, teacher_kernel, teacher_bias),
        temperature,
        None,
        where,
        reduction,
        chunk_size,
    )


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
        (hidden, kernel, bias),
        (teacher_hidden, teacher_kernel, teacher_bias),
        temperature,
        beta,
        where,
        reduction,
        chunk_size,
    )


def _distillation(
    name: str,
    loss: Loss,
    student: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    teacher: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    temperature: ArrayLike,
    beta: ArrayLike | None,
    where: ArrayLike | None,
    reduction: Reduction,
    chunk_size: int | None,
) -> jax.Array:
    positive(name, temperature=temperature)
    learner, shape = head_of(name, *student)
    model, teacher_shape = head_of(name, *teacher, prefix="teacher_")
    if teacher_shape != shape or model.kernel.shape[1] != learner.kernel.shape[1]:
        raise ShapeError(
            f"{name}: hidden of shape {jnp.shape(student[0])} and kernel of shape "
            f"{jnp.shape(student[1])} must have as many tokens and classes as teacher_hidden of "
            f"shape {jnp.shape(teacher[0])} and teacher_kernel of shape {jnp.shape(teacher[1])}."
        )
    kept = None
    if where is not None:
        kept = rows_of(name, "where", boolean(name, "where", where), shape)
        learner, model = without(~kept, learner), without(~kept, model)
    chunks = chunks_of(name, learner, chunk_size, heads=2)
    shared = model.kernel, model.bias, temperature, beta
    result = reduced(name, reduction, loss, chunks, learner, model.hidden, shared, kept)
    return result.reshape(shape) if reduction == "none" else result


def _log_probabilities(
    logits: jax.Array, teacher_hidden: jax.Array, shared: Any
) -> tuple[jax.Array, jax.Array]:
    """Those of the teacher, log p, and those of the student, log q."""
    kernel, bias, temperature, _ = shared
    teacher_logits = logits_of(Head(teacher_hidden, kernel, bias)).astype(logits.dtype)
    return -surprisals(teacher_logits / temperature, -1), -surprisals(logits / temperature, -1)


def _kl(logits: jax.Array, teacher_hidden: jax.Array, shared: Any) -> jax.Array:
    log_p, log_q = _log_probabilities(logits, teacher_hidden, shared)
    return kl_divergence_with_log_targets(log_q, log_p)


def _reverse_kl(logits: jax.Array, teacher_hidden: jax.Array, shared: Any) -> jax.Array:
    log_p, log_q = _log_probabilities(logits, teacher_hidden, shared)
    return kl_divergence_with_log_targets(log_p, log_q)


def _jensen_shannon(logits: jax.Array, teacher_hidden: jax.Array, shared: Any) -> jax.Array:
    log_p, log_q = _log_probabilities(logits, teacher_hidden, shared)
    beta = jnp.asarray(shared[-1], logits.dtype)
    log_m = jnp.logaddexp(jnp.log(beta) + log_p, jnp.log1p(-beta) + log_q)
    from_p, from_q = (kl_divergence_with_log_targets(log_m, log) for log in (log_p, log_q))
    return product(beta, from_p) + product(1 - beta, from_q)
