"""Parity with torch.nn.functional, whose results tools/torch_losses.py recorded.

A recording holds cases of one family. For each of torch's functions, the function of its name here
takes its arguments and calls ours, and so says, where conventions differ, what torch's would be.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_losses as ours

# `tools/torch_losses.py --check` names another folder, written just now.
RECORDED = Path(os.environ.get("TORCH_RECORDINGS") or Path(__file__).with_name("recorded"))


class Case(NamedTuple):
    """One of torch's calls, and what came of it."""

    function: str
    inputs: dict[str, np.ndarray]
    arguments: dict[str, Any]
    wrt: list[str]
    value: np.ndarray
    gradients: list[np.ndarray]


def read(path: Path) -> Iterator[tuple[str, Case]]:
    """The cases of a recording, by name."""
    with np.load(path) as recording:
        arrays = dict(recording)
    rests = {"inputs": arrays["inputs"], "results": arrays["results"]}

    def take(rest: str, shape: list[int], dtype: str = "float64") -> np.ndarray:
        size = int(np.prod(shape))
        taken, rests[rest] = rests[rest][:size], rests[rest][size:]
        return taken.reshape(shape).astype(dtype)

    for about in json.loads(str(arrays["about"])):
        inputs = {name: take("inputs", shape, dtype) for name, dtype, shape in about["inputs"]}
        value = take("results", about["shape"])
        gradients = [take("results", list(inputs[name].shape)) for name in about["wrt"]]
        rest = (about["arguments"], about["wrt"], value, gradients)
        yield about["name"], Case(about["function"], inputs, *rest)
    assert not any(len(rest) for rest in rests.values())


CASES = {
    f"{path.stem}:{name}": case
    for path in sorted(RECORDED.glob("torch-*.npz"))
    for name, case in read(path)
}


# Losses of real predictions.


def l1_loss(input: Any, target: Any) -> jax.Array:
    return ours.l1_loss(input, target)


def mse_loss(input: Any, target: Any) -> jax.Array:
    return ours.squared_error(input, target)


def huber_loss(input: Any, target: Any, delta: float) -> jax.Array:
    return ours.huber_loss(input, target, delta=delta)


def smooth_l1_loss(input: Any, target: Any, beta: float = 1.0) -> jax.Array:
    return ours.smooth_l1_loss(input, target, beta=beta)


# Likelihoods.


def gaussian_nll_loss(input: Any, target: Any, var: Any, **arguments: Any) -> jax.Array:
    return ours.gaussian_nll_loss(input, target, var, **arguments)


def poisson_nll_loss(input: Any, target: Any, **arguments: Any) -> jax.Array:
    return ours.poisson_nll_loss(input, target, **arguments)


# Cross entropies.


def cross_entropy(input: Any, target: Any, weight: Any = None, **arguments: Any) -> jax.Array:
    return ours.softmax_cross_entropy_with_integer_labels(
        input, target, class_weights=weight, **arguments
    )


def linear_cross_entropy(
    hidden: Any, kernel: Any, target: Any, weight: Any, **arguments: Any
) -> jax.Array:
    return ours.linear_softmax_cross_entropy(
        hidden, kernel, target, class_weights=weight, chunk_size=2, **arguments
    )


# Margins.


def margin_ranking_loss(first: Any, second: Any, target: Any, margin: float = 0.0) -> jax.Array:
    return ours.margin_ranking_loss(first, second, target, margin=margin)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0) -> jax.Array:
    return ours.hinge_embedding_loss(input, target, margin=margin)


def cosine_embedding_loss(first: Any, second: Any, target: Any, margin: float = 0.0) -> jax.Array:
    return ours.cosine_embedding_loss(first, second, target, margin=margin)


def triplet_margin_loss(a: Any, p_: Any, n: Any, eps: float, p: float = 2, margin: float = 1.0):
    """torch adds its eps to differences, ours to their powers."""
    assert eps == 0
    return ours.triplet_margin_loss(a, p_, n, norm_degree=p, margin=margin, eps=0.0)


def triplet_of_norms(*embeddings: Any, **arguments: Any) -> jax.Array:
    return ours.triplet_margin_with_distance_loss(*embeddings, **arguments)


def triplet_margin_with_distance_loss(*embeddings: Any, **arguments: Any) -> jax.Array:
    """torch's distance adds 1e-6 to differences."""

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.linalg.norm(x - y + 1e-6, axis=-1)

    return ours.triplet_margin_with_distance_loss(*embeddings, distance=distance, **arguments)


def multi_margin_loss(input: Any, target: Any, p: int = 1, margin: float = 1.0) -> jax.Array:
    return ours.multi_margin_loss(input, target, degree=p, margin=margin)


def weighted_multi_margin(input: Any, target: Any, weight: Any, p: int) -> jax.Array:
    return ours.multi_margin_loss(input, target, degree=p, class_weights=weight)


def multilabel_margin_loss(input: Any, target: Any) -> jax.Array:
    """Labels are a list of classes in torch, that a negative one ends; ours are indicators."""
    indicators = np.zeros(input.shape, int)
    for row, listed in zip(indicators, target, strict=True):
        row[list(itertools.takewhile(lambda label: label >= 0, listed))] = 1
    return ours.multi_label_margin_loss(input, indicators)


def multilabel_soft_margin_loss(input: Any, target: Any) -> jax.Array:
    return ours.multi_label_soft_margin_loss(input, target)


def weighted_multilabel_soft_margin(input: Any, target: Any, weight: Any) -> jax.Array:
    return ours.multi_label_soft_margin_loss(input, target, class_weights=weight)


def soft_margin_loss(input: Any, target: Any) -> jax.Array:
    return ours.soft_margin_loss(input, target)


# Sequences.


def ctc(
    logits: Any, labels: Any, frames: Any, lengths: Any, blank: int, zero_infinity: bool
) -> jax.Array:
    """torch has lengths for paddings, and 0 for labels that do not fit into the frames."""
    assert zero_infinity
    is_padded = np.arange(logits.shape[1]) >= frames[:, None]
    is_no_label = np.arange(labels.shape[1]) >= lengths[:, None]
    loss = ours.ctc_loss(logits, is_padded, labels, is_no_label, blank_id=blank)
    return jnp.where(loss < 5e4, loss, 0)


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    case = CASES[name]
    loss: Callable[..., jax.Array] = globals()[case.function]

    def weighted(chosen: dict[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        value = loss(*(case.inputs | chosen).values(), **case.arguments)
        weights = 1 + np.arange(value.size) / value.size
        return jnp.vdot(weights, value), value

    chosen = {name: jnp.asarray(case.inputs[name]) for name in case.wrt}
    gradients, value = jax.jit(jax.grad(weighted, has_aux=True))(chosen)
    assert value.shape == case.value.shape
    np.testing.assert_allclose(value, case.value, rtol=1e-12, atol=1e-12)
    for name, gradient in zip(case.wrt, case.gradients, strict=True):
        np.testing.assert_allclose(
            gradients[name], gradient, rtol=1e-11, atol=1e-11, err_msg=f"gradient of {name}"
        )
