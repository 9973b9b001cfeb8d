"""Assignments against scipy's, which proves its own; forbidden pairs, dtypes, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from grad_losses import base_hungarian_algorithm, hungarian_algorithm

INF = jnp.inf
PROBLEMS = 75


@functools.cache
def compiled(dtype: object = jnp.float32):
    """Of a batch of matrices, in a dtype."""
    return jax.jit(jax.vmap(lambda cost: hungarian_algorithm(cost.astype(dtype))))


def pairs_of(costs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs of each matrix, after a check that they are pairs."""
    rows, columns = jax.device_get(compiled()(costs))
    assert rows.dtype == columns.dtype == np.int32
    assert rows.shape == columns.shape == (len(costs), min(costs.shape[1:]))
    found = []
    for i, j in zip(rows, columns, strict=True):
        np.testing.assert_array_equal(i >= 0, j >= 0)
        i, j = i[i >= 0], j[j >= 0]
        assert (np.diff(i) > 0).all()
        assert len(set(j)) == len(j)
        assert (i < costs.shape[1]).all()
        assert (j < costs.shape[2]).all()
        found.append((i, j))
    return found


def random_costs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Problems of many kinds: with ties and without, of either sign, of all sizes."""
    size = (PROBLEMS // 5, *shape)
    kinds = [
        rng.random(size),
        rng.normal(size=size) * 1e3 - 5e2,
        rng.integers(-4, 5, size=size),
        np.exp(5 * rng.normal(size=size)),
        rng.random((size[0], shape[0], 1)) * rng.random((size[0], 1, shape[1])),  # the worst case
    ]
    return np.concatenate(kinds).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 5), (6, 6), (9, 1), (12, 12), (8, 25)])
def test_no_assignment_is_cheaper(shape: tuple[int, int]) -> None:
    costs = random_costs(np.random.default_rng(0), shape)
    for cost, pairs in zip(costs.astype(np.float64), pairs_of(costs), strict=True):
        best = cost[linear_sum_assignment(cost)].sum()
        assert len(pairs[0]) == min(shape)
        np.testing.assert_allclose(cost[pairs].sum(), best, atol=1e-6 * np.abs(cost).max())


@pytest.mark.parametrize("shape", [(6, 6), (3, 5)])
def test_forbidden_pairs_are_avoided(shape: tuple[int, int]) -> None:
    """As far as can be, and then as cheaply as can be."""
    rng = np.random.default_rng(1)
    costs = random_costs(rng, shape)
    is_forbidden = rng.random(costs.shape) < rng.choice([0.3, 0.7, 0.9, 1.0], (len(costs), 1, 1))
    odd = rng.choice(np.array([INF, -INF, np.nan], np.float32), size=costs.shape, p=[0.8, 0.1, 0.1])
    found = pairs_of(np.where(is_forbidden, odd, costs))
    complete = 0
    for cost, forbidden, pairs in zip(costs, is_forbidden, found, strict=True):
        assert not forbidden[pairs].any()
        largest = np.abs(cost).max(initial=0.0, where=~forbidden)
        penalized = np.where(forbidden, 100 * largest + 1, cost.astype(np.float64))
        best = linear_sum_assignment(penalized)
        allowed = ~forbidden[best]
        assert len(pairs[0]) == allowed.sum()
        want = penalized[best][allowed].sum()
        np.testing.assert_allclose(penalized[pairs].sum(), want, atol=2e-5 * largest)
        complete += allowed.all()
    assert 0.1 < complete / len(costs) < 0.8


def test_both_names_and_the_transpose() -> None:
    cost = jnp.asarray(np.random.default_rng(2).random((4, 6)))
    i, j = hungarian_algorithm(cost)
    np.testing.assert_array_equal(base_hungarian_algorithm(cost), (i, j))
    order = np.argsort(j)
    np.testing.assert_array_equal(hungarian_algorithm(cost.T), (j[order], i[order]))


def test_costs_of_any_size_and_dtype() -> None:
    cost = np.random.default_rng(3).normal(size=(6, 6))
    integers = np.round(1000 * cost)
    cost[0, linear_sum_assignment(cost)[1][0]] = INF
    want = linear_sum_assignment(cost)[1]
    for scale in (1e-30, 1.0, 1e37):
        ((_, j),) = pairs_of(np.float32(scale * cost)[None])
        np.testing.assert_array_equal(j, want)
    for dtype in (jnp.bfloat16, jnp.int32):
        _, j = compiled(dtype)(integers[None])
        rounded = np.asarray(jnp.asarray(integers, dtype), np.float64)
        best = rounded[linear_sum_assignment(rounded)].sum()
        assert rounded[np.arange(6), j[0]].sum() == best
    np.testing.assert_array_equal(hungarian_algorithm([[True, False], [False, True]])[1], [1, 0])


def test_double_precision() -> None:
    """Costs that are equal in float32, where these are computed with by default."""
    with jax.enable_x64(True):
        for dtype, base in ((jnp.int64, 2**40), (jnp.float64, 1e12)):
            cost = base + jnp.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype)
            i, j = jax.device_get(jax.jit(hungarian_algorithm)(cost))
            assert cost[i, j].sum() == 3 * base
            assert i.dtype == j.dtype == np.int32


def test_the_gradient_is_that_of_the_chosen_costs() -> None:
    cost = jnp.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])

    def least(cost: jax.Array) -> jax.Array:
        return cost[hungarian_algorithm(cost)].sum()

    value, gradient = jax.jit(jax.value_and_grad(least))(cost)
    assert value == 5
    np.testing.assert_array_equal(gradient, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_empty() -> None:
    for shape in ((0, 0), (0, 3), (3, 0)):
        for found in hungarian_algorithm(jnp.zeros(shape)):
            assert (found.shape, found.dtype) == ((0,), jnp.int32)


@pytest.mark.parametrize("function", [hungarian_algorithm, base_hungarian_algorithm])
def test_errors(function) -> None:
    name = function.__name__
    with pytest.raises(ValueError, match=rf"{name}: cost_matrix .* got \(3,\)\. .*jax\.vmap"):
        function(jnp.ones(3))
    with pytest.raises(TypeError, match=rf"{name}: .* got \(2, 3, 3\)"):
        function(jnp.ones((2, 3, 3)))
    with pytest.raises(TypeError, match=f"{name}: cost_matrix must be real; got complex64"):
        function(jnp.ones((2, 2)) * 1j)
