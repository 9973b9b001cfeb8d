"""Sinkhorn divergences: exact values, plain iterations in float64, and exact transport."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import sinkhorn_divergence

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 6, 2)), RNG.normal((1.0, 0.5), size=(3, 5, 2))
A, B = RNG.random((3, 6)) + 0.1, RNG.random((3, 5)) + 0.1


@jax.jit
def compiled(x, y, a, b, epsilon):
    """Values and gradients; all tests share its shapes, as compiling takes longest."""

    def total(*arrays):
        value = sinkhorn_divergence(*arrays, epsilon=epsilon, max_iterations=5000)
        return value.sum(), value

    gradients, value = jax.grad(total, (0, 1, 2, 3), has_aux=True)(x, y, a, b)
    return value, gradients


def run(x=X, y=Y, a=A, b=B, epsilon=2.0, x64=True):
    with jax.enable_x64(x64):
        return jax.device_get(compiled(x, y, a, b, epsilon))


def plainly(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float) -> float:
    """The divergence by Sinkhorn's iterations on the kernel itself, and the primal cost."""

    def transport(x, y, a, b):
        cost = ((x[:, None] - y) ** 2).sum(-1)
        kernel, v = np.exp(-cost / epsilon), np.ones(len(y))
        for _ in range(1000):
            u = 1 / (kernel @ (b * v))
            v = 1 / (kernel.T @ (a * u))
        density = u[:, None] * kernel * v
        coupling = a[:, None] * density * b
        np.testing.assert_allclose(coupling.sum(1), a, atol=1e-12)
        return (coupling * (cost + epsilon * np.log(density))).sum()

    a, b = a / a.sum(), b / b.sum()
    return transport(x, y, a, b) - (transport(x, x, a, a) + transport(y, y, b, b)) / 2


def test_against_plain_iterations() -> None:
    value, gradients = run()
    want = [plainly(*each, 2.0) for each in zip(X, Y, A, B, strict=True)]
    np.testing.assert_allclose(value, want, rtol=1e-10)
    narrow, narrow_gradients = run(*map(np.float32, (X, Y, A, B)), np.float32(2.0), x64=False)
    np.testing.assert_allclose(narrow, want, rtol=1e-5)
    arrays = [each[0] for each in (X, Y, A, B)]
    for k, (gradient, narrow_gradient) in enumerate(zip(gradients, narrow_gradients, strict=True)):
        np.testing.assert_allclose(narrow_gradient, gradient, atol=1e-4)
        slopes = np.empty_like(arrays[k])
        for place in np.ndindex(slopes.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [each.copy() for each in arrays]
                moved[k][place] += step
                ends.append(plainly(*moved, 2.0))
            slopes[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient[0], slopes, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.03, 0.5, 30.0])
def test_moving_a_cloud(epsilon: float) -> None:
    """The squared distance for a moved copy, whatever epsilon is; and what follows for others."""
    shift = np.array([0.5, -2.0])
    copies, _ = run(X[:, :5], X[:, :5] + shift, A[:, :5], A[:, :5], epsilon)
    np.testing.assert_allclose(copies, shift @ shift, rtol=1e-6)
    moved, gradients = run(y=Y + shift, epsilon=epsilon)
    a, b = (w / w.sum(-1, keepdims=True) for w in (A, B))
    apart = np.einsum("bi,bid->bd", a, X) - np.einsum("bi,bid->bd", b, Y)
    want = run(epsilon=epsilon)[0] - 2 * apart @ shift + shift @ shift
    np.testing.assert_allclose(moved, want, rtol=1e-6)
    # The mean of the gradient is twice the distance of the means.
    np.testing.assert_allclose(gradients[0].sum(1), 2 * (apart - shift), rtol=1e-6)


def test_large_epsilon_compares_means() -> None:
    """Half a squared maximum mean discrepancy with the kernel -cost."""
    value, _ = run(epsilon=1e7)
    a, b = (w / w.sum(-1, keepdims=True) for w in (A, B))
    apart = np.einsum("bi,bid->bd", a, X) - np.einsum("bi,bid->bd", b, Y)
    np.testing.assert_allclose(value, (apart**2).sum(-1), rtol=1e-5)


def test_small_epsilon_is_exact_transport() -> None:
    """On a line the cheapest coupling keeps the order."""
    x, y = RNG.normal(size=(2, 30, 1)), 1.5 * RNG.normal(size=(2, 30, 1)) + 1
    want = ((np.sort(x, 1) - np.sort(y, 1)) ** 2).mean((1, 2))
    rank = np.argsort(np.argsort(x[..., 0], axis=1), axis=1)
    partner = np.take_along_axis(np.sort(y[..., 0], axis=1), rank, axis=1)
    slope = 2 * (x - partner[..., None]) / 30

    @jax.jit
    def both(x, epsilon):
        def total(x):
            value = sinkhorn_divergence(x, y.astype(x.dtype), epsilon=epsilon)
            return value.sum(), value

        return jax.grad(total, has_aux=True)(x)

    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            for epsilon in (1e-3, 1e-6, 1e-12, 1e-30):
                gradient, value = jax.device_get(both(x.astype(dtype), dtype(epsilon)))
                # The entropy is at most log 30.
                np.testing.assert_allclose(value, want, atol=4 * epsilon + 1e-5)
                assert np.isfinite(gradient).all()
                if epsilon == 1e-6:
                    np.testing.assert_allclose(gradient, slope, atol=2e-3)


