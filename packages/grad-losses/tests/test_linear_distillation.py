"""Distillation between linear heads: values, gradients, limits, reductions, errors."""

import functools
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
TEMPERATURE, CAP, TEACHER_CAP = 2.0, 3.0, 1.5


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.logaddexp.reduce(z, axis=-1, keepdims=True)


def of_logits(z: np.ndarray, teacher: np.ndarray, kind: str, beta: float = 0.5) -> Any:
    """The losses and their gradients with respect to the student's logits, in float64."""
    log_q, log_p = (log_softmax(np.float64(x)) for x in (z, teacher))
    p, q = np.exp(log_p), np.exp(log_q)
    if kind == "forward":
        return (p * (log_p - log_q)).sum(-1), q - p
    if kind == "reverse":
        losses, slope = (q * (log_q - log_p)).sum(-1), log_q - log_p
    else:
        log_m = np.log(beta * p + (1 - beta) * q)
        slope = (1 - beta) * (log_q - log_m)
        losses = (beta * p * (log_p - log_m)).sum(-1) + (q * slope).sum(-1)
    return losses, q * (slope - (q * slope).sum(-1, keepdims=True))


def exact(kind: str) -> tuple[np.ndarray, np.ndarray]:
    (h, w), (teacher_h, teacher_w) = (map(np.float64, head) for head in (STUDENT, TEACHER))
    bent = np.tanh((h @ w + BIAS) / CAP)
    teacher = TEACHER_CAP * np.tanh((teacher_h @ teacher_w + TEACHER_BIAS) / TEACHER_CAP)
    beta = 0.2 if kind == "uneven" else 0.5
    losses, g = of_logits(CAP * bent / TEMPERATURE, teacher / TEMPERATURE, kind, beta)
    return losses, g * (1 - bent**2) / TEMPERATURE


