"""Losses of linear heads over a mesh: as without one, and the kernel stays where it is."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grad_losses import (
    linear_distillation_jensen_shannon,
    linear_distillation_kl_divergence,
    linear_softmax_cross_entropy,
)

P = PartitionSpec
RNG = np.random.default_rng(0)
TOKENS, FEATURES, CLASSES = 32, 8, 48
HIDDEN = RNG.normal(size=(TOKENS, FEATURES)).astype(np.float32)
KERNEL = RNG.normal(size=(FEATURES, CLASSES)).astype(np.float32)
BIAS = RNG.normal(size=CLASSES).astype(np.float32)
LABELS = RNG.integers(CLASSES, size=TOKENS)
LABELS[5] = -1
OPTIONS: dict[str, Any] = {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.01}
WEIGHTS = np.arange(TOKENS, dtype=np.float32)

SPECS = {  # of tokens, and of the kernel
    "classes": (P(), P(None, "model")),
    "both": (P("data"), P(None, "model")),
    "tokens": (P("data"), P()),
    "features": (P(), P("model", None)),
}


@contextlib.contextmanager
def placing(mesh: jax.sharding.Mesh) -> Iterator[Any]:
    is_explicit = AxisType.Explicit in mesh.axis_types
    with jax.set_mesh(mesh) if is_explicit else contextlib.nullcontext():
        yield lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))


def everything(reduction: str, hidden: Any, kernel: Any, bias: Any, labels: Any) -> Any:
    """Value, gradients, and a product with the Hessian."""

    def f(*head: jax.Array) -> jax.Array:
        hidden, kernel, bias = head
        losses = linear_softmax_cross_entropy(
            hidden, kernel, labels, bias=bias, **OPTIONS, reduction=reduction, chunk_size=8
        )
        return jnp.sum(losses * WEIGHTS) if reduction == "none" else losses

    head = hidden, kernel, bias
    gradient = jax.grad(f, (0, 1, 2))
    return f(*head), gradient(*head), jax.jvp(gradient, head, head)[1]


@functools.cache
def unsharded(reduction: str) -> Any:
    return jax.jit(everything, static_argnums=0)(reduction, HIDDEN, KERNEL, BIAS, LABELS)


def close(found: Any, wanted: Any) -> None:
    def near(a: Any, b: Any) -> None:  # sums in another order, of numbers up to the largest
        atol = 2e-6 * max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol)

    jax.tree.map(near, found, wanted)


def gathered(text: str) -> list[int]:
    """The sizes of what a compiled program gathers from several devices."""
    shapes = re.findall(r"\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)", text)
    return [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("spec", SPECS)
def test_as_without_a_mesh(mesh: jax.sharding.Mesh, spec: str, reduction: str) -> None:
    of_tokens, of_kernel = SPECS[spec]
    of_bias = P(*of_kernel[1:])
    with placing(mesh) as place:
        placed = (
            place(HIDDEN, of_tokens),
            place(KERNEL, of_kernel),
            place(BIAS, of_bias),
            place(LABELS, of_tokens),
        )
        compiled = jax.jit(everything, static_argnums=0).lower(reduction, *placed).compile()
        value, gradients, curvature = compiled(*placed)
    close((value, gradients, curvature), unsharded(reduction))
    assert gradients[1].sharding.is_equivalent_to(placed[1].sharding, 2)
    if spec in ("classes", "both"):  # neither the kernel is gathered nor logits of a chunk
        assert max(gathered(compiled.as_text()), default=0) < 8 * CLASSES


def distilled(hidden: Any, kernel: Any, bias: Any, *teacher: Any) -> Any:
    def f(*head: Any) -> jax.Array:
        heads = head[0], head[1], *teacher
        losses = linear_distillation_jensen_shannon(*heads, bias=head[2], chunk_size=8)
        mean = linear_distillation_kl_divergence(
            *heads, bias=head[2], reverse=True, reduction="mean", chunk_size=8
        )
        return jnp.sum(losses * WEIGHTS) + mean

    return jax.value_and_grad(f, (0, 1, 2))(hidden, kernel, bias)


def test_distillation_as_without_a_mesh(mesh: jax.sharding.Mesh) -> None:
    teacher = np.float32(RNG.normal(size=(TOKENS, 6))), np.float32(RNG.normal(size=(6, CLASSES)))
    arguments = HIDDEN, KERNEL, BIAS, *teacher
    specs = P("data"), P(None, "model"), P("model"), P("data"), P(None, "model")
    with placing(mesh) as place:
        placed = tuple(map(place, arguments, specs))
        compiled = jax.jit(distilled).lower(*placed).compile()
        found = compiled(*placed)
    close(found, jax.jit(distilled)(*arguments))
    assert found[1][1].sharding.is_equivalent_to(placed[1].sharding, 2)
    assert max(gathered(compiled.as_text()), default=0) < 8 * CLASSES


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_inside_a_shard_map_over_tokens(mesh: jax.sharding.Mesh, reduction: str) -> None:
    """The kernel's gradient is then summed over devices once, outside the loop over chunks."""

    def local(hidden: Any, kernel: Any, bias: Any, labels: Any) -> jax.Array:
        losses = linear_softmax_cross_entropy(
            hidden, kernel, labels, bias=bias, **OPTIONS, reduction=reduction, chunk_size=4
        )
        return jax.lax.psum(jnp.sum(losses), "data") / np.sum(LABELS != -1)

    specs = (P("data"), P(), P(), P("data"))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
    arguments = (HIDDEN, KERNEL, BIAS, LABELS)
    with placing(mesh) as place:
        placed = tuple(map(place, arguments, specs))
        compiled = jax.jit(jax.grad(mapped, (0, 1, 2))).lower(*placed).compile()
        found = compiled(*placed)
    close(found, unsharded("mean")[1])
    lines = compiled.as_text().splitlines()
    reduced = [line for line in lines if re.search(r" all-reduce(-start)?\(", line)]
    assert reduced
    assert not any("while/body" in line for line in reduced)
