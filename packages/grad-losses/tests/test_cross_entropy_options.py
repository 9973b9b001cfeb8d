"""What integer cross entropies add: smoothing, weights, ignored labels, z-loss, dtypes; costs."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import linear_softmax_cross_entropy as linear_ce
from grad_losses import sigmoid_binary_cross_entropy as sigmoid_ce
from grad_losses import softmax_cross_entropy as dense_ce
from grad_losses import softmax_cross_entropy_with_integer_labels as integer_ce

RNG = np.random.default_rng(0)
TOKENS, FEATURES, CLASSES = 6, 3, 5
HIDDEN = RNG.normal(size=(TOKENS, FEATURES)).astype(np.float32)
KERNEL = RNG.normal(size=(FEATURES, CLASSES)).astype(np.float32)
BIAS = RNG.normal(size=CLASSES).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 3, 1])
IGNORED = 2
WEIGHTS = np.array([1.0, 0.3, 2.0, 0.0, 1.7], np.float32)
COTANGENTS = RNG.normal(size=TOKENS).astype(np.float32)

Result = tuple[np.ndarray, np.ndarray]


def exact(
    z: np.ndarray,
    labels: np.ndarray,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    mask: np.ndarray | None = None,
) -> Result:
    """Losses and their gradients with respect to the logits, in float64, from the equations."""
    z = np.asarray(z, np.float64)
    mask = np.ones_like(z) if mask is None else mask.astype(float)
    weights = np.ones(z.shape[-1]) if class_weights is None else np.float64(class_weights)
    one_hot = np.eye(z.shape[-1])[labels]
    spread = label_smoothing * mask / mask.sum(-1, keepdims=True)
    targets = weights * ((1 - label_smoothing) * one_hot + spread)
    log_z = np.log((mask * np.exp(z)).sum(-1, keepdims=True))
    losses = (targets * (log_z - z)).sum(-1) + z_loss * log_z[:, 0] ** 2
    p = mask * np.exp(z - log_z)
    gradient = p * (targets.sum(-1, keepdims=True) + 2 * z_loss * log_z) - targets
    kept = labels != ignore_index
    return kept * losses, kept[:, None] * gradient


def linear_exact(soft_cap: float, **options: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The losses of the head, and the gradients of their sum weighted with COTANGENTS."""
    h, w = np.float64(HIDDEN), np.float64(KERNEL)
    bend = np.tanh((h @ w + BIAS) / soft_cap)
    losses, gradient = exact(soft_cap * bend, LABELS, **options)
    g = COTANGENTS[:, None] * gradient * (1 - bend**2)
    return losses, [g @ w.T, h.T @ g, g.sum(0)]


# All options at once, as arrays: one compilation for all their values.
OPTIONS = [
    {"label_smoothing": smoothing, "class_weights": weights, "ignore_index": ignored, "z_loss": z}
    for smoothing, weights, ignored, z in itertools.product(
        (0.0, 0.1, 1.0), (np.ones_like(WEIGHTS), WEIGHTS), (-100, IGNORED), (0.0, 0.05)
    )
]


@functools.partial(jax.jit, static_argnames="names")
def integer_results(
    z: jax.Array, values: list[Any], names: tuple[str, ...], where: jax.Array | None = None
) -> Any:
    options = dict(zip(names, values, strict=True))

    def weighted(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = integer_ce(z, LABELS, where=where, **options)
        return jnp.vdot(COTANGENTS, losses), losses

    gradient, losses = jax.grad(weighted, has_aux=True)(z)
    return losses, gradient


def close(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-6), found, wanted)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "where"])
def test_every_combination(masked: bool) -> None:
    z = HIDDEN @ KERNEL + BIAS
    mask = np.ones(z.shape, bool)
    if masked:
        mask = RNG.random(z.shape) < 0.5
        mask[np.arange(TOKENS), LABELS] = True
    for options in OPTIONS:
        losses, gradient = exact(z, LABELS, **options, mask=mask)
        where = jnp.asarray(mask) if masked else None
        found = integer_results(z, list(options.values()), tuple(options), where)
        close(found, (losses, COTANGENTS[:, None] * gradient))


