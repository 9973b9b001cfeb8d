"""Distillation between linear heads: values, gradients, limits, reductions, errors."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import linear_distillation_jensen_shannon as js
from grad_losses import linear_distillation_kl_divergence as kl

RNG = np.random.default_rng(0)
TOKENS, CLASSES = 7, 5
STUDENT = RNG.normal(size=(TOKENS, 3)), RNG.normal(size=(3, CLASSES))
TEACHER = RNG.normal(size=(TOKENS, 4)), RNG.normal(size=(4, CLASSES))
STUDENT, TEACHER = (tuple(np.float32(x) for x in head) for head in (STUDENT, TEACHER))
BIAS, TEACHER_BIAS = RNG.normal(size=(2, CLASSES)).astype(np.float32)
BIASES = {"bias": BIAS, "teacher_bias": TEACHER_BIAS}
WEIGHTS = np.arange(1.0, TOKENS + 1)

KINDS: dict[str, Any] = {
    "forward": kl,
    "reverse": functools.partial(kl, reverse=True),
    "even": js,
    "uneven": functools.partial(js, beta=0.2),
}
TEMPERATURE = 2.0


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def exact(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The losses and their gradients with respect to the student's logits, in float64."""
    (h, w), (teacher_h, teacher_w) = (map(np.float64, head) for head in (STUDENT, TEACHER))
    log_q = log_softmax((h @ w + BIAS) / TEMPERATURE)
    log_p = log_softmax((teacher_h @ teacher_w + TEACHER_BIAS) / TEMPERATURE)
    p, q = np.exp(log_p), np.exp(log_q)
    if kind == "forward":
        return (p * (log_p - log_q)).sum(-1), (q - p) / TEMPERATURE
    if kind == "reverse":
        losses, slope = (q * (log_q - log_p)).sum(-1), log_q - log_p
    else:
        beta = 0.5 if kind == "even" else 0.2
        log_m = np.log(beta * p + (1 - beta) * q)
        slope = (1 - beta) * (log_q - log_m)
        losses = (beta * p * (log_p - log_m)).sum(-1) + (q * slope).sum(-1)
    return losses, q * (slope - (q * slope).sum(-1, keepdims=True)) / TEMPERATURE


@functools.partial(jax.jit, static_argnames=("kind", "reduction", "chunk_size"))
def results(
    student: Any,
    teacher: Any,
    biases: Any,
    kind: str,
    reduction: str = "none",
    chunk_size: int | None = 3,
    where: Any = None,
) -> Any:
    def weighted(student: Any, bias: Any, teacher: Any) -> tuple[jax.Array, jax.Array]:
        losses = KINDS[kind](
            *student,
            *teacher,
            bias=bias,
            teacher_bias=biases["teacher_bias"],
            temperature=TEMPERATURE,
            reduction=reduction,
            chunk_size=chunk_size,
            where=where,
        )
        return jnp.sum(losses * (WEIGHTS if reduction == "none" else 1)), losses

    call = jax.grad(weighted, (0, 1, 2), has_aux=True)
    (of_student, of_bias, of_teacher), losses = call(student, biases["bias"], teacher)
    return losses, [*of_student, of_bias], of_teacher


def close(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


def gradients_of(g: np.ndarray) -> list[np.ndarray]:
    h, w = map(np.float64, STUDENT)
    return [g @ w.T, h.T @ g, g.sum(0)]


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind: str) -> None:
    exact_losses, g = exact(kind)
    losses, of_student, of_teacher = results(STUDENT, TEACHER, BIASES, kind)
    close((losses, of_student), (exact_losses, gradients_of(WEIGHTS[:, None] * g)))
    assert not any(np.any(x) for x in of_teacher)

    kept = np.arange(TOKENS) % 3 != 1
    student, teacher = (
        (np.where(kept[:, None], hidden, np.nan), kernel) for hidden, kernel in (STUDENT, TEACHER)
    )
    mean, of_student, _ = results(student, teacher, BIASES, kind, "mean", where=kept)
    scale = kept / kept.sum()
    close((mean, of_student), (scale @ exact_losses, gradients_of(scale[:, None] * g)))


def test_sums_and_nothing_to_average() -> None:
    losses = kl(*STUDENT, *TEACHER)
    np.testing.assert_allclose(kl(*STUDENT, *TEACHER, reduction="sum"), losses.sum(), rtol=1e-6)
    assert kl(*STUDENT, *TEACHER, reduction="mean", where=np.zeros(TOKENS, bool)) == 0
    shaped = STUDENT[0].reshape(1, TOKENS, 3), TEACHER[0].reshape(1, TOKENS, 4)
    np.testing.assert_array_equal(kl(shaped[0], STUDENT[1], shaped[1], TEACHER[1])[0], losses)