def test_equal_clouds_and_few_iterations() -> None:
    for epsilon in (0.01, 0.5, 10.0):
        turned = X[:, 4::-1]
        value, gradients = run(X[:, :5], turned, A[:, :5], A[:, 4::-1], epsilon)
        np.testing.assert_allclose(value, 0, atol=1e-6)
        np.testing.assert_allclose(gradients[0], 0, atol=1e-3)
    call = functools.partial(sinkhorn_divergence, epsilon=1e-3, max_iterations=1)
    assert jnp.isfinite(jax.jit(jax.grad(lambda x: call(x, Y).sum()))(X)).all()


def test_points_without_weight_are_not_there() -> None:
    """But the gradient says what weight there would change."""
    a = A * [1, 1, 0, 1, 1, 1]
    far = X.copy()
    far[:, 2] = [40.0, -70.0]
    for x in (X, far):
        value, gradients = run(x=x, a=a)
        left = np.delete(x, 2, axis=1), Y, np.delete(a, 2, axis=1), B
        want = [plainly(*each, 2.0) for each in zip(*left, strict=True)]
        np.testing.assert_allclose(value, want, rtol=1e-9)
        np.testing.assert_array_equal(gradients[0][:, 2], 0)
        assert all(np.isfinite(each).all() for each in gradients)
    gradient = run(a=a)[1][2]
    step = 1e-7
    raised = run(a=a + step * np.eye(6)[2])[0]
    np.testing.assert_allclose((raised - run(a=a)[0]) / step, gradient[:, 2], rtol=1e-4)
    one = run(a=np.eye(6)[:3], b=np.eye(5)[:3])[0]
    pairs = ((X[range(3), range(3)] - Y[range(3), range(3)]) ** 2).sum(-1)
    np.testing.assert_allclose(one, pairs)


def test_second_derivatives_by_weights() -> None:
    """Those by points are the conformance suite's."""
    a, equal = A[0, :5].copy(), np.ones(5)
    a[1] = 0

    def loss(x, a, b, epsilon):
        return sinkhorn_divergence(x, Y[0], a, b, epsilon=epsilon, max_iterations=5000)

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(loss, 1))
        hessian = jax.jit(jax.hessian(loss, (0, 1)))
        found = jax.device_get(hessian(X[0, :5], a, B[0], 0.5))[1][1]
        for i in (0, 1, 4):
            step = 1e-5 * np.eye(5)[i]
            # From one side, as a weight of 0 has no other.
            ends = [np.array(slope(X[0, :5], a + k * step, B[0], 0.5)) for k in (0, 1, 2)]
            slopes = (4 * ends[1] - ends[2] - 3 * ends[0]) / 2e-5
            np.testing.assert_allclose(found[i], slopes, atol=1e-5)
        # With a small epsilon the coupling falls apart into pairs. Then it stays as it is, and only
        # distances change.
        pairs = hessian(X[0, :5], equal, equal, 1e-6)
        np.testing.assert_allclose(pairs[0][0].reshape(10, 10), 2 / 5 * np.eye(10), atol=1e-6)
        assert all(jnp.isfinite(each).all() for each in jax.tree.leaves(pairs))


def test_batches_broadcast() -> None:
    call = jax.jit(functools.partial(sinkhorn_divergence, epsilon=0.5))
    pairs, one = call(X[:, None], Y[:2], A[:, None]), call(X[1], Y[0], A[1])
    assert pairs.shape == (3, 2)
    assert one.shape == ()
    np.testing.assert_allclose(pairs[1, 0], one, rtol=1e-5)


def test_another_cost_and_a_narrow_dtype() -> None:
    """The distance on a line: the exact cost is the area between distribution functions."""
    x, y = jnp.array([[0.0], [1.0], [2.0]], jnp.float16), jnp.array([[5], [4]])
    call = jax.jit(
        lambda x: sinkhorn_divergence(x, y, epsilon=1e-3, cost=lambda x, y: jnp.abs(x - y).sum())
    )
    found = call(x)
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, 3.5, rtol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((X.astype(int), Y), {}, TypeError, "x must be of a real floating point dtype"),
        ((X, Y * 1j), {}, TypeError, "y must be real; got complex64"),
        ((X, Y, A * 1j), {}, TypeError, "x_weights must be real; got complex64"),
        ((X[0, 0], Y), {}, ValueError, r"x must hold points.*; got \(2,\)"),
        ((X, Y[:, :0]), {}, ValueError, r"y must hold points.*; got \(3, 0, 2\)"),
        ((X[..., :0], Y), {}, ValueError, r"x must hold points.*; got \(3, 6, 0\)"),
        ((X, Y, A[:, 1:]), {}, ValueError, r"x_weights of shape \(3, 5\) must .* \(3, 6, 2\)"),
        ((X, Y, A, B[0, 0]), {}, TypeError, r"y_weights of shape \(\) must have one weight"),
        ((X, Y[..., :1]), {}, ValueError, r"x of shape \(3, 6, 2\), y of .* same dimensions"),
        ((X, Y[:2]), {}, ValueError, r"y of shape \(2, 5, 2\).* axes that broadcast"),
        ((X, Y), {"epsilon": 0.0}, ValueError, r"epsilon must be > 0; got 0\.0"),
        ((X, Y), {"max_iterations": 0}, ValueError, "max_iterations must be > 0; got 0"),
    ],
)
def test_errors(arguments: tuple, options: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^sinkhorn_divergence: .*{message}"):
        sinkhorn_divergence(*arguments, **options)