@functools.partial(jax.jit, static_argnames=("reduction", "names"))
def linear_results(values: list[Any], names: tuple[str, ...], reduction: str) -> Any:
    options = dict(zip(names, values, strict=True))

    def weighted(head: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        hidden, kernel, bias = head
        losses = linear_ce(
            hidden, kernel, LABELS, bias=bias, **options, reduction=reduction, chunk_size=4
        )
        return jnp.sum(losses * (COTANGENTS if reduction == "none" else 1)), losses

    gradients, losses = jax.grad(weighted, has_aux=True)((HIDDEN, KERNEL, BIAS))
    return losses, list(gradients)


def test_every_combination_of_a_linear_head() -> None:
    for options, cap in itertools.product(OPTIONS[::-1], (2.0, 1e3)):
        found = linear_results([*options.values(), cap], (*options, "soft_cap"), "none")
        close(found, linear_exact(cap, **options))


@pytest.mark.parametrize("name", [None, *OPTIONS[0]])
def test_options_one_by_one(name: str | None) -> None:
    chosen = {name: OPTIONS[-1][name]} if name else {}
    z = HIDDEN @ KERNEL
    losses, gradient = exact(z, LABELS, **chosen)
    found = integer_results(z, list(chosen.values()), tuple(chosen))
    close(found, (losses, COTANGENTS[:, None] * gradient))
    close(linear_ce(HIDDEN, KERNEL, LABELS, **chosen, chunk_size=2), losses)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions(reduction: str) -> None:
    for options in OPTIONS[-2:]:
        kept = options["ignore_index"] != LABELS
        scale = 1.0
        if reduction == "mean":
            scale /= np.float64(options["class_weights"])[LABELS][kept].sum()
        z = np.float64(HIDDEN) @ KERNEL + BIAS
        losses, gradient = exact(z, LABELS, **options)
        g = scale * gradient
        wanted = scale * losses.sum(), [g @ KERNEL.T, np.float64(HIDDEN).T @ g, g.sum(0)]
        close(linear_results(list(options.values()), tuple(options), reduction), wanted)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_ignored_examples_may_hold_anything(bad: float) -> None:
    ignored = LABELS == IGNORED
    z = jnp.where(ignored[:, None], bad, HIDDEN @ KERNEL)
    found = integer_results(z, [IGNORED, 0.1], ("ignore_index", "z_loss"))
    losses, gradient = exact(HIDDEN @ KERNEL, LABELS, ignore_index=IGNORED, z_loss=0.1)
    close(found, (losses, COTANGENTS[:, None] * gradient))

    def mean(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
        return linear_ce(hidden, kernel, LABELS, ignore_index=IGNORED, reduction="mean")

    value_and_gradients = jax.jit(jax.value_and_grad(mean, (0, 1)))
    hidden = jnp.where(ignored[:, None], bad, HIDDEN)
    wanted = value_and_gradients(HIDDEN, KERNEL)
    jax.tree.map(np.testing.assert_array_equal, value_and_gradients(hidden, KERNEL), wanted)


def test_ignored_labels_need_be_no_class_and_can_be_all() -> None:
    labels = np.full(TOKENS, -100)
    z = HIDDEN @ KERNEL
    np.testing.assert_array_equal(integer_ce(z, labels, ignore_index=-100), 0)
    np.testing.assert_array_equal(integer_ce(z, labels - 100, ignore_index=-100), np.nan)

    def all_reductions(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
        call = functools.partial(linear_ce, hidden, kernel, labels, ignore_index=-100)
        return sum(jnp.sum(call(reduction=reduction)) for reduction in ("none", "sum", "mean"))

    value, gradients = jax.jit(jax.value_and_grad(all_reductions, (0, 1)))(HIDDEN, KERNEL)
    assert value == 0
    assert all(not np.any(g) for g in gradients)


def test_labels_that_are_no_class() -> None:
    labels = np.array([0, CLASSES, -1, -CLASSES - 1, 1, 2])
    losses = linear_ce(HIDDEN, KERNEL, labels, chunk_size=4)
    np.testing.assert_array_equal(np.isnan(losses), [0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(losses[2], linear_ce(HIDDEN, KERNEL, labels % CLASSES)[2])
    assert np.isnan(linear_ce(HIDDEN, KERNEL, labels, reduction="mean", class_weights=WEIGHTS))


def test_results_in_a_wider_dtype() -> None:
    z = jnp.asarray(3 * RNG.normal(size=(4, 9000)), jnp.bfloat16)
    labels = np.array([0, 5, 8999, 77])
    dense = jax.nn.one_hot(labels, 9000, dtype=jnp.bfloat16)

    @jax.jit
    def in_dtypes() -> dict[str, list[jax.Array]]:
        return {
            "same": [integer_ce(z, labels), dense_ce(z, dense), sigmoid_ce(z, dense)],
            "wide": [
                integer_ce(z, labels, dtype=jnp.float32),
                dense_ce(z, dense, dtype=jnp.float32),
                sigmoid_ce(z, dense, dtype=jnp.float32),
            ],
        }

    found = in_dtypes()
    assert [x.dtype for x in found["same"]] == [jnp.bfloat16] * 3
    assert [x.dtype for x in found["wide"]] == [jnp.float32] * 3
    x = np.asarray(z, np.float64)
    wanted, _ = exact(x, labels)
    np.testing.assert_allclose(found["wide"][0], wanted, atol=1e-4)
    np.testing.assert_allclose(found["wide"][1], wanted, atol=1e-4)
    wanted = np.logaddexp(0, x) - np.asarray(dense, np.float64) * x
    np.testing.assert_allclose(found["wide"][2], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("options", "bound"), [({}, 0.1), ({"label_smoothing": 0.1}, 1.1)])
def test_temporaries(options: dict[str, float], bound: float) -> None:
    """In units of the logits; a mean over classes takes one, of logits less the largest."""
    shape = (256, 4096)

    def loss(z: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(integer_ce(z, labels, **options))

    arguments = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= bound * 4 * np.prod(shape)
    if options:  # neither dense labels
        integers = [
            variable.aval.shape
            for equation in jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr.eqns
            for variable in equation.outvars
            if jnp.issubdtype(variable.aval.dtype, jnp.integer)
        ]
        assert shape not in integers


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(label_smoothing=1.5), ValueError, r"label_smoothing must be in \[0, 1\]; got"),
        (lambda f: f(label_smoothing=-0.1), ValueError, "label_smoothing must be"),
        (lambda f: f(z_loss=-1.0), ValueError, "z_loss must be >= 0; got -1.0"),
        (lambda f: f(class_weights=np.ones(4)), ValueError, r"class_weights of shape \(4,\)"),
        (lambda f: f(class_weights=1.0), TypeError, r"class_weights of shape \(\)"),
        (lambda f: f(ignore_index=1.0), TypeError, "ignore_index must be an integer or None; got"),
        (lambda f: f(ignore_index=True), TypeError, "ignore_index must be"),
    ],
)
def test_errors(call: Callable[..., object], kind: type[Exception], message: str) -> None:
    for name, f in {
        "softmax_cross_entropy_with_integer_labels": functools.partial(
            integer_ce, HIDDEN @ KERNEL, LABELS
        ),
        "linear_softmax_cross_entropy": functools.partial(linear_ce, HIDDEN, KERNEL, LABELS),
    }.items():
        with pytest.raises(kind, match=f"{name}: {message}"):
            call(f)


@pytest.mark.parametrize("loss", [integer_ce, dense_ce, sigmoid_ce])
def test_dtype_must_be_floating(loss: Callable[..., jax.Array]) -> None:
    labels = LABELS if loss is integer_ce else HIDDEN
    with pytest.raises(TypeError, match=f"{loss.__name__}: dtype must be a real floating point"):
        loss(HIDDEN, labels, dtype=int)
