"""Evolution strategies: unbiased for the smoothed function, in batches and for trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(0)
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


def f(scale, params):
    return scale * (jnp.sum(params["w"] ** 2) * params["b"] + params["b"] ** 3)


def test_unbiased_for_the_smoothed_function():
    """E[(b + s e)^3] = b^3 + 3 s^2 b, so its derivative is 3 b^2 + 3 s^2."""
    jacobians = jax.jit(
        lambda: ge.evolution_strategies_jacobians(
            lambda params: f(1.0, params), PARAMS, KEY, 100_000, 0.5
        )
    )()
    w, b, s = np.array([1.0, -2.0]), 0.5, 0.5
    exact = {"w": 2 * w * b, "b": np.sum(w**2 + s**2) + 3 * b**2 + 3 * s**2}
    for name, jacobian in jacobians.items():
        error = np.std(jacobian, 0) / 100_000**0.5
        assert (np.abs(np.mean(jacobian, 0) - exact[name]) < 4 * error).all()


def test_the_surrogate_in_batches():
    cases = [(None, 3), (ge.centered_ranks, None), (ge.centered_ranks, 4)]

    @jax.jit
    def run():
        def loss(fitness, batch_size):
            def of(scale, params):
                return ge.evolution_strategies_surrogate(
                    lambda p: f(scale, p), params, KEY, 12, 0.1, fitness, batch_size=batch_size
                )

            return jax.value_and_grad(of, (0, 1))(2.0, PARAMS)

        jacobians = [
            ge.evolution_strategies_jacobians(lambda p: f(2.0, p), PARAMS, KEY, 12, 0.1, fitness)
            for fitness, _ in cases
        ]
        return [loss(*case) for case in cases], jacobians

    for (value, (by_scale, by_params)), jacobians in zip(*run(), strict=True):
        np.testing.assert_allclose(by_scale * 2, value, rtol=1e-5)
        for name, gradient in by_params.items():
            np.testing.assert_allclose(gradient, np.mean(jacobians[name], 0), rtol=1e-4, atol=1e-5)


def test_mirrored_pairs_are_exact_along_the_noise():
    """For a linear function g, a pair gives (g . e) e exactly."""
    jacobian = ge.evolution_strategies_jacobians(
        lambda x: 3 * x[0] - x[1], jnp.array([5.0, 7.0]), KEY, 6, 0.5
    )
    np.testing.assert_allclose(jacobian[:, 0] * jacobian[:, 1] > 0, jacobian[:, 1] > 0)
    # jacobian = (3 e0 - e1) (e0, e1), so 3 j0 - j1 = (3 e0 - e1)^2 >= 0.
    assert (3 * jacobian[:, 0] - jacobian[:, 1] >= 0).all()


def test_centered_ranks():
    values = jnp.array([3.0, 1.0, 100.0, 1.0])
    np.testing.assert_allclose(ge.centered_ranks(values), [1 / 6, -1 / 3, 0.5, -1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(
        ge.centered_ranks(jnp.exp(values / 10)), ge.centered_ranks(values)
    )
    np.testing.assert_array_equal(ge.centered_ranks(jnp.zeros(1)), [-0.5])


def test_bad_input():
    name = "evolution_strategies_surrogate"
    call = ge.evolution_strategies_surrogate
    with pytest.raises(ValueError, match=f"{name}: sigma must be > 0; got 0.0"):
        call(jnp.sum, jnp.ones(2), KEY, 4, 0.0)
    with pytest.raises(
        ValueError, match=f"{name}: batch_size must divide num_samples; got 3 and 4"
    ):
        call(jnp.sum, jnp.ones(2), KEY, 4, batch_size=3)
    with pytest.raises(ValueError, match=f"{name}: function must return a scalar"):
        call(lambda x: x, jnp.ones(2), KEY, 4)
    with pytest.raises(TypeError, match=f"{name}: params must be of real floating"):
        call(jnp.sum, jnp.ones(2, int), KEY, 4)
    with pytest.raises(TypeError, match=f"{name}: function must be callable"):
        call(None, jnp.ones(2), KEY, 4)