@functools.partial(jax.jit, static_argnames=("kind", "reduction", "chunk_size"))
def results(
    student: Any,
    teacher: Any,
    biases: Any,
    kind: str,
    reduction: str = "none",
    chunk_size: int | None = 3,
    where: Any = None,
    soft_cap: Any = CAP,
    teacher_soft_cap: Any = TEACHER_CAP,
) -> Any:
    def weighted(student: Any, bias: Any, teacher: Any) -> tuple[jax.Array, jax.Array]:
        losses = KINDS[kind](
            *student,
            *teacher,
            bias=bias,
            teacher_bias=biases["teacher_bias"],
            soft_cap=soft_cap,
            teacher_soft_cap=teacher_soft_cap,
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


def test_derivatives_of_every_kind() -> None:
    """Against JAX's of the equations, without chunks."""
    head = (STUDENT[0], BIAS)
    along = tuple(np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape) for x in head)

    def plain(hidden: jax.Array, bias: jax.Array) -> jax.Array:
        log_q = jax.nn.log_softmax(hidden @ STUDENT[1] + bias)
        log_p = jax.nn.log_softmax(jnp.dot(*TEACHER))
        m = 0.5 * (jnp.exp(log_p) + jnp.exp(log_q))
        of_p, of_q = (jnp.exp(log) * (log - jnp.log(m)) for log in (log_p, log_q))
        forward = jnp.exp(log_p) * (log_p - log_q)
        return WEIGHTS @ (of_p + of_q).sum(-1) / 2 + jnp.sin(forward.sum() / TOKENS)

    def ours(hidden: jax.Array, bias: jax.Array) -> jax.Array:
        heads = hidden, STUDENT[1], *TEACHER
        shared = {"bias": bias, "chunk_size": 3}
        return WEIGHTS @ js(*heads, **shared) + jnp.sin(kl(*heads, **shared, reduction="mean"))

    def everything(f: Any) -> dict[str, Any]:
        gradient = jax.grad(f, (0, 1))

        def slope(*head: jax.Array) -> jax.Array:
            return jax.jvp(f, head, along)[1]

        two = tuple(np.stack([x, 0.5 * x]) for x in head)
        return {
            "jvp": slope(*head),
            "gradient": gradient(*head),
            "forward over reverse": jax.jvp(gradient, head, along)[1],
            "reverse over forward": jax.grad(slope, (0, 1))(*head),
            "checkpoint": jax.grad(jax.checkpoint(f), (0, 1))(*head),
            "vmap": jax.vmap(gradient)(*two),
        }

    found, wanted = (jax.jit(everything, static_argnums=0)(f) for f in (ours, plain))
    for kind, result in wanted.items():
        jax.tree.map(
            lambda a, b, kind=kind: np.testing.assert_allclose(a, b, 1e-5, 5e-5, err_msg=kind),
            found[kind],
            result,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_impossible_classes(kind: str) -> None:
    """A class that neither thinks possible costs nothing; what only one does is the limit."""
    call = functools.partial(results, kind=kind, soft_cap=None, teacher_soft_cap=None)
    out = np.where(np.arange(CLASSES) == 1, -np.inf, 0).astype(np.float32)
    both = {"bias": BIAS + out, "teacher_bias": TEACHER_BIAS + out}
    losses, of_student, _ = call(STUDENT, TEACHER, both)
    rest = np.arange(CLASSES) != 1
    heads = [(hidden, kernel[:, rest]) for hidden, kernel in (STUDENT, TEACHER)]
    fewer = call(*heads, {name: bias[rest] for name, bias in BIASES.items()})
    kept = losses, [of_student[0], of_student[1][:, rest], of_student[2][rest]]
    close(kept, fewer[:2])
    assert not np.any(of_student[1][:, 1])
    assert of_student[2][1] == 0

    for one, bias in BIASES.items():
        found = call(STUDENT, TEACHER, BIASES | {one: bias + out})[:2]
        if (kind, one) in {("forward", "bias"), ("reverse", "teacher_bias")}:
            assert np.isposinf(found[0]).all()
        else:  # all but impossible
            close(found, call(STUDENT, TEACHER, BIASES | {one: bias + out.clip(-60)})[:2])


@functools.partial(jax.jit, static_argnames=("kind", "beta"))
def results_of_logits(z: Any, teacher: Any, kind: str, beta: float) -> Any:
    loss = functools.partial(js, beta=beta) if kind == "mixed" else KINDS[kind]
    classes = jnp.eye(z.shape[-1])

    def total(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = loss(z, classes, teacher, classes)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(z)
    return losses, gradient


@pytest.mark.parametrize(
    ("kind", "beta"),
    [("forward", 0.5), ("reverse", 0.5), *(("mixed", b) for b in (0.5, 1e-5, 1 - 1e-5))],
)
def test_digits(kind: str, beta: float) -> None:
    """Sums do not cancel: not for distributions nearly the same, or mixtures nearly one of them."""
    teacher, noise = np.random.default_rng(1).normal(size=(2, 4, 9)).astype(np.float32)
    for z, error in [(teacher + noise, 1e-6), (4 * noise, 1e-5), (teacher + 1e-3 * noise, 5e-4)]:
        losses, gradient = of_logits(z, teacher, kind, beta)
        found = results_of_logits(z, teacher, kind, beta)
        np.testing.assert_allclose(found[0], losses, rtol=error)
        np.testing.assert_allclose(found[1], gradient, rtol=0, atol=error * np.abs(gradient).max())


def test_the_same_head_has_no_divergence() -> None:
    for call in KINDS.values():
        assert not np.any(call(*STUDENT, *STUDENT))
    for beta in (0.0, 1.0):
        assert not np.any(js(*STUDENT, *TEACHER, beta=beta))


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
        ({"soft_cap": -1.0}, ValueError, ": soft_cap must be > 0; got -1.0"),
        ({"teacher_soft_cap": 0.0}, ValueError, ": teacher_soft_cap must be > 0; got 0.0"),
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
        with pytest.raises(kind, match=f"{loss.__name__}.*{message}"):
            loss(**given)
    for beta in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"shannon: beta must be in \[0, 1\]; got"):
            js(*STUDENT, *TEACHER, beta=beta)
