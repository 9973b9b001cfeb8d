"""Squared, Huber and log-cosh losses: exact values, derivatives, dtypes, errors."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import huber_loss, l2_loss, log_cosh, squared_error

LOSSES = [squared_error, l2_loss, huber_loss]


def exact(loss: Callable[..., object], e: np.ndarray, delta: float = 1.0) -> np.ndarray:
    """The loss of an error, in float64."""
    e = np.asarray(e, np.float64)
    inside = e**2 / 2
    if loss is huber_loss:
        return np.where(np.abs(e) <= delta, inside, delta * (np.abs(e) - delta / 2))
    return 2 * inside if loss is squared_error else inside


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["eager", "jit", "vmap"])
def test_values(loss: Callable[..., jax.Array], wrap: Callable[..., Callable]) -> None:
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(2, 3, 4)).astype(np.float32) * 2
    want = exact(loss, predictions.astype(np.float64) - targets)
    got = wrap(loss)(predictions, targets)
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(loss(predictions), exact(loss, predictions), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_first_and_second_derivatives(loss: Callable[..., jax.Array]) -> None:
    scale = 2.0 if loss is squared_error else 1.0
    e = jnp.array([-5.0, -1.5, -0.3, 0.0, 0.4, 2.0, 1e4])
    first, second = scale * e, scale * jnp.ones_like(e)
    if loss is huber_loss:
        first, second = jnp.clip(e, -1, 1), (jnp.abs(e) <= 1).astype(e.dtype)
    np.testing.assert_allclose(jax.grad(lambda e: loss(e).sum())(e), first, rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda t: loss(jnp.zeros_like(e), t).sum())(e), first, rtol=1e-6
    )
    np.testing.assert_allclose(jax.hessian(lambda e: loss(e).sum())(e), jnp.diag(second))


def test_huber_at_its_ends() -> None:
    e = jnp.array([-jnp.inf, -2.0, 0.0, 2.0, 1e38])
    np.testing.assert_array_equal(huber_loss(e[1:], delta=0.0), [0, 0, 0, 0])
    gradient = jax.grad(lambda e: huber_loss(e).sum())
    np.testing.assert_array_equal(gradient(e), [-1, -1, 0, 1, 1])
    assert huber_loss(jnp.inf) == jnp.inf
    # At abs(e) = delta both branches agree, in value and gradient, also with respect to delta.
    np.testing.assert_array_equal(huber_loss(jnp.array([2.0, -2.0]), delta=2.0), [2, 2])
    at_delta = jax.grad(lambda e, d: huber_loss(e, delta=d), (0, 1))
    np.testing.assert_array_equal(at_delta(2.0, 2.0), [2, 0])
    np.testing.assert_array_equal(at_delta(5.0, 2.0), [2, 3])
    by_delta = huber_loss(jnp.array([3.0, 3.0]), delta=jnp.array([1.0, 4.0]))
    np.testing.assert_array_equal(by_delta, [2.5, 4.5])


def test_log_cosh_and_its_derivatives() -> None:
    @jax.jit
    @jax.vmap
    def derivatives(e: jax.Array) -> tuple[jax.Array, ...]:
        return log_cosh(e), jax.grad(log_cosh)(e), jax.grad(jax.grad(log_cosh))(e)

    e = np.array([0, 1e-6, -1e-3, 0.5, -0.999, 1, 1.5, -8, 20, 100, 3e38], np.float32)
    exact_e = np.abs(e.astype(np.longdouble))
    # The power series where the logarithm cancels.
    series = exact_e**2 / 2 - exact_e**4 / 12
    far = np.logaddexp(exact_e, -exact_e) - np.log(np.longdouble(2))
    value, first, second = derivatives(e)
    np.testing.assert_allclose(value, np.where(exact_e < 1e-2, series, far), rtol=1e-6)
    np.testing.assert_allclose(first, np.tanh(e.astype(np.float64)), rtol=5e-7)
    want = 1 / np.cosh(np.minimum(exact_e, 100)) ** 2
    np.testing.assert_allclose(second, want, rtol=1e-5, atol=1e-7)
    value, first, _ = derivatives(np.array([-np.inf, np.inf], np.float32))
    np.testing.assert_array_equal(value, np.inf)
    np.testing.assert_array_equal(first, [-1, 1])
    np.testing.assert_array_equal(log_cosh(jnp.ones((2, 3)), jnp.ones(3)), 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_dtypes_compute_in_float32(
    loss: Callable[..., jax.Array], dtype: jax.typing.DTypeLike
) -> None:
    a = jnp.array([1.0, 300.0, -0.001, 2.0], dtype)
    b = jnp.array([0.99, 200.0, 0.001, 2.0], dtype)
    got = loss(a, b)
    want = exact(loss, np.asarray(a, np.float64) - np.asarray(b, np.float64))
    assert got.dtype == dtype
    # One rounding, of the result; float16 subnormals have fewer digits.
    np.testing.assert_array_equal(got, jnp.asarray(want, jnp.float32).astype(dtype))
    gradient = jax.grad(lambda a: loss(a, b).astype(jnp.float32).sum())(a)
    assert gradient.dtype == dtype
    assert jnp.isfinite(gradient).all()


def test_dtypes_promote(enable_x64: None) -> None:
    assert l2_loss(jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32)).dtype == jnp.float32
    assert l2_loss(jnp.ones(2, jnp.bfloat16), jnp.ones(2, int)).dtype == jnp.bfloat16
    assert l2_loss(jnp.ones(2, jnp.float32), jnp.ones(2, int)).dtype == jnp.float32
    error = 1 + 2.0**-40
    assert l2_loss(np.float64(error)) == error**2 / 2
    assert squared_error(np.float64(error), np.float32(0)) == error**2


@pytest.fixture
def enable_x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("predictions", [jnp.arange(3), 2, jnp.ones(3) * 1j, jnp.ones(3, bool)])
def test_predictions_must_be_floating(loss: Callable[..., jax.Array], predictions: object) -> None:
    message = f"{loss.__name__}: predictions must be of a real floating point dtype; got "
    with pytest.raises(TypeError, match=message):
        loss(predictions)


@pytest.mark.parametrize("shape", [(2,), (1, 3), (), (3, 1)])
def test_shapes_must_be_equal(shape: tuple[int, ...]) -> None:
    for loss in (squared_error, l2_loss):
        with pytest.raises(ValueError, match="must have the same shape") as caught:
            loss(jnp.ones(3), jnp.ones(shape))
        for part in (loss.__name__, "predictions of shape (3,)", f"targets of shape {shape}"):
            assert part in str(caught.value)


def test_huber_broadcasts() -> None:
    np.testing.assert_array_equal(huber_loss(jnp.array([1.0, 3.0]), 1.0), [0, 1.5])
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match=r"huber_loss: predictions of shape \(3,\) and targets of"):
            huber_loss(jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match="huber_loss: delta must be >= 0; got -1"):
        huber_loss(1.0, delta=-1)
