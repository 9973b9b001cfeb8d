"""CTC against the sum over all alignments, one by one; tiny, impossible and padded problems."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import ctc_loss, ctc_loss_with_forward_probs
from grad_testing.loss_subject import quick_jit

INF = jnp.inf
BATCH, FRAMES, CLASSES, LENGTH = 24, 5, 3, 3


class Problem(NamedTuple):
    logits: np.ndarray
    logit_paddings: np.ndarray
    labels: np.ndarray
    label_paddings: np.ndarray


def problem(rng: np.random.Generator, blank: int) -> Problem:
    """Random problems with padding, repeats, and labels that do not fit into the frames."""
    labels = rng.integers(CLASSES - 1, size=(BATCH, LENGTH))
    lengths = rng.integers(LENGTH + 1, size=BATCH)
    return Problem(
        2 * rng.normal(size=(BATCH, FRAMES, CLASSES)),
        (rng.random((BATCH, FRAMES)) < 0.2).astype(np.float64),
        labels + (labels >= blank),
        (np.arange(LENGTH) >= lengths[:, None]).astype(np.float64),
    )


def reading(alignment: tuple[int, ...], blank: int) -> list[int]:
    """What an alignment reads as."""
    return [k for k, _ in itertools.groupby(alignment) if k != blank]


class Enumerated(NamedTuple):
    """The probability of all alignments that read right, of all others, and the gradient."""

    right: float
    wrong: float
    gradient: np.ndarray


def enumerate_alignments(z: np.ndarray, padding: np.ndarray, labels: list, blank: int = 0):
    """All alignments of one example, in float64."""
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    frames = np.flatnonzero(padding == 0)
    right = wrong = 0.0
    occupied = np.zeros_like(p)
    for alignment in itertools.product(range(z.shape[-1]), repeat=len(frames)):
        probability = np.prod(p[frames, alignment])
        if reading(alignment, blank) == list(labels):
            right += probability
            occupied[frames, alignment] += probability
        else:
            wrong += probability
    gradient = np.zeros_like(p)
    if right:
        gradient[frames] = p[frames] - occupied[frames] / right
    return Enumerated(right, wrong, gradient)


@jax.jit
def compiled(given: Problem, blank: jax.Array, log_epsilon: jax.Array):
    """Values and gradients; all tests share its shapes, as compiling takes longest."""

    def total(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = ctc_loss(logits, *given[1:], blank_id=blank, log_epsilon=log_epsilon)
        return value.astype(jnp.promote_types(value.dtype, jnp.float32)).sum(), value

    gradient, value = jax.grad(total, has_aux=True)(given.logits)
    return value, gradient


def run(given: Problem, blank: int = 0, log_epsilon: float = -1e5, dtype: object = jnp.float32):
    """The losses, and their gradients by the logits."""
    with jax.enable_x64(dtype == jnp.float64):
        logits = jnp.asarray(given.logits, dtype)
        return jax.device_get(compiled(given._replace(logits=logits), blank, log_epsilon))


def batch_of(*examples: tuple[object, list[int]]) -> Problem:
    """A batch of logits, of at most as many frames as in all other batches, and labels."""
    given = Problem(
        np.zeros((BATCH, FRAMES, CLASSES), np.float32),
        np.ones((BATCH, FRAMES)),
        np.zeros((BATCH, LENGTH), int),
        np.ones((BATCH, LENGTH)),
    )
    for row, (z, labels) in enumerate(examples):
        if len(z):
            given.logits[row, : len(z)], given.logit_paddings[row, : len(z)] = z, 0
        given.labels[row, : len(labels)], given.label_paddings[row, : len(labels)] = labels, 0
    return given


def test_all_alignments_one_by_one() -> None:
    rng = np.random.default_rng(0)
    fitting = []
    for blank in range(CLASSES):
        given = problem(rng, blank)
        value, gradient = run(given, blank, dtype=jnp.float64)
        for row in range(BATCH):
            z, padding, labels, no_label = (array[row] for array in given)
            want = enumerate_alignments(z, padding, labels[no_label == 0], blank)
            fitting.append(want.right > 0)
            if want.right:
                np.testing.assert_allclose(value[row], -np.log(want.right), rtol=1e-12)
                np.testing.assert_allclose(gradient[row], want.gradient, atol=1e-13)
            else:
                # One forbidden step costs 1e5, and the others what a few logits can.
                assert abs(value[row] - 1e5) < 20 * FRAMES
                assert np.isfinite(gradient[row]).all()
    assert 0.4 < np.mean(fitting) < 0.97


def test_tiny_losses_keep_their_digits() -> None:
    """With labels read almost surely, the loss is what all others have, also in float32."""
    alignments = [(0, 2, 0, 1), (2, 0, 2, 1), (0, 0, 0, 0), (1, 2, 1, 0)]
    gaps = (3.0, 8.0, 20.0, 22.0, 40.0)
    examples = [
        (np.float32(gap) * np.eye(3)[list(each)], reading(each, 0))
        for gap in gaps
        for each in alignments
    ]
    found = run(batch_of(*examples))[0][: len(examples)]
    wrong = [enumerate_alignments(z, np.zeros(4), labels).wrong for z, labels in examples]
    assert min(wrong) < 1e-16
    assert sum(1e-9 < each < 2e-8 for each in wrong) >= 4
    np.testing.assert_allclose(found, -np.log1p(-np.array(wrong)), rtol=2e-6)


def test_rounding_makes_no_loss_negative() -> None:
    """Each of many alignments has a part, and the sum of their probabilities is rounded up."""
    z = np.full((BATCH, FRAMES, CLASSES), -60.0)
    z[:, :, :2] = np.random.default_rng(0).normal(size=(BATCH, FRAMES, 2))
    z[:, 1:4, 0] = -60  # the label is there at least in these frames
    value, gradient = run(batch_of(*((each, [1]) for each in z)))
    assert (value == 0).any()
    assert (value >= 0).all()
    np.testing.assert_allclose(value, 0, atol=5e-7)
    np.testing.assert_allclose(gradient, 0, atol=5e-7)


def test_labels_that_do_not_fit_cost_log_epsilon() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.625, 0.25]])
    given = batch_of((np.log(p), [1, 1]), ([], [1, 2]))
    # The recursion to first order in epsilon, which is in every first value but that of b(0) and
    # takes the place of e(n - 1) before a repeated label.
    either = p[:, 0] + p[:, 1]
    begun = 2 * either[0] * either[1] + p[0, 1] * p[1, 1]
    for log_epsilon in (-1e5, -80.0):
        found = run(given, 0, log_epsilon, jnp.float64)[0]
        np.testing.assert_allclose(found[:2] + log_epsilon, -np.log([begun, 2]), atol=1e-9)
    value, gradient = run(given, dtype=jnp.float16)
    assert value.dtype == gradient.dtype == jnp.float16
    np.testing.assert_array_equal(value[:2], jnp.finfo(jnp.float16).max)  # 1e5 is beyond it
    assert np.isfinite(gradient).all()


def test_empty_rows() -> None:
    z = np.random.default_rng(1).normal(size=(3, 3))
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    loss, gradient = run(batch_of((z, []), ([], []), ([], [1])))
    np.testing.assert_allclose(loss[:2], [-log_p[:, 0].sum(), 0], rtol=1e-6)
    np.testing.assert_array_equal(gradient[1:], 0)


def test_empty_arrays() -> None:
    def call(b: int, t: int, n: int) -> tuple[jax.Array, ...]:
        labels = jnp.ones((b, n), int)
        given = jnp.zeros((b, t, 3)), jnp.zeros((b, t)), labels, jnp.zeros((b, n))
        return ctc_loss_with_forward_probs(*given)

    for b, t, n in ((2, 3, 0), (2, 0, 2), (2, 0, 0), (0, 3, 2)):
        loss, blank, label = jax.eval_shape(lambda: call(b, t, n))  # noqa: B023
        assert (loss.shape, blank.shape, label.shape) == ((b,), (t, b, n + 1), (t, b, n))
    compiled_call = jax.jit(call, static_argnums=(0, 1, 2))
    np.testing.assert_allclose(compiled_call(2, 3, 0)[0], 3 * np.log(3), rtol=1e-6)
    np.testing.assert_allclose(compiled_call(2, 0, 2)[0], 1e5 - np.log(2))


@pytest.mark.parametrize("hidden", [0.0, INF, -INF, jnp.nan, 1e38])
def test_what_padding_hides_does_not_matter(hidden: float) -> None:
    given = problem(np.random.default_rng(2), 0)
    is_hidden = given.logit_paddings[..., None] != 0
    assert is_hidden.any()
    value, gradient = run(given)
    np.testing.assert_array_equal(gradient * is_hidden, 0)
    for label in (-7, 0, 99):
        odd = given._replace(
            logits=np.where(is_hidden, hidden, given.logits),
            labels=np.where(given.label_paddings != 0, label, given.labels),
        )
        found = run(odd)
        np.testing.assert_array_equal(found[0], value)
        np.testing.assert_array_equal(found[1], gradient)


def recursion(p: np.ndarray, labels: np.ndarray, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities b_t(n) and e_t(n), from t = 1 on, by the equations as they stand."""
    frames, length = len(p), len(labels)
    b, e = np.zeros((frames + 1, length + 1)), np.zeros((frames + 1, length + 1))
    b[0, 0] = 1
    for t in range(1, frames + 1):
        b[t] = p[t - 1, blank] * (b[t - 1] + e[t - 1])
        for n in range(1, length + 1):
            before = b[t - 1, n - 1]
            if n > 1 and labels[n - 1] != labels[n - 2]:
                before += e[t - 1, n - 1]
            e[t, n] = p[t - 1, labels[n - 1]] * (e[t - 1, n] + before)
    return b[1:], e[1:, 1:]


