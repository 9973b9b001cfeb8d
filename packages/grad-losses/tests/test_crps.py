"""CRPS against integrals, definitions and exact derivatives."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from grad_losses import crps_ensemble, crps_normal

RNG = np.random.default_rng(0)
MEANS, SCALES, TARGETS = RNG.normal(size=50), np.exp(RNG.normal(size=50)), 3 * RNG.normal(size=50)

normal = jax.jit(crps_normal)
gradients = jax.jit(jax.vmap(jax.value_and_grad(crps_normal, (0, 1, 2))))


def by_integration(mean: float, scale: float, target: float) -> float:
    """The definition, on either side of the target."""

    def square(t: float, step: float) -> float:
        return (norm.cdf(t, mean, scale) - step) ** 2

    low, high = min(mean - 12 * scale, target), max(mean + 12 * scale, target)
    left = quad(square, low, target, (0,), points=[mean] if low < mean < target else None)
    right = quad(square, target, high, (1,), points=[mean] if target < mean < high else None)
    return left[0] + right[0]


def test_normal_is_the_integral() -> None:
    problems = np.stack([MEANS, SCALES, TARGETS])[:, :12]
    want = [by_integration(*each) for each in problems.T.tolist()]
    np.testing.assert_allclose(normal(*problems), want, rtol=1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(normal(*problems), want, rtol=1e-9)


def test_derivatives_of_normal() -> None:
    z = (TARGETS - MEANS) / SCALES
    with jax.enable_x64(True):
        _, slopes = jax.device_get(gradients(MEANS, SCALES, TARGETS))
        curvature = jax.jit(jax.vmap(jax.hessian(crps_normal, (0, 1))))
        found = np.array(jax.device_get(curvature(MEANS, SCALES, TARGETS)))
    by_target = 2 * norm.cdf(z) - 1
    by_scale = 2 * norm.pdf(z) - 1 / math.sqrt(math.pi)
    np.testing.assert_allclose(slopes, [-by_target, by_scale, by_target], atol=1e-14)
    outer = np.array([[np.ones_like(z), z], [z, z**2]])
    np.testing.assert_allclose(found, 2 * norm.pdf(z) / SCALES * outer, atol=1e-12)


def test_the_true_distribution_scores_best() -> None:
    """The expected gradient is zero where the prediction is what targets are drawn from."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(50)
    means, scales = np.full(50, 0.7), np.full(50, 1.3)
    with jax.enable_x64(True):
        _, (by_mean, by_scale, _) = jax.device_get(gradients(means, scales, 0.7 + 1.3 * nodes))
    weights /= weights.sum()
    np.testing.assert_allclose([weights @ by_mean, weights @ by_scale], 0, atol=1e-10)


def test_extremes_of_normal() -> None:
    scales = [0, 0, 1e-38, 1e-30, 1e-30, 1e-5, 1e38, 1e38, 1e-10]
    errors = [0, 2, 2.0, 1e-30, 1e-31, 1e30, 1e38, 0.0, -3e38]
    at_zero, at_one = ((z * math.erf(z / 2**0.5) + 2 * norm.pdf(z)) for z in (0, 1))
    base = 1 / math.sqrt(math.pi)
    want = [0, 2, 2, 1e-30 * (at_one - base), None, 1e30, 1e38 * (at_one - base)]
    want += [1e38 * (at_zero - base), 3e38]
    value, slopes = gradients(*np.array([np.zeros(9), scales, errors], np.float32))
    for found, each in zip(value, want, strict=True):
        if each is not None:
            np.testing.assert_allclose(found, each, rtol=1e-5, atol=0)
    assert np.isfinite(slopes).all()
    far = np.array([1, 2, 5, 8])
    np.testing.assert_allclose(slopes[0][far], -np.sign(np.array(errors)[far]), rtol=1e-6)
    np.testing.assert_allclose(slopes[1][far], -base, rtol=1e-6)
    np.testing.assert_allclose(slopes[1][0], 2 * norm.pdf(0) - base, rtol=1e-6)


def by_definition(members: np.ndarray, target: float, fair: bool) -> float:
    """E abs(X - y) - E abs(X - X') / 2."""
    number = len(members)
    pairs = np.abs(members[:, None] - members).sum() / (number * (number - fair))
    return np.abs(members - target).mean() - pairs / 2


ensemble = jax.jit(crps_ensemble, static_argnames=("axis", "fair"))