def test_second_derivatives() -> None:
    """Against JAX's of the equations, without chunks."""

    def plain(bias: jax.Array) -> jax.Array:
        log_q = jax.nn.log_softmax(jnp.dot(*STUDENT) + bias)
        log_p = jax.nn.log_softmax(jnp.dot(*TEACHER))
        log_m = jnp.log(0.5 * jnp.exp(log_p) + 0.5 * jnp.exp(log_q))
        both = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
        return jnp.sum(both.sum(-1) * WEIGHTS) / 2

    def ours(bias: jax.Array, reduction: str) -> jax.Array:
        losses = js(*STUDENT, *TEACHER, bias=bias, chunk_size=3, reduction=reduction)
        return jnp.sum(losses * (WEIGHTS if reduction == "none" else 1))

    hessian = jax.jit(jax.hessian(ours), static_argnums=1)
    close(hessian(BIAS, "none"), jax.hessian(plain)(BIAS))
    assert np.isfinite(hessian(BIAS, "mean")).all()


@pytest.mark.parametrize("kind", KINDS)
def test_impossible_classes(kind: str) -> None:
    """A class that neither thinks possible costs nothing; what only one does is the limit."""
    out = np.where(np.arange(CLASSES) == 1, -np.inf, 0).astype(np.float32)
    both = {"bias": BIAS + out, "teacher_bias": TEACHER_BIAS + out}
    losses, of_student, _ = results(STUDENT, TEACHER, both, kind)
    rest = np.arange(CLASSES) != 1
    heads = [(hidden, kernel[:, rest]) for hidden, kernel in (STUDENT, TEACHER)]
    fewer = results(*heads, {name: bias[rest] for name, bias in BIASES.items()}, kind)
    close((losses, of_student[0], of_student[1][:, rest]), (fewer[0], *fewer[1][:2]))
    assert not np.any(of_student[1][:, 1])

    for one, bias in BIASES.items():
        losses, *_ = results(STUDENT, TEACHER, BIASES | {one: bias + out}, kind)
        is_infinite = (kind, one) in {("forward", "bias"), ("reverse", "teacher_bias")}
        assert np.isinf(losses).all() if is_infinite else np.isfinite(losses).all()


def test_the_same_head_has_no_divergence() -> None:
    for call in KINDS.values():
        np.testing.assert_allclose(call(*STUDENT, *STUDENT), 0, atol=1e-6)
    for beta in (0.0, 1.0):
        np.testing.assert_allclose(js(*STUDENT, *TEACHER, beta=beta), 0, atol=1e-6)


def test_ends_of_the_mixture() -> None:
    """Jensen-Shannon over its share tends to either divergence."""
    near = np.float32(1e-3)
    forward, reverse = (kl(*STUDENT, *TEACHER, reverse=reverse) for reverse in (False, True))
    np.testing.assert_allclose(js(*STUDENT, *TEACHER, beta=near) / near, forward, rtol=2e-2)
    np.testing.assert_allclose(js(*STUDENT, *TEACHER, beta=1 - near) / near, reverse, rtol=2e-2)
    assert (js(*STUDENT, *TEACHER) <= math.log(2)).all()


def test_narrow_dtypes() -> None:
    heads = [jnp.asarray(x, jnp.bfloat16) for x in (*STUDENT, *TEACHER)]
    wide = [x.astype(jnp.float32) for x in heads]
    found, wanted = kl(*heads), kl(*wide)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature must be > 0; got 0.0"),
        ({"teacher_hidden": TEACHER[0][:3]}, ValueError, r"as many tokens and classes .* \(3, 4\)"),
        ({"teacher_kernel": TEACHER[1][:, :2]}, TypeError, "as many tokens and classes"),
        ({"teacher_kernel": TEACHER[1].T}, ValueError, "teacher_hidden of shape .* transpose"),
        ({"teacher_bias": BIAS[:2]}, ValueError, r"teacher_bias of shape \(2,\) must"),
        ({"where": np.ones(TOKENS)}, ValueError, "where must be boolean"),
        ({"where": np.ones(2, bool)}, ValueError, r"where of shape \(2,\) must have one value per"),
        ({"reduction": "max"}, ValueError, "reduction must be one of"),
        ({"chunk_size": -1}, ValueError, "chunk_size must be >= 1"),
    ],
)
def test_errors(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    names = ("hidden", "kernel", "teacher_hidden", "teacher_kernel")
    given = dict(zip(names, (*STUDENT, *TEACHER), strict=True)) | arguments
    for loss in (kl, js):
        with pytest.raises(kind, match=f"{loss.__name__}: .*{message}"):
            loss(**given)
    for beta in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"shannon: beta must be in \[0, 1\]; got"):
            js(*STUDENT, *TEACHER, beta=beta)