def test_forward_probabilities() -> None:
    rng = np.random.default_rng(3)
    z, labels = rng.normal(size=(6, FRAMES, CLASSES)), rng.integers(2, size=(6, LENGTH))
    with jax.enable_x64(True):
        arguments = (z, np.zeros((6, FRAMES)), labels, np.zeros((6, LENGTH)))
        call = functools.partial(ctc_loss_with_forward_probs, blank_id=2)
        loss, blank, label = jax.jit(call)(*arguments)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    for row in range(6):
        b, e = recursion(p[row], labels[row], 2)
        b[-1, 1:] += e[-1]
        np.testing.assert_allclose(np.exp(blank[:, row]), b, rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(np.exp(label[:, row]), e, rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(loss[row], -blank[-1, row, -1])


def test_infinite_logits() -> None:
    z = np.array([[1.0, -INF, 0.5], [0.3, 2.0, -INF], [0.3, 2.0, 0.4], [INF, 0.0, -INF]])
    right = total = 0.0
    for alignment in itertools.product((0, 2), (0, 1), (0, 1, 2)):
        weight = np.exp(sum(z[t, k] for t, k in enumerate(alignment)))
        total += weight
        right += weight * (reading(alignment, 0) == [2, 1])
    # In the second example no frame can be a label, and in the third no blank either.
    never = np.array([[1.0, -INF, 0.0]] * 4)
    nothing = np.array([[-INF, -INF, 0.0]] * 3)
    given = batch_of((z, [2, 1]), (never, [1, 1]), (nothing, [1]), (-z, [2, 1]))
    value, gradient = run(given)
    np.testing.assert_allclose(value[0], -np.log(right / total), rtol=1e-6)
    np.testing.assert_allclose(value[1:3], [1e5, 3e5], rtol=1e-3)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, :4][np.isinf(z)], 0)


