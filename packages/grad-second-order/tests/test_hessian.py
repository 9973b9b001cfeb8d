"""Products with Hessians and their diagonals: against the whole Hessian; memory; errors."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from grad_second_order import exact_diagonal, hessian_diag, hessian_diagonal, hessian_operator, hvp


def loss(params: dict, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    hidden = jnp.tanh(inputs @ params["w1"] + params["b"])
    log_p = jax.nn.log_softmax(hidden @ params["w2"])
    return -jnp.mean(jnp.take_along_axis(log_p, targets[:, None], axis=1))


def problem(inputs: int = 4, hidden: int = 3, dtype: str = "float32") -> tuple:
    rng = np.random.default_rng(0)
    params = {
        "w1": rng.normal(size=(inputs, hidden)),
        "b": rng.normal(size=hidden),
        "w2": rng.normal(size=(hidden, 3)),
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    return params, jnp.asarray(rng.normal(size=(5, inputs)), dtype), jnp.arange(5) % 3


@pytest.fixture
def enable_x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def test_against_the_whole_hessian_in_float64(enable_x64: None) -> None:
    params, inputs, targets = problem(dtype="float64")
    flat, unravel = ravel_pytree(params)
    vectors = jnp.asarray(np.random.default_rng(1).normal(size=(2, flat.size)))

    @jax.jit
    def compute(params: dict) -> tuple:
        whole = jax.hessian(lambda x: loss(unravel(x), inputs, targets))(flat)
        product = hessian_operator(loss, params, inputs, targets)
        return (
            whole,
            jax.vmap(product)(jax.vmap(unravel)(vectors)),
            hvp(loss, vectors[0], params, inputs, targets),
            hessian_diagonal(loss, params, inputs, targets),
            # With a remainder, and one by one.
            hessian_diag(loss, params, inputs, targets, chunk_size=7),
            hessian_diag(loss, params, inputs, targets, chunk_size=1),
        )

    whole, products, product, diagonal, in_sevens, one_by_one = compute(params)
    products = jax.vmap(lambda p: ravel_pytree(p)[0])(products)
    np.testing.assert_allclose(products, vectors @ whole, rtol=1e-12, atol=1e-14)
    assert jax.tree.structure(product) == jax.tree.structure(params)
    np.testing.assert_allclose(ravel_pytree(product)[0], whole @ vectors[0], atol=1e-14)
    for found in (diagonal, product):
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
    for flat_diagonal in (ravel_pytree(diagonal)[0], in_sevens, one_by_one):
        assert flat_diagonal.dtype == jnp.float64
        np.testing.assert_allclose(flat_diagonal, jnp.diag(whole), rtol=1e-12, atol=1e-14)


def test_trees_and_dtypes_are_kept() -> None:
    params = {"a": (jnp.ones(2, jnp.bfloat16), None), "b": jnp.full((1, 2), 3.0), "c": 2.0}

    def cubes(p: dict) -> jax.Array:
        return sum(
            jnp.sum(x.astype(jnp.float32) ** 3) for x in map(jnp.asarray, jax.tree.leaves(p))
        )

    found = hessian_diagonal(cubes, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert found["a"][0].dtype == jnp.bfloat16
    assert found["b"].dtype == jnp.float32
    np.testing.assert_array_equal(found["a"][0].astype(float), [6, 6])
    np.testing.assert_array_equal(found["b"], [[18, 18]])
    assert found["c"] == 12


def test_losses_with_a_derivative_of_their_own() -> None:
    @jax.custom_vjp
    def square(x: jax.Array) -> jax.Array:
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (3 * x * g,))  # not the true one: 3 x
    found = hessian_diagonal(lambda p: jnp.sum(square(p)), jnp.ones(2))
    np.testing.assert_array_equal(found, [3, 3])


def temporary_memory(hidden: int, chunk_size: int = 64) -> int:
    """Bytes, for a net with 64 inputs, 16 outputs and so 80 * hidden parameters."""
    shape = jax.ShapeDtypeStruct
    params = {"w1": shape((64, hidden), "float32"), "w2": shape((hidden, 16), "float32")}

    def net_loss(params: dict, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(params | {"b": 0.0}, inputs, targets)

    def compute(params: dict, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return hessian_diag(net_loss, params, inputs, targets, chunk_size=chunk_size)

    batch = shape((32, 64), "float32"), shape((32,), "int32")
    return jax.jit(compute).lower(params, *batch).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.full
def test_memory_is_linear_in_the_number_of_parameters() -> None:
    small, large = temporary_memory(64), temporary_memory(12500)
    assert small <= 10 * 2**20
    # 5120 and a million parameters: as many bytes for each, and three numbers for each of a chunk.
    assert large / 1_000_000 <= 1.2 * small / 5120
    assert large / 1_000_000 <= 3 * 4 * 64
    assert temporary_memory(12500, chunk_size=4) <= large / 10


def test_errors() -> None:
    params, inputs, targets = problem()
    with pytest.raises(ValueError, match=r"hessian_diag: chunk_size must be .* at least 1; got 0"):
        hessian_diag(loss, params, inputs, targets, chunk_size=0)
    with pytest.raises(
        TypeError, match=r"hessian_diagonal: loss must return one real number.*\(5,"
    ):
        hessian_diagonal(lambda p, x: x @ p["w1"][:, 0], params, inputs)
    with pytest.raises(TypeError, match=r"hvp: loss must return one real number"):
        hvp(lambda p, x, y: (1.0, 2.0), jnp.zeros(24), params, inputs, targets)
    with pytest.raises(
        ValueError, match=r"hvp: ravel\(params\) has shape \(24,\), but v has \(3,\)"
    ):
        hvp(loss, jnp.zeros(3), params, inputs, targets)
    product = hessian_operator(loss, params, inputs, targets)
    with pytest.raises(
        ValueError, match=r"hessian_operator: .* params\['b'\] has no counterpart in v"
    ):
        product({"w1": params["w1"], "w2": params["w2"]})
    with pytest.raises(
        ValueError, match=r"params\['b'\] has shape \(3,\), but v\['b'\] has \(1, 3\)"
    ):
        product(params | {"b": jnp.zeros((1, 3))})
    with pytest.raises(TypeError, match=r"hessian_operator: params\['n'\] is int32"):
        hessian_operator(loss, params | {"n": jnp.arange(2)}, inputs, targets)
    with pytest.raises(TypeError, match=r"params is complex64; curvature is that of real"):
        hessian_operator(lambda p: jnp.sum(jnp.abs(p)), jnp.ones(2, complex))
    with pytest.raises(ValueError, match=r"params must have at least one element"):
        hessian_operator(lambda p: 1.0, {})
    with pytest.raises(ValueError, match=r"like has shape \(2,\), but operator\(like\) has \(3,\)"):
        exact_diagonal(lambda v: jnp.zeros(3), jnp.zeros(2))
