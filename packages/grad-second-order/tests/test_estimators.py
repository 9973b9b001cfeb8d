"""Traces and diagonals from random vectors: variances, orderings by spectrum, low ranks, errors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_second_order as gso

SQUARE = np.random.default_rng(0).normal(size=(5, 5))
MATRIX = jnp.asarray(SQUARE + SQUARE.T, jnp.float32)


def times(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    return lambda v: jnp.matmul(matrix, v, precision=jax.lax.Precision.HIGHEST)


def agrees_in_mean_and_variance(samples: np.ndarray, mean: object, variance: object) -> None:
    """Within five standard errors, of both."""
    root = np.sqrt(len(samples))
    deviations = (samples - np.asarray(mean)) ** 2
    assert np.all(np.abs(samples.mean(0) - mean) <= 5 * samples.std(0) / root + 1e-5)
    assert np.all(np.abs(deviations.mean(0) - variance) <= 5 * deviations.std(0) / root + 1e-5)


def test_variances() -> None:
    @jax.jit
    @jax.vmap
    def compute(key: jax.Array) -> tuple:
        like = jnp.zeros(5)
        return (
            gso.hutchinson_trace(times(MATRIX), like, key),
            gso.hutchinson_trace(
                times(MATRIX), like, key, num_samples=3, distribution="normal", chunk_size=2
            ),
            gso.hutchinson_diagonal(times(MATRIX), like, key),
            gso.hutchinson_diagonal(times(MATRIX), like, key, distribution="normal"),
        )

    keys = jax.random.split(jax.random.key(0), 20_000)
    by_signs, by_normals, diagonal, normal_diagonal = (
        np.asarray(x, np.float64) for x in compute(keys)
    )
    a = np.asarray(MATRIX, np.float64)
    d, squares = np.diag(a), np.sum(a**2)
    rest = np.sum(a**2, axis=1) - d**2
    agrees_in_mean_and_variance(by_signs, np.trace(a), 2 * (squares - np.sum(d**2)))
    agrees_in_mean_and_variance(by_normals, np.trace(a), 2 * squares / 3)  # three samples
    agrees_in_mean_and_variance(diagonal, d, rest)
    agrees_in_mean_and_variance(normal_diagonal, d, rest + 2 * d**2)


ESTIMATES = ("hutchinson", "hutch++", "xtrace", "diagonal", "xdiag")


def relative_errors(spectrum: np.ndarray, trials: int = 40) -> dict[str, float]:
    """Root mean square errors of all estimates with 60 products, over the norm of the truth."""
    size = len(spectrum)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(size, size)))
    matrix = jnp.asarray(rotation * spectrum @ rotation.T, jnp.float32)
    found = estimates(matrix, jax.random.split(jax.random.key(4), trials))
    truth = {"trace": spectrum.sum(), "diagonal": np.diag(rotation * spectrum @ rotation.T)}
    errors = {}
    for name, samples in found.items():
        want = truth["diagonal" if samples.ndim == 2 else "trace"]
        error = np.asarray(samples, np.float64) - want
        errors[name] = float(np.sqrt(np.sum(error**2) / trials / np.sum(want**2)))
    return errors


@jax.jit
def estimates(matrix: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
    arguments = times(matrix), jnp.zeros(len(matrix))

    def one(key: jax.Array) -> dict[str, jax.Array]:
        return {
            "hutchinson": gso.hutchinson_trace(*arguments, key, num_samples=60, chunk_size=60),
            "hutch++": gso.hutch_plus_plus(*arguments, key, num_products=60, chunk_size=30),
            "xtrace": gso.xtrace(*arguments, key, num_products=60, chunk_size=30),
            "diagonal": gso.hutchinson_diagonal(*arguments, key, num_samples=60, chunk_size=60),
            "xdiag": gso.xdiag(*arguments, key, num_products=60, chunk_size=30),
        }

    return jax.lax.map(one, keys)


@pytest.mark.full
@pytest.mark.parametrize(
    ("spectrum", "expected"),
    [
        (lambda i: i**-2.0, (1.2e-1, 1.8e-3, 1.0e-3, 8.6e-1, 9.8e-3)),
        (lambda i: 0.9**i, (3.8e-2, 1.4e-2, 7.3e-3, 3.8e-1, 7.2e-2)),
        (lambda i: 1 + 2 * i / 200, (3.7e-3, 8.6e-3, 1.1e-2, 3.7e-2, 1.1e-1)),
    ],
    ids=["inverse squares", "geometric", "flat"],
)
def test_which_estimate_wins_on_which_spectrum(
    spectrum: Callable[[np.ndarray], np.ndarray], expected: tuple[float, ...]
) -> None:
    """The expected errors were measured apart from this code."""
    errors = relative_errors(spectrum(np.arange(1, 201, dtype=np.float64)))
    for name, want in zip(ESTIMATES, expected, strict=True):
        # Those of XTrace were without its lengths of sqrt(P - k + 1), which help on flat spectra.
        least = 0 if name == "xtrace" else 0.6
        assert least * want < errors[name] < 1.6 * want
    if spectrum(np.array([2.0]))[0] < 1:  # it decays
        assert errors["xtrace"] < errors["hutch++"] < errors["hutchinson"]
        assert errors["xdiag"] < errors["diagonal"]
    else:
        assert errors["hutchinson"] < min(errors["hutch++"], errors["xtrace"])
        assert errors["diagonal"] < errors["xdiag"]


@pytest.mark.full
def test_sketches_are_unbiased() -> None:
    @jax.jit
    @jax.vmap
    def compute(key: jax.Array) -> tuple:
        arguments = times(MATRIX), jnp.zeros(5), key
        return (
            gso.hutch_plus_plus(*arguments, num_products=6),
            gso.xtrace(*arguments, num_products=4),
            gso.xdiag(*arguments, num_products=4),
        )

    keys = jax.random.split(jax.random.key(5), 4000)
    truth = float(jnp.trace(MATRIX)), float(jnp.trace(MATRIX)), np.diag(np.asarray(MATRIX))
    for samples, want in zip(compute(keys), truth, strict=True):
        samples = np.asarray(samples, np.float64)
        error = np.abs(samples.mean(0) - want)
        assert np.all(error <= 5 * samples.std(0) / np.sqrt(4000))


def test_low_ranks_and_zero_are_exact() -> None:
    """More vectors than the rank: nothing is left to estimate, and nothing is NaN."""
    u = jnp.asarray(np.random.default_rng(3).normal(size=(2, 20)), jnp.float32)

    @jax.jit
    def compute(scale: jax.Array, key: jax.Array) -> tuple:
        arguments = times(scale * u.T @ u), jnp.zeros(20), key
        return (
            gso.hutch_plus_plus(*arguments, num_products=60),
            gso.xtrace(*arguments, num_products=40),
            gso.xdiag(*arguments, num_products=40),
        )

    for scale in (1.0, 0.0, 1e-30):
        plus_plus, x, diagonal = compute(scale, jax.random.key(6))
        trace = scale * float(jnp.sum(u**2))
        np.testing.assert_allclose(plus_plus, trace, rtol=1e-4)
        np.testing.assert_allclose(x, trace, rtol=1e-4)
        np.testing.assert_allclose(
            diagonal, scale * jnp.sum(u**2, 0), rtol=1e-3, atol=1e-5 * max(scale, 1e-35)
        )


def test_hutchinson_estimate_of_a_hessian() -> None:
    @jax.jit
    def compute(key: jax.Array) -> tuple:
        def loss(p: dict, x: jax.Array) -> jax.Array:
            return jnp.sum(p["a"] ** 2 * x) * p["b"]

        params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
        estimate = jax.vmap(
            lambda key: gso.hutchinson_hessian_diagonal(loss, params, 2.0, key=key)
        )(jax.random.split(key, 20_000))
        return estimate, gso.hessian_diagonal(loss, params, 2.0)

    samples, want = compute(jax.random.key(7))
    # u1 (12 u1 + 4 u3): variance 2 * 12**2 + 4**2.
    agrees_in_mean_and_variance(np.asarray(samples["a"], float), want["a"], [304, 352])
    np.testing.assert_array_equal(want["a"], [12, 12])


def test_errors() -> None:
    arguments = times(MATRIX), jnp.zeros(5), jax.random.key(0)
    with pytest.raises(ValueError, match=r"hutchinson_trace: num_samples must be .* got 0"):
        gso.hutchinson_trace(*arguments, num_samples=0)
    with pytest.raises(ValueError, match=r"distribution must be 'rademacher' or 'normal'; got 'x'"):
        gso.hutchinson_diagonal(*arguments, distribution="x")
    for estimate in (gso.xtrace, gso.xdiag):
        for bad in (3, 12, 0, 2.0, True):
            with pytest.raises(
                ValueError, match=rf"{estimate.__name__}: num_products .* got {bad}"
            ):
                estimate(*arguments, num_products=bad)
    with pytest.raises(ValueError, match=r"multiple of 3 and at most 3 times .* 15; got 18"):
        gso.hutch_plus_plus(*arguments, num_products=18)
    with pytest.raises(ValueError, match=r"like\['a'\] has no counterpart in operator\(like\)"):
        gso.hutchinson_trace(lambda v: {"b": v["a"]}, {"a": jnp.zeros(2)}, jax.random.key(0))
