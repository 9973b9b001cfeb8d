"""Newton's method with conjugate gradients against dense solves and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from grad_core import apply_updates, masked, partition, scale
from grad_second_order import (
    Status,
    ggn_operator,
    newton_cg,
    run,
    scale_by_newton_cg,
)

RNG = np.random.default_rng(0)
SIZE = 5
A = RNG.normal(size=(SIZE, SIZE))
HESSIAN = A @ A.T + 0.1 * np.eye(SIZE)
MINIMUM, START = RNG.normal(size=(2, SIZE))
EXACT = {"max_forcing": 1e-12}


def as_tree(x):
    return {"a": x[:3], "b": [x[3], x[4:]]}


def as_vector(tree):
    return jnp.concatenate([tree["a"], tree["b"][0][None], tree["b"][1]])


def quadratic(tree):
    x = as_vector(tree) - MINIMUM
    return x @ jnp.asarray(HESSIAN) @ x / 2


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def direction(tx, f, x, **extra_args):
    return tx.update(jax.grad(f)(x), tx.init(x), x, value_fn=f, **extra_args)


@pytest.mark.parametrize("damping", [0.0, 2.5])
def test_a_step_on_a_quadratic_is_that_of_a_dense_solve(damping):
    with jax.enable_x64(True):
        x = as_tree(jnp.asarray(START))
        g = HESSIAN @ (START - MINIMUM)
        updates, state = direction(scale_by_newton_cg(damping=damping, **EXACT), quadratic, x)
        expected = np.linalg.solve(HESSIAN + damping * np.eye(SIZE), g)
        np.testing.assert_allclose(as_vector(updates), expected, rtol=1e-9)
        assert state.num_products == SIZE
        assert state.residual <= 1e-12
        least = np.linalg.eigvalsh(HESSIAN)[0]
        assert least * (1 - 1e-9) <= state.least_curvature <= g @ HESSIAN @ g / (g @ g)
        if not damping:
            updates, _ = direction(newton_cg(**EXACT), quadratic, x)
            np.testing.assert_allclose(as_vector(apply_updates(x, updates)), MINIMUM, rtol=1e-9)


def test_it_solves_as_exactly_as_the_gradient_asks_for():
    with jax.enable_x64(True):
        residuals = []
        for size in (1.0, 1e-3, 1e-6):
            x = as_tree(jnp.asarray(MINIMUM + size * (START - MINIMUM)))
            g = size * HESSIAN @ (START - MINIMUM)
            updates, state = direction(scale_by_newton_cg(), quadratic, x)
            norm = np.linalg.norm(g)
            residual = np.linalg.norm(g - HESSIAN @ as_vector(updates)) / norm
            np.testing.assert_allclose(state.residual, residual, rtol=1e-6, atol=1e-9)
            assert residual <= min(0.5, np.sqrt(norm))
            residuals.append(residual)
        assert residuals[0] > residuals[1] > residuals[2]
        _, state = direction(scale_by_newton_cg(2, max_forcing=0.0), quadratic, x)
        assert state.num_products == 2


def test_it_leaves_a_saddle_along_negative_curvature():
    def saddle(x):  # minima of -1/4 at (0, -1) and (0, 1)
        return (x[0] ** 2 - x[1] ** 2) / 2 + x[1] ** 4 / 4

    x = jnp.array([0.0, 1e-3])
    updates, state = direction(scale_by_newton_cg(), saddle, x)
    np.testing.assert_allclose(state.least_curvature, -1 + 3e-6, rtol=1e-5)
    np.testing.assert_allclose(
        updates, -x, rtol=1e-4
    )  # the other way to the saddle, as from a minimum
    x = jnp.array([1.0, 1e-3])
    updates, state = direction(scale_by_newton_cg(max_forcing=1e-3), saddle, x)
    assert state.least_curvature < 0
    assert updates @ jax.grad(saddle)(x) > 0
    result = run(newton_cg(), saddle, x, 1e-4)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.value, -0.25, atol=1e-6)


def logistic_problem():
    x = RNG.normal(size=(60, 8)) * 10.0 ** np.arange(-2, 2, 0.5)
    y = np.where(x @ RNG.normal(size=8) + RNG.normal(size=60) > 0, 1, -1)
    return lambda w: jnp.mean(jnp.logaddexp(0, -y * (x @ w))) + 5e-4 * jnp.sum(w**2), np.zeros(8)


@pytest.mark.parametrize("name", ["rosenbrock", "logistic regression"])
def test_minima_are_those_of_scipy(name):
    with jax.enable_x64(True):
        f, start = {
            "rosenbrock": (rosenbrock, np.tile([-1.2, 1.0], 5)),
            "logistic regression": logistic_problem(),
        }[name]
        result = jax.jit(lambda x: run(newton_cg(), f, x, 1e-7))(start)
        value, grad, hessian = jax.jit(f), jax.jit(jax.grad(f)), jax.jit(jax.hessian(f))
        found = scipy.optimize.minimize(
            value, start, jac=grad, hess=hessian, method="Newton-CG", options={"xtol": 1e-10}
        )
        assert result.status == Status.CONVERGED
        np.testing.assert_allclose(result.value, found.fun, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.params, found.x, rtol=1e-4)
        assert result.iterations <= found.nit


def test_curvature_of_a_model_and_its_data_by_name():
    inputs, targets = RNG.normal(size=(6, SIZE)), RNG.normal(size=6)

    def model(w, x):
        return jnp.tanh(x @ w)

    def halves(z, y):
        return jnp.mean((z - y) ** 2) / 2

    def curvature(w, x, y):
        return ggn_operator(model, halves, w, x, y)

    with jax.enable_x64(True):
        w = jnp.asarray(START)
        f = lambda w, x, y: halves(model(w, x), y)  # noqa: E731
        grad = jax.grad(f)(w, inputs, targets)
        tx = scale_by_newton_cg(curvature=curvature, **EXACT)
        batch = {"x": jnp.asarray(inputs), "y": jnp.asarray(targets)}
        updates, _ = tx.update(grad, tx.init(w), w, value_fn=f, **batch)
        jacobian = jax.jacobian(model)(w, inputs)
        expected = np.linalg.solve(jacobian.T @ jacobian / 6, grad)
        np.testing.assert_allclose(updates, expected, rtol=1e-7)
        tx = scale_by_newton_cg(curvature=lambda w: lambda v: v[:2])
        with pytest.raises(ValueError, match=r"scale_by_newton_cg.*params.*\(5,\).*curvature"):
            tx.update(grad, tx.init(w), w, value_fn=f, **batch)


def test_inside_partition_and_masked_it_moves_its_part_alone():
    def f(x):
        return jnp.sum((x["a"] - 3.0) ** 2) * (1 + x["b"] ** 2) / 2

    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(1.0)}
    value, grad = jax.value_and_grad(f)(x)
    tx = partition(
        {"newton": newton_cg(**EXACT), "still": scale(0.0)},
        {"a": "newton", "b": "still"},
        mask_compatible_extra_args=True,
    )
    for update in (tx.update, jax.jit(tx.update, static_argnames="value_fn")):
        updates, _ = update(grad, tx.init(x), x, value=value, grad=grad, value_fn=f)
        np.testing.assert_allclose(updates["a"], [2.0, 1.0], rtol=1e-5)
        assert updates["b"] == 0
    tx = masked(
        scale_by_newton_cg(**EXACT), {"a": True, "b": False}, mask_compatible_extra_args=True
    )
    updates, _ = tx.update(grad, tx.init(x), x, value_fn=f)
    np.testing.assert_allclose(updates["a"], [-2.0, -1.0], rtol=1e-5)


def test_the_size_of_a_function_does_not_matter():
    h = jnp.array([1.0, 3.0])
    x = jnp.array([2.0, -1.0])
    for size in (1e30, 1e-30):
        updates, state = direction(
            scale_by_newton_cg(max_forcing=1e-4), lambda x, size=size: size * jnp.sum(h * x**2), x
        )
        np.testing.assert_allclose(updates, x, rtol=1e-3)
        assert state.num_products == 2


def test_bad_input():
    x = jnp.ones(2)
    for error, words, kwargs in (
        (ValueError, "scale_by_newton_cg: max_cg_iters must be .* at least 1; got 0", (0,)),
        (ValueError, "newton_cg.*damping", (None, 3, -1.0)),
    ):
        with pytest.raises(error, match=words):
            (newton_cg if kwargs[0] is None else scale_by_newton_cg)(*kwargs)
    tx = scale_by_newton_cg()
    with pytest.raises(TypeError, match=r"scale_by_newton_cg.*params.*complex64"):
        tx.init(jnp.ones(2, jnp.complex64))
    with pytest.raises(ValueError, match=r"scale_by_newton_cg.*value_fn"):
        tx.update(x, tx.init(x), x)
    with pytest.raises(ValueError, match=r"scale_by_newton_cg.*current value of the parameters"):
        tx.update(x, tx.init(x), value_fn=jnp.sum)
    with pytest.raises(ValueError, match=r"scale_by_newton_cg.*Was it made by another init"):
        tx.update(x, (), x, value_fn=jnp.sum)


def test_what_is_not_finite_has_a_status_and_moves_nothing():
    x = jnp.array([3.0, 4.0])
    # No product: the gradient, at most of norm 1.
    bad = scale_by_newton_cg(curvature=lambda x: lambda v: jnp.nan * v)
    updates, state = bad.update(2 * x, bad.init(x), x, value_fn=lambda x: jnp.sum(x**2))
    np.testing.assert_allclose(updates, x / 5, rtol=1e-6)
    assert state.residual == 1
    cases = {
        "at the start": (lambda x: jnp.nan * jnp.sum(x), Status.NON_FINITE),
        "everywhere else": (
            lambda y: jnp.where((y == x).all(), jnp.sum(y**2), jnp.nan),
            Status.LINE_SEARCH_FAILED,
        ),
    }
    for f, status in cases.values():
        result = run(newton_cg(), f, x, max_iter=5)
        assert result.status == status
        np.testing.assert_array_equal(result.params, x)
    updates, _ = direction(newton_cg(), lambda x: 0 * jnp.sum(x), x)
    np.testing.assert_array_equal(updates, 0)