def test_second_derivatives_where_all_is_equal() -> None:
    """At equal logits every sum is of equal terms, which a comparison of them must not break."""

    def directly(z: jax.Array) -> jax.Array:
        p = jax.nn.softmax(z, axis=-1)
        return -jnp.log(p[0, 1] * p[1, 0] + p[0, 0] * p[1, 1] + p[0, 1] * p[1, 1])

    def ours(z: jax.Array) -> jax.Array:
        given = jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1))
        return ctc_loss(z[None], *given)[0]

    z = np.array(
        [
            [[0, 0, 0], [0, 0, 0]],
            [[0, 0.3, 0.7], [1, 1.3, 1.7]],
            [[9e9, 0, 0], [0, 9e9, 0]],
            [[-INF, 0, 0], [0, 0, -INF]],
            [[0, -INF, 0], [0, -INF, 0]],
        ],
        np.float32,
    )
    found = quick_jit(jax.vmap(jax.hessian(ours)))(z)
    want = quick_jit(jax.vmap(jax.hessian(directly)))(z[:2])
    np.testing.assert_allclose(found[:2], want, atol=3e-7)
    assert jnp.isfinite(found).all()


def test_labels() -> None:
    z = np.random.default_rng(5).normal(size=(3, 3))
    indices = [[1, 2], [-2, -1], [2, -1], [2, 2], [-1, 2], [3, 1], [1, -4]]
    value, _ = run(batch_of(*((z, each) for each in indices)))
    np.testing.assert_array_equal(value[[1, 2, 4]], value[[0, 3, 3]])
    np.testing.assert_array_equal(np.isnan(value[:7]), [False] * 5 + [True] * 2)
    given = jnp.zeros((1, 3)), np.array([[200]], np.uint8), jnp.zeros((1, 1))
    assert jax.jit(ctc_loss)(jnp.zeros((1, 3, 300)).at[..., 200].set(9.0), *given) < 1