@pytest.mark.parametrize("fair", [False, True])
def test_ensembles_are_the_definition(fair: bool) -> None:
    members = RNG.normal(size=(60, 7)) + 0.5
    members[:20] = np.round(members[:20])  # ties, with the target too
    targets = np.concatenate([np.round(RNG.normal(size=20)), RNG.normal(size=40)])
    want = [by_definition(x, y, fair) for x, y in zip(members, targets, strict=True)]
    np.testing.assert_allclose(ensemble(members, targets, fair=fair), want, atol=1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(ensemble(members, targets, fair=fair), want, atol=1e-14)
        # In other units, from another origin.
        found = ensemble(members * 3 + 1e6, targets * 3 + 1e6, fair=fair)
        np.testing.assert_allclose(found, np.multiply(3, want), atol=1e-8)
        turned = members.reshape(3, 20, 7).transpose(0, 2, 1)
        found = ensemble(turned, targets.reshape(3, 20), axis=1, fair=fair)
        np.testing.assert_allclose(found.ravel(), want, atol=1e-14)


def test_ensembles_lose_no_digits() -> None:
    """Members almost at the target: differences of means would be rounded away."""
    errors = np.float32(2.0**-20) * np.array([[1, 2, 3, 4], [-1, 1, -2, 2]])
    want = [by_definition(np.float64(e), 0.0, False) for e in errors]
    np.testing.assert_allclose(ensemble(np.float32(errors), np.zeros(2, np.float32)), want)
    np.testing.assert_allclose(ensemble(1 + errors, np.ones(2)), want, rtol=1e-6)
    wide = np.float32([[1e38, -1e38, 1e38, 0]])
    np.testing.assert_allclose(
        ensemble(wide, np.zeros(1)), by_definition(wide[0].astype(float), 0, False)
    )


def test_the_gradient_of_ensembles() -> None:
    members, target = RNG.normal(size=6), 0.1
    with jax.enable_x64(True):
        found = jax.jit(jax.grad(crps_ensemble, (0, 1)))(members, target)
    sign = np.sign(members - target)
    among = np.sign(members[:, None] - members).sum(-1)
    np.testing.assert_allclose(found[0], sign / 6 - among / 36, atol=1e-15)
    np.testing.assert_allclose(found[1], -sign.mean(), atol=1e-15)


def test_fair_scores_have_no_bias() -> None:
    """The mean over all ensembles of two that three atoms can give is the score of the atoms."""
    atoms, target = np.array([-1.0, 0.25, 2.0]), 0.5
    pairs = np.array(list(itertools.product(atoms, repeat=2)))
    mean = ensemble(pairs, np.full(9, target), fair=True).mean()
    np.testing.assert_allclose(mean, by_definition(atoms, target, False), rtol=1e-6)


def test_many_members_are_their_distribution() -> None:
    members = norm.ppf((np.arange(4000) + 0.5) / 4000)
    np.testing.assert_allclose(ensemble(members, 0.3), normal(0.0, 1.0, 0.3), rtol=1e-4)


def test_narrow_dtypes_and_single_members() -> None:
    members = jnp.asarray(RNG.normal(size=(3, 300)), jnp.bfloat16)
    targets = jnp.arange(3)
    want = ensemble(members.astype(jnp.float32), targets)
    got = ensemble(members, targets)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
    np.testing.assert_array_equal(ensemble(jnp.array([[2.0], [-3.0]]), jnp.ones(2)), [1, 4])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: crps_normal(1, 1.0, 1.0), TypeError, "crps_normal: means must be of .* int32"),
        (lambda: crps_normal(1.0, 1j, 1.0), TypeError, "crps_normal: scales must be real"),
        (lambda: crps_normal(1.0, 1.0, 1j), TypeError, "crps_normal: targets must be real"),
        (
            lambda: crps_normal(jnp.ones(2), jnp.ones(3), 0.0),
            ValueError,
            r"crps_normal: means of shape \(2,\) and scales of shape \(3,\)",
        ),
        (lambda: crps_ensemble(jnp.arange(3), 1.0), TypeError, "predictions must be of a real"),
        (lambda: crps_ensemble(jnp.ones(3), 1j), TypeError, "targets must be real"),
        (
            lambda: crps_ensemble(jnp.ones((2, 3)), jnp.ones(3)),
            ValueError,
            r"targets of shape \(3,\) must .* without the axis of the members, \(2,\)",
        ),
        (lambda: crps_ensemble(jnp.ones(3), 1.0, axis=1), ValueError, "axis must be an axis.*got"),
        (lambda: crps_ensemble(jnp.ones(0), 1.0), ValueError, r"1 members at least; .* \(0,\)"),
        (lambda: crps_ensemble(jnp.ones(1), 1.0, fair=True), ValueError, "2 members at least"),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
