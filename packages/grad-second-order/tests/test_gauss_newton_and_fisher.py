"""Gauss-Newton and Fisher matrices: products, diagonals and estimates against the whole."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import grad_second_order as gso

RNG = np.random.default_rng(0)
PARAMS = {
    "b": jnp.asarray(RNG.normal(size=3), jnp.float32),
    "w": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32),
}
FLAT, UNRAVEL = ravel_pytree(PARAMS)
INPUTS = jnp.asarray(RNG.normal(size=(5, 2)), jnp.float32)
LABELS = jnp.array([0, 2, 1, 1, 0])
CATEGORICAL = gso.categorical_likelihood()


def linear(params: dict, inputs: jax.Array) -> jax.Array:
    return inputs @ params["w"] + params["b"]


def curved(params: dict, inputs: jax.Array) -> jax.Array:
    return jnp.tanh(linear(params, inputs)) * 2 + params["b"] ** 2


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(CATEGORICAL.negative_log_likelihood(logits, labels))


def whole(operator: Callable[[Any], Any]) -> jax.Array:
    """The matrix, column by column."""
    return jax.vmap(lambda e: ravel_pytree(operator(UNRAVEL(e)))[0])(jnp.eye(FLAT.size))


def jacobian(model: Callable[[dict, jax.Array], jax.Array]) -> jax.Array:
    """Of shape (examples, outputs, P)."""
    return jax.jacrev(lambda x: model(UNRAVEL(x), INPUTS))(FLAT)


def close(found: object, want: object) -> None:
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_gauss_newton_matrix_of_linear_models_is_the_hessian() -> None:
    @jax.jit
    def compute(params: dict) -> tuple:
        ggn = gso.ggn_operator(linear, cross_entropy, params, INPUTS, LABELS)
        return whole(ggn), jax.hessian(lambda x: cross_entropy(linear(UNRAVEL(x), INPUTS), LABELS))(
            FLAT
        )

    close(*compute(PARAMS))


def test_matrices_and_exact_diagonals() -> None:
    @jax.jit
    def compute(params: dict) -> tuple:
        data = params, INPUTS, LABELS
        products = (
            gso.ggn_operator(curved, cross_entropy, *data),
            gso.fisher_operator(curved, CATEGORICAL, params, INPUTS),
        )
        diagonals = (
            gso.ggn_diagonal(curved, cross_entropy, *data, chunk_size=4),
            gso.fisher_diagonal(curved, CATEGORICAL, params, INPUTS, chunk_size=100),
        )
        j = jacobian(curved)
        p = jax.nn.softmax(curved(params, INPUTS))
        # The expectation over all labels, each with its probability, of outer products.
        scores = p[:, None, :] - jnp.eye(3)  # (examples, labels, outputs)
        g = jnp.einsum("nyc,ncp->nyp", scores, j)
        want = jnp.einsum("ny,nyp,nyq->pq", p, g, g) / 5
        return [whole(m) for m in products], diagonals, want

    matrices, diagonals, want = compute(PARAMS)
    for matrix in matrices:
        close(matrix, want)
    for diagonal in diagonals:
        assert jax.tree.map(jnp.shape, diagonal) == {"b": (3,), "w": (2, 3)}
        close(ravel_pytree(diagonal)[0], jnp.diag(want))


def test_empirical_fisher_is_the_mean_of_squares_not_the_square_of_the_mean() -> None:
    def loss(params: dict, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(curved(params, inputs), labels)

    @jax.jit
    def compute(params: dict) -> tuple:
        data = params, INPUTS, LABELS
        g = [jax.grad(loss)(params, INPUTS[n : n + 1], LABELS[n : n + 1]) for n in range(5)]
        return (
            jnp.stack([ravel_pytree(one)[0] for one in g]),
            whole(gso.empirical_fisher_operator(loss, *data)),
            gso.empirical_fisher_diagonal(loss, *data),
            gso.fisher_diag(loss, *data, chunk_size=2),
            gso.per_example_gradient_norms(loss, *data, chunk_size=2),
            gso.gradient_variance(loss, *data, chunk_size=3),
        )

    g, matrix, diagonal, flat_diagonal, norms, variance = compute(PARAMS)
    g = np.asarray(g, np.float64)
    close(matrix, g.T @ g / 5)
    close(ravel_pytree(diagonal)[0], np.mean(g**2, axis=0))
    close(flat_diagonal, np.mean(g**2, axis=0))
    assert not np.allclose(flat_diagonal, np.mean(g, axis=0) ** 2, rtol=0.5)
    close(norms, np.linalg.norm(g, axis=1))
    close(ravel_pytree(variance)[0], np.var(g, axis=0))


def test_variances_do_not_cancel_and_squares_of_float16_survive() -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(x * w)

    x = jnp.array([1e4, 1e4 + 1, 1e4 + 2])
    np.testing.assert_allclose(gso.gradient_variance(loss, jnp.zeros(()), x), 2 / 3, rtol=1e-4)
    half = jnp.array([300.0, 0.001], jnp.float16)
    np.testing.assert_allclose(
        gso.per_example_gradient_norms(loss, jnp.zeros((), jnp.float16), half), half, rtol=1e-3
    )
    found = gso.empirical_fisher_diagonal(loss, jnp.zeros((), jnp.float16), half)
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, 45000, rtol=1e-3)  # the sum would be infinite


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian"])
def test_likelihoods(name: str) -> None:
    """Fisher by outputs: the Hessian; and the mean of outer products of scores of samples."""
    likelihood = {
        "categorical": gso.categorical_likelihood(),
        "bernoulli": gso.bernoulli_likelihood(),
        "gaussian": gso.gaussian_likelihood(0.3),
    }[name]
    outputs = jnp.array([[[0.3, -1.0, 0.8], [0.1, 0.2, 2.0]]])  # one example

    @jax.jit
    def compute(keys: jax.Array) -> tuple:
        y = likelihood.sample(keys[0], outputs)

        def score(key: jax.Array) -> jax.Array:
            y = likelihood.sample(key, outputs)
            return jax.grad(lambda z: likelihood.negative_log_likelihood(z, y)[0])(outputs).ravel()

        def product(e: jax.Array) -> jax.Array:
            return likelihood.fisher(outputs, e.reshape(outputs.shape)).ravel()

        hessian = jax.hessian(lambda z: likelihood.negative_log_likelihood(z, y)[0])(outputs)
        return jax.vmap(product)(jnp.eye(6)), hessian.reshape(6, 6), jax.vmap(score)(keys)

    fisher, hessian, scores = compute(jax.random.split(jax.random.key(1), 4000))
    close(fisher, hessian)
    outer = np.einsum("sa,sb->sab", scores, scores)
    error = np.abs(np.mean(outer, axis=0) - fisher)
    assert np.all(error <= 5 * np.std(outer, axis=0) / np.sqrt(4000) + 1e-6)


@pytest.mark.full
def test_monte_carlo_estimates_are_unbiased() -> None:
    data = PARAMS, INPUTS, LABELS
    one, ones = jax.random.key(0), UNRAVEL(jnp.ones(FLAT.size))

    @jax.jit
    def compute(keys: jax.Array) -> tuple:
        def estimates(key: jax.Array) -> tuple:
            model = curved, CATEGORICAL, PARAMS, INPUTS
            flats = (
                gso.monte_carlo_ggn_diagonal(curved, cross_entropy, *data, key=key),
                gso.gauss_newton_bartlett_diagonal(*model, key=key),
                gso.monte_carlo_fisher_operator(*model, key=key, num_samples=2)(ones),
            )
            return jax.tree.map(lambda *x: jnp.stack(x), *flats)

        ggn = gso.ggn_operator(curved, cross_entropy, *data)
        diagonal = gso.exact_diagonal(ggn, PARAMS)
        want = jax.tree.map(lambda *x: jnp.stack(x), diagonal, diagonal, ggn(ones))
        return jax.vmap(estimates)(keys), want

    found, want = compute(jax.random.split(one, 4000))
    for name in PARAMS:
        samples = np.asarray(found[name], np.float64)
        error = np.abs(samples.mean(axis=0) - want[name])
        assert np.all(error <= 5 * samples.std(axis=0) / np.sqrt(4000))
        assert np.all(samples[:, 1] >= 0)


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"ggn_operator: loss must return one real number"):
        gso.ggn_operator(curved, CATEGORICAL.negative_log_likelihood, PARAMS, INPUTS, LABELS)
    with pytest.raises(ValueError, match=r"ggn_diagonal: the first axis .* \[\(5, 2\), \(4,\)\]"):
        gso.ggn_diagonal(curved, lambda z, y: jnp.mean(z), PARAMS, INPUTS, LABELS[:4])
    with pytest.raises(ValueError, match=r"fisher_diag: the first axis"):
        gso.fisher_diag(lambda p, x, y: jnp.sum(p) * y, jnp.ones(1), INPUTS, 1.0)
    with pytest.raises(ValueError, match=r"per_example_gradient_norms: .*\[\(0, 2\)\]"):
        gso.per_example_gradient_norms(lambda p, x: jnp.sum(p) * jnp.sum(x), 1.0, INPUTS[:0])
    with pytest.raises(ValueError, match=r"fisher_operator: .* outputs of shape \(3,\) and inputs"):
        gso.fisher_operator(lambda p, x: p["b"], CATEGORICAL, PARAMS, INPUTS)
    with pytest.raises(ValueError, match=r"num_samples must be an integer, at least 1; got 0"):
        gso.gauss_newton_bartlett_diagonal(
            curved, CATEGORICAL, PARAMS, INPUTS, key=jax.random.key(0), num_samples=0
        )
    with pytest.raises(ValueError, match=r"gaussian_likelihood: variance must be > 0; got 0"):
        gso.gaussian_likelihood(0)
    with pytest.raises(ValueError, match=r"fisher_operator: .* has no counterpart in v"):
        gso.fisher_operator(curved, CATEGORICAL, PARAMS, INPUTS)({"b": PARAMS["b"]})
