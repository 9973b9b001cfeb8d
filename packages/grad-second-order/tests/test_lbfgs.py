"""L-BFGS against the BFGS matrices that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import TreeMismatchError
from grad_second_order import ScaleByLBFGSState, lbfgs, scale_by_lbfgs

RNG = np.random.default_rng(0)
SIZE, STEPS, MEMORY = 5, 7, 3
A = RNG.normal(size=(SIZE, SIZE))
HESSIAN = A @ A.T + 0.1 * np.eye(SIZE)
POINTS = RNG.normal(size=(STEPS, SIZE))


def as_tree(x):
    return {"a": x[:3], "b": [x[3], x[4:]]}


def as_vector(tree):
    return np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"][0]), np.ravel(tree["b"][1])])


def bfgs_matrix(points, gradients, memory, scale=True):
    """Inverse Hessian by the BFGS formula, equation (6.17) of Nocedal and Wright, dense."""
    s, y = np.diff(points, axis=0)[-memory:], np.diff(gradients, axis=0)[-memory:]
    good = np.sum(s * y, axis=1) > 0
    s, y = s[good], y[good]
    if not scale:
        h = np.eye(SIZE)
    elif len(s):
        h = s[-1] @ y[-1] / (y[-1] @ y[-1]) * np.eye(SIZE)
    else:
        h = min(1.0, 1 / np.linalg.norm(gradients[-1])) * np.eye(SIZE)
    for s_i, y_i in zip(s, y, strict=True):
        rho = 1 / (s_i @ y_i)
        v = np.eye(SIZE) - rho * np.outer(y_i, s_i)
        h = v.T @ h @ v + rho * np.outer(s_i, s_i)
    return h


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("hessian", [HESSIAN, HESSIAN - 2 * np.eye(SIZE)], ids=["convex", "saddle"])
def test_directions_are_those_of_dense_bfgs(scale, hessian):
    with jax.enable_x64(True):
        gradients = POINTS @ hessian
        tx = scale_by_lbfgs(MEMORY, scale)
        state = tx.init(as_tree(jnp.asarray(POINTS[0])))
        for i in range(STEPS):
            updates, state = tx.update(
                as_tree(jnp.asarray(gradients[i])), state, as_tree(jnp.asarray(POINTS[i]))
            )
            h = bfgs_matrix(POINTS[: i + 1], gradients[: i + 1], MEMORY, scale)
            np.testing.assert_allclose(as_vector(updates), h @ gradients[i], rtol=1e-9)
        curvature = np.einsum("is,is->i", np.diff(POINTS, axis=0), np.diff(gradients, axis=0))
        expected = np.where(curvature > 0, 1 / curvature, 0)[[3, 4, 5]]  # the memory goes around
        np.testing.assert_allclose(state.weights_memory, expected, rtol=1e-9)


def test_huge_and_tiny_differences_stay_finite():
    tx = scale_by_lbfgs()
    for size in (1e30, 1e-30):
        x = jnp.array([1.0, 2.0])
        _, state = tx.update(size * x, tx.init(x), x)
        updates, state = tx.update(2 * size * x, state, 2 * x)
        assert jnp.isfinite(updates).all()
        if size > 1:
            np.testing.assert_allclose(updates, 2 * x, rtol=1e-5)  # a quadratic of curvature 1e30


def test_memory_in_low_precision_follows_the_parameters():
    state = scale_by_lbfgs(4).init(jnp.zeros(3, jnp.bfloat16))
    assert isinstance(state, ScaleByLBFGSState)
    assert state.diff_params_memory.dtype == jnp.bfloat16
    assert state.diff_params_memory.shape == (4, 3)
    assert state.weights_memory.dtype == jnp.float32


def test_errors():
    with pytest.raises(ValueError, match=r"scale_by_lbfgs: memory_size must be >= 1; got 0\."):
        scale_by_lbfgs(0)
    with pytest.raises(ValueError, match="memory_size"):
        lbfgs(memory_size=-1)
    with pytest.raises(TypeError, match="memory_size"):
        lbfgs(memory_size=2.5)
    x = jnp.ones(2)
    with pytest.raises(TreeMismatchError, match="must be a ScaleByLBFGSState"):
        scale_by_lbfgs().update(x, (), x)
    with pytest.raises(ValueError, match=r"lbfgs.*value_fn"):
        lbfgs().update(x, lbfgs().init(x), x)
    with pytest.raises(ValueError, match=r"lbfgs.*params"):
        lbfgs().update(x, lbfgs().init(x))


def test_without_a_line_search():
    x = jnp.array([3.0, 4.0])
    tx = lbfgs(learning_rate=0.5, linesearch=None)
    updates, _ = tx.update(x, tx.init(x), x)
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)
