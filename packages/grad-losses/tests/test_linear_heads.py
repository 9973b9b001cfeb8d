"""Losses of linear heads: chunks, derivatives of every kind, dtypes, costs, errors."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import (
    _chunked_losses,
    _linear_heads,
    linear_distillation_jensen_shannon,
    linear_softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)

RNG = np.random.default_rng(0)
TOKENS, FEATURES, CLASSES = 10, 4, 7
HIDDEN = RNG.normal(size=(TOKENS, FEATURES)).astype(np.float32)
KERNEL = RNG.normal(size=(FEATURES, CLASSES)).astype(np.float32)
BIAS = RNG.normal(size=CLASSES).astype(np.float32)
HEAD = (HIDDEN, KERNEL, BIAS)
LABELS = RNG.integers(CLASSES, size=TOKENS)
LABELS[3] = -100
OPTIONS = {"ignore_index": -100, "label_smoothing": 0.1, "z_loss": 0.02}

Loss = Callable[..., jax.Array]


def unchunked(hidden: Any, kernel: Any, bias: Any) -> jax.Array:
    dtype = jnp.promote_types(jnp.result_type(hidden), jnp.float32)
    logits = jnp.dot(hidden, kernel, preferred_element_type=dtype) + bias
    return softmax_cross_entropy_with_integer_labels(logits, LABELS, **OPTIONS)


def chunked(hidden: Any, kernel: Any, bias: Any, **arguments: Any) -> jax.Array:
    return linear_softmax_cross_entropy(
        hidden, kernel, LABELS, bias=bias, **OPTIONS, **{"chunk_size": 4, **arguments}
    )


def summed(loss: Loss) -> Loss:
    """A scalar, with different and non-constant cotangents of the losses."""
    return lambda *head: jnp.sum(jnp.sin(loss(*head) + jnp.arange(TOKENS)))


def averaged(loss: Loss) -> Loss:
    return lambda *head: jnp.sin(jnp.sum(loss(*head)) / (TOKENS - 1))


PAIRS = {
    "none": (summed(chunked), summed(unchunked)),
    "mean": (lambda *head: jnp.sin(chunked(*head, reduction="mean")), averaged(unchunked)),
}


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    def check(a: jax.Array, b: jax.Array) -> None:
        scale = float(jnp.max(jnp.abs(b), initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale + 1e-7)

    jax.tree.map(check, found, wanted)


def everything(f: Loss) -> dict[str, Any]:
    """Derivatives of a scalar of the head, in all modes and inside JAX's transformations."""
    along = tuple(jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in HEAD)
    all_of_it = (0, 1, 2)
    gradient = jax.grad(f, all_of_it)

    def slope(*head: jax.Array) -> jax.Array:
        return jax.jvp(f, head, along)[1]

    def along_gradient(*head: jax.Array) -> jax.Array:
        return sum(jnp.vdot(a, b) for a, b in zip(gradient(*head), along, strict=True))

    two = jnp.stack([HIDDEN, 0.5 * HIDDEN]), KERNEL, jnp.stack([BIAS, -BIAS])
    mapped = jax.vmap(f, (0, None, 0))
    two_kernels = HIDDEN, jnp.stack([KERNEL, 2 * KERNEL], axis=-1), BIAS

    def scanned(hidden: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        heads = jnp.stack([hidden, 2 * hidden])
        return jax.lax.scan(lambda c, h: (c + f(h, kernel, bias), None), 0.0, heads)[0]

    return {
        "value": f(*HEAD),
        "jvp": slope(*HEAD),
        "gradient": gradient(*HEAD),
        "of hidden": jax.grad(f)(*HEAD),
        "of kernel": jax.grad(f, 1)(*HEAD),
        "forward over reverse": jax.jvp(gradient, HEAD, along)[1],
        "reverse over reverse": jax.grad(along_gradient, all_of_it)(*HEAD),
        "reverse over forward": jax.grad(slope, all_of_it)(*HEAD),
        "forward over forward": jax.jvp(slope, HEAD, along)[1],
        "checkpoint": jax.grad(jax.checkpoint(f), all_of_it)(*HEAD),
        "vmap of gradient": jax.vmap(gradient, (0, None, 0))(*two),
        "gradient of vmap": jax.grad(lambda *head: jnp.sum(mapped(*head)), all_of_it)(*two),
        "vmap of kernels": jax.vmap(gradient, (None, -1, None))(*two_kernels),
        "scan": jax.grad(scanned, all_of_it)(*HEAD),
    }


@pytest.mark.parametrize("reduction", PAIRS)
def test_derivatives_of_every_kind(reduction: str) -> None:
    ours, plain = PAIRS[reduction]
    found, wanted = (jax.jit(functools.partial(everything, f))() for f in (ours, plain))
    for kind, result in wanted.items():
        try:
            close(found[kind], result)
        except AssertionError as error:
            error.add_note(kind)
            raise


def test_hessian_and_jacobians() -> None:
    def of_bias(loss: Loss) -> Any:
        bound = functools.partial(loss, HIDDEN, KERNEL)
        scalar = functools.partial(summed(loss), HIDDEN, KERNEL)
        return jax.hessian(scalar)(BIAS), jax.jacrev(bound)(BIAS), jax.jacfwd(bound)(BIAS)

    close(*(jax.jit(of_bias, static_argnums=0)(loss) for loss in (chunked, unchunked)))


@pytest.mark.parametrize("size", [1, 3, 5, 10, 1000])
def test_chunks_of_any_size(size: int) -> None:
    def ours(*head: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tuple(chunked(*head, chunk_size=size, reduction=r) for r in ("none", "mean"))

    def plain(*head: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = unchunked(*head)
        return losses, losses.sum() / (TOKENS - 1)

    def results(f: Any) -> Any:
        def total(*head: jax.Array) -> tuple[jax.Array, Any]:
            losses, mean = f(*head)
            return jnp.sum(losses * np.arange(TOKENS)) + 30 * mean, (losses, mean)

        return jax.grad(total, (0, 1, 2), has_aux=True)(*HEAD)

    close(*(jax.jit(results, static_argnums=0)(f) for f in (ours, plain)))


def test_tokens_have_any_shape() -> None:
    shaped = HIDDEN.reshape(5, 1, 2, FEATURES)
    labels = LABELS.reshape(5, 1, 2)
    call = functools.partial(linear_softmax_cross_entropy, kernel=KERNEL, ignore_index=-100)
    found = call(shaped, labels=labels)
    assert found.shape == labels.shape
    np.testing.assert_array_equal(found.ravel(), call(HIDDEN, labels=LABELS))
    np.testing.assert_allclose(
        call(shaped, labels=labels, reduction="mean"), found.sum() / (TOKENS - 1), rtol=1e-6
    )
    one = call(HIDDEN[0], labels=LABELS[0])
    np.testing.assert_allclose(one, found.ravel()[0], rtol=1e-6)
    assert call(HIDDEN[:0], labels=LABELS[:0]).shape == (0,)
    assert call(HIDDEN[:0], labels=LABELS[:0], reduction="mean") == 0


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    jax.clear_caches()
    monkeypatch.setattr(_chunked_losses, "_BLOCK", 3 * CLASSES)  # of 4 rows: a rest of 1
    yield
    jax.clear_caches()


def test_the_kernels_gradient_by_blocks(small_blocks: None) -> None:
    for ours, plain in PAIRS.values():

        def both(f: Loss) -> Any:
            gradient = jax.grad(f, (0, 1, 2))
            return gradient(*HEAD), jax.jvp(gradient, HEAD, HEAD)[1]

        close(*(jax.jit(functools.partial(both, f))() for f in (ours, plain)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes(dtype: Any) -> None:
    hidden, kernel, bias = (jnp.asarray(x, dtype) for x in HEAD)
    wide = tuple(x.astype(jnp.float32) for x in (hidden, kernel, bias))

    def f(*head: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        losses = [chunked(*head, reduction=reduction) for reduction in ("none", "mean")]
        return jnp.sum(losses[0]) + 3 * losses[1], losses

    call = jax.jit(jax.grad(f, (0, 1, 2), has_aux=True))
    gradients, losses = call(hidden, kernel, bias)
    wanted, exact = call(*wide)
    for found, of_wide in zip(losses, exact, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, of_wide, atol=1e-5)  # products of narrow ones are exact
    for found, of_wide in zip(gradients, wanted, strict=True):
        assert found.dtype == dtype
        close(found.astype(jnp.float32), of_wide, 2 * float(jnp.finfo(dtype).eps))
    assert chunked(hidden, KERNEL, bias).dtype == jnp.float32


def test_gradients_in_float16_do_not_vanish() -> None:
    """Of 1e5 classes every probability times a token's share of the mean is below float16."""
    hidden = jnp.ones((40, 2), jnp.float16)
    kernel = jnp.zeros((2, 100_000), jnp.float16).at[0, 0].set(1.0)

    def mean(hidden: jax.Array) -> jax.Array:
        return 1e4 * linear_softmax_cross_entropy(
            hidden, kernel, jnp.full(40, 7), reduction="mean", chunk_size=20
        )

    p = math.e / (math.e + 99_999)
    np.testing.assert_allclose(jax.grad(mean)(hidden)[:, 0], 1e4 / 40 * p, rtol=2e-3)


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def test_float64_stays(x64: None) -> None:
    head = tuple(np.float64(x) for x in HEAD)
    gradients = [jax.jit(jax.grad(f, (0, 1, 2)))(*head) for f in PAIRS["none"]]
    assert gradients[0][1].dtype == jnp.float64
    close(*gradients, tolerance=1e-13)


def test_impossible_classes_cost_nothing() -> None:
    """A bias of -inf takes a class out."""
    bias = BIAS.copy()
    bias[2] = -np.inf
    labels = np.where(LABELS == 2, 0, LABELS)
    options = {"ignore_index": -100, "z_loss": 0.02, "reduction": "mean", "chunk_size": 4}

    def mean(hidden: Any, kernel: Any, bias: Any, labels: Any) -> jax.Array:
        return linear_softmax_cross_entropy(hidden, kernel, labels, bias=bias, **options)

    call = jax.value_and_grad(mean, (0, 1, 2))
    value, (of_hidden, of_kernel, of_bias) = call(HIDDEN, KERNEL, bias, labels)
    kept = np.arange(CLASSES) != 2
    renumbered = np.where(labels > 2, labels - 1, labels)
    close(
        (value, (of_hidden, of_kernel[:, kept], of_bias[kept])),
        call(HIDDEN, KERNEL[:, kept], BIAS[kept], renumbered),
    )
    assert not np.any(of_kernel[:, 2])
    assert of_bias[2] == 0


# Costs.


def abstract(*shapes: tuple[int, ...]) -> Iterator[jax.ShapeDtypeStruct]:
    return (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_memory(reduction: str) -> None:
    """Beside inputs and gradients: the kernel's gradient in float32, and chunks."""
    tokens, features, classes, size = 2048, 64, 16384, 64
    hidden, kernel = abstract((tokens, features), (features, classes))
    labels = jax.ShapeDtypeStruct((tokens,), jnp.int32)

    def loss(hidden: Any, kernel: Any, labels: Any) -> jax.Array:
        return linear_softmax_cross_entropy(
            hidden, kernel, labels, reduction=reduction, chunk_size=size
        ).mean()

    def bytes_of(f: Loss, wrt: Any) -> int:
        compiled = jax.jit(jax.value_and_grad(f, wrt)).lower(hidden, kernel, labels).compile()
        size: int = compiled.memory_analysis().temp_size_in_bytes
        return size

    def plain(hidden: Any, kernel: Any, labels: Any) -> jax.Array:
        logits = jnp.dot(hidden, kernel, preferred_element_type=jnp.float32)
        return softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    both = bytes_of(loss, (0, 1))
    of_kernel, of_chunk, of_hidden = (
        4 * n for n in (features * classes, size * classes, tokens * features)
    )
    # The product that is added to the kernel's gradient is a block here of the whole.
    assert both <= 2 * of_kernel + 3 * of_chunk + 3 * of_hidden
    assert both <= bytes_of(plain, (0, 1)) / 7
    assert bytes_of(loss, 0) <= 3 * of_chunk + 3 * of_hidden  # nothing of the kernel's


def equations_in(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """All of them, and how often they run in loops."""
    for equation in jaxpr.eqns:
        yield equation, times
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations_in(inner, times * equation.params.get("length", 1))


def flops(equation: Any) -> int:
    """Those of a product of matrices."""
    if equation.primitive.name != "dot_general":
        return 0
    (contracted, _), _ = equation.params["dimension_numbers"]
    terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2 * terms * equation.outvars[0].aval.size


def test_costs_of_a_large_vocabulary(backend: str) -> None:
    """Memory is a seventh of that of all logits; the rest is the kernel's gradient in float32."""
    if backend != "cpu":
        pytest.skip("the bound is of memory as the compiler for CPUs gives it out")
    tokens, features, classes = 8192, 2304, 262144
    hidden, kernel = abstract((tokens, features), (features, classes))
    labels = jax.ShapeDtypeStruct((tokens,), jnp.int32)

    def costs(loss: Loss) -> tuple[int, int]:
        traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(hidden, kernel, labels)
        memory: int = traced.lower().compile().memory_analysis().temp_size_in_bytes
        return memory, sum(times * flops(e) for e, times in equations_in(traced.jaxpr.jaxpr))

    def plain(hidden: Any, kernel: Any, labels: Any) -> jax.Array:
        logits = jnp.dot(hidden, kernel, preferred_element_type=jnp.float32)
        label_logits = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - label_logits)

    memory, least = costs(plain)
    assert least == 6 * tokens * features * classes
    for reduction, most in {"mean": 1, "none": 1.35}.items():
        found = costs(
            lambda *head, r=reduction: linear_softmax_cross_entropy(*head, reduction=r).mean()
        )
        assert found[0] <= memory / 7
        assert found[1] <= most * least


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", ["labels", "teacher"])
def test_all_logits_are_never_there(kind: str, reduction: str) -> None:
    """Nor a stack of the chunks' logits, also in second derivatives."""
    tokens, classes = 64, 48

    def loss(hidden: Any, kernel: Any) -> jax.Array:
        if kind == "teacher":
            heads = hidden, kernel, 2 * hidden, kernel
            return linear_distillation_jensen_shannon(
                *heads, reduction=reduction, chunk_size=8
            ).sum()
        labels = jnp.arange(tokens) % classes
        losses = linear_softmax_cross_entropy(
            hidden, kernel, labels, **OPTIONS, reduction=reduction, chunk_size=8
        )
        return jnp.sum(losses)

    def curved(hidden: Any, kernel: Any) -> Any:
        gradient = jax.grad(loss, (0, 1))
        along = (hidden, kernel)
        forward = jax.jvp(gradient, along, along)
        reverse = jax.grad(lambda h: jnp.vdot(gradient(h, kernel)[0], hidden))(hidden)
        return forward, reverse

    head = jnp.ones((tokens, 5)), jnp.ones((5, classes))
    equations = equations_in(jax.jit(curved).trace(*head).jaxpr.jaxpr)
    shapes = {variable.aval.shape for equation, _ in equations for variable in equation.outvars}
    assert (8, classes) in shapes
    assert max(math.prod(shape) for shape in shapes) < tokens * classes


def test_chunks_by_default() -> None:
    def chunks(tokens: int, features: int, classes: int) -> tuple[int, int]:
        head = _chunked_losses.Head(*abstract((tokens, features), (features, classes)), None)
        return tuple(_linear_heads.chunks_of("", head, None))

    assert chunks(8192, 2304, 262144) == (64, 128)  # a sixteenth of the kernel
    assert chunks(2048, 512, 32768) == (4, 512)  # 2**24 logits
    assert chunks(2**18, 1024, 2**17) == (128, 2048)  # as many as hidden has elements
    assert chunks(100, 8, 1000) == (1, 100)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"hidden": np.ones((TOKENS, FEATURES), int)}, TypeError, "hidden must be .* got int"),
        ({"kernel": np.ones((FEATURES, CLASSES), int)}, TypeError, "kernel must be .* got int"),
        ({"kernel": KERNEL.T}, ValueError, r"\(10, 4\) and kernel of shape \(7, 4\) .* transpose"),
        ({"kernel": KERNEL[None]}, TypeError, r"kernel of shape \(1, 4, 7\) must be"),
        ({"hidden": np.float32(1)}, ValueError, r"hidden of shape \(\) and kernel"),
        ({"bias": BIAS[:3]}, ValueError, r"bias of shape \(3,\) must have one value per class"),
        ({"bias": np.ones(CLASSES, int)}, TypeError, "bias must be of a real floating point"),
        ({"labels": LABELS[:5]}, ValueError, r"labels of shape \(5,\) .* per token, shape \(10,\)"),
        ({"labels": LABELS / 2}, TypeError, "labels must be of an integer dtype"),
        ({"soft_cap": 0.0}, ValueError, "soft_cap must be > 0; got 0.0"),
        ({"soft_cap": float("nan")}, ValueError, "soft_cap must be > 0"),
        ({"reduction": "max"}, ValueError, "reduction must be one of .'none'.*; got 'max'"),
        ({"reduction": None}, ValueError, "reduction must be one of"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be >= 1; got 0"),
        ({"chunk_size": 2.0}, TypeError, "chunk_size must be an int or None; got 2.0"),
        ({"chunk_size": True}, TypeError, "chunk_size must be an int or None; got True"),
    ],
)
def test_errors(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    given = {"hidden": HIDDEN, "kernel": KERNEL, "labels": LABELS, **arguments}
    with pytest.raises(kind, match=f"linear_softmax_cross_entropy: .*{message}"):
        linear_softmax_cross_entropy(**given)