Z, T, Y, N = (
    np.zeros((2, 4, 3), np.float32),
    np.zeros((2, 4)),
    np.ones((2, 2), int),
    np.zeros((2, 2)),
)


@pytest.mark.parametrize("loss", [ctc_loss, ctc_loss_with_forward_probs])
@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((Z.astype(int), T, Y, N), {}, TypeError, "logits must be of a real floating point dtype"),
        ((Z, T, Y * 1.0, N), {}, TypeError, "labels must be of an integer dtype; got float32"),
        ((Z, T * 1j, Y, N), {}, TypeError, "logit_paddings must be real; got complex64"),
        ((Z[0], T[0], Y[0], N[0]), {}, ValueError, r"got \(4, 3\) and \(2,\). Add a batch axis"),
        ((Z, T, Y[:1], N[:1]), {}, ValueError, r"got \(2, 4, 3\) and \(1, 2\)"),
        ((Z, T[:, 1:], Y, N), {}, ValueError, r"logit_paddings of shape \(2, 3\) must .* \(2, 4\)"),
        ((Z, T, Y, T), {}, TypeError, r"label_paddings of shape \(2, 4\) must have shape \(2, 2\)"),
        ((Z, T, Y, N), {"blank_id": 3}, ValueError, "blank_id must be one of the 3 .*; got 3"),
        ((Z, T, Y, N), {"blank_id": -1}, ValueError, "blank_id must be one of the 3 .*; got -1"),
        ((Z, T, Y, N), {"log_epsilon": 1.0}, ValueError, r"log_epsilon must be .*; got 1\.0"),
        ((Z, T, Y, N), {"log_epsilon": -INF}, ValueError, "log_epsilon must be .*; got -inf"),
    ],
)
def test_errors(
    loss: Callable, arguments: tuple, options: dict, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{loss.__name__}: .*{message}"):
        loss(*arguments, **options)
