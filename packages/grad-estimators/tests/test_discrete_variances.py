"""Known means, biases and variances of estimators for one Bernoulli variable, and orderings.

Exact variances are integrals over the noise in float64, of the equations in the papers.
"""

import distrax
import jax
import jax.numpy as jnp
import numpy as np

import grad_estimators as ge

N = 100_000
KEY = jax.random.key(1)
LOGITS = np.array([-1.5, 0.0, 0.8])
GRID = (np.arange(1000) + 0.5) / 1000


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def coin(logit):
    return distrax.Bernoulli(logits=logit)


def from_zero(x):
    """(b + 1)**2, whose two values differ in their squares, too."""
    return (x + 1.0) ** 2


def balanced(x):
    """(b - t)**2 with t near 1/2, whose two values differ little."""
    return (x - 0.45) ** 2


@jax.jit
@jax.vmap
def samples(logit):
    """Jacobians of many estimators at one logit."""

    def of(estimator, f, *rest):
        return estimator(f, [logit], coin, KEY, N, *rest)[0]

    return {
        "score": of(ge.score_function_jacobians, from_zero),
        "score, balanced": of(ge.score_function_jacobians, balanced),
        "rebar": of(ge.rebar_jacobians, from_zero, 1.0, 1.0),
        "rebar, balanced": of(ge.rebar_jacobians, balanced, 1.0, 1.0),
        "rebar, no control": of(ge.rebar_jacobians, from_zero, 1.0, 0.0),
        "arm": of(ge.arm_jacobians, from_zero),
        "disarm": of(ge.disarm_jacobians, from_zero),
        "straight-through": of(ge.straight_through_jacobians, balanced),
        "gumbel": of(ge.gumbel_softmax_jacobians, from_zero, 0.3),
        "gumbel, hard": of(ge.gumbel_softmax_jacobians, from_zero, 0.3, True),
    }


FOUND = {}


def found(name):
    """Means, their standard errors, and variances, for each logit."""
    if not FOUND:
        FOUND.update({k: np.asarray(v, np.float64) for k, v in samples(jnp.array(LOGITS)).items()})
    jacobians = FOUND[name]
    return jacobians.mean(1), jacobians.std(1) / N**0.5, jacobians.var(1)


def rebar_variance(f, df, logit):
    """By the paper's appendix: u and v are uniform; v' is v moved to where u gives the same b."""
    u, v = GRID[:, None], GRID
    b = 1.0 * (u > 1 - sigmoid(logit))
    moved = np.where(b > 0, sigmoid(-logit) + v * sigmoid(logit), v * sigmoid(-logit))
    z, z_given_b = (logit + np.log(x) - np.log1p(-x) for x in (u, moved))
    d_moved = np.where(b > 0, v - 1, -v) * sigmoid(logit) * sigmoid(-logit)
    d_given_b = 1 + d_moved / (moved * (1 - moved))

    def slope(z):
        return df(sigmoid(z)) * sigmoid(z) * sigmoid(-z)

    g = (f(b) - f(sigmoid(z_given_b))) * (b - sigmoid(logit))
    return np.var(g + slope(z) - slope(z_given_b) * d_given_b)


def test_unbiased():
    p = sigmoid(LOGITS)
    exact = 3 * p * (1 - p)
    for name in ("score", "rebar", "rebar, no control", "arm", "disarm"):
        mean, error, _ = found(name)
        assert np.all(np.abs(mean - exact) <= 4 * error + 1e-6), name
    mean, error, _ = found("rebar, balanced")
    assert np.all(np.abs(mean - p * (1 - p) * 0.1) <= 4 * error)


def test_score_function_variance():
    p = sigmoid(LOGITS)
    values, scores = np.array([[4.0], [1.0]]), np.array([1 - p, -p])
    exact = p * (4 * (1 - p)) ** 2 + (1 - p) * p**2 - (p * (1 - p) * 3) ** 2
    np.testing.assert_allclose(np.sum([p, 1 - p] * (values * scores), 0), 3 * p * (1 - p))
    for name in ("score", "rebar, no control"):
        np.testing.assert_allclose(found(name)[2], exact, rtol=0.05)


def test_rebar_variance():
    exact = [rebar_variance(from_zero, lambda x: 2 * (x + 1), logit) for logit in LOGITS]
    np.testing.assert_allclose(found("rebar")[2], exact, rtol=0.05)
    np.testing.assert_allclose(found("score")[2][1], 1.5625, rtol=0.05)
    np.testing.assert_allclose(found("rebar")[2][1], 0.12, rtol=0.05)


def test_rebar_reduces_nothing_where_f_is_balanced():
    exact = [rebar_variance(balanced, lambda x: 2 * (x - 0.45), logit) for logit in LOGITS]
    np.testing.assert_allclose(found("rebar, balanced")[2], exact, rtol=0.05)
    assert found("rebar, balanced")[2][1] > found("score, balanced")[2][1]


def test_arm_and_disarm_variance():
    u = (np.arange(10**6) + 0.5) / 10**6
    for i, logit in enumerate(LOGITS):
        b, other = 1.0 * (u > sigmoid(-logit)), 1.0 * (u < sigmoid(logit))
        difference = (b + 1) ** 2 - (other + 1) ** 2
        arm, disarm = difference * (u - 0.5), 0.5 * difference * (b - other) * sigmoid(abs(logit))
        np.testing.assert_allclose(found("arm")[2][i], arm.var(), rtol=0.05)
        np.testing.assert_allclose(found("disarm")[2][i], disarm.var(), rtol=0.05, atol=1e-9)
        assert disarm.var() <= arm.var()
    assert np.all(found("disarm")[2] < found("arm")[2])
    assert found("disarm")[2][1] == 0  # at a logit of 0 all pairs differ


def test_straight_through_bias():
    p = sigmoid(LOGITS)
    mean, error, _ = found("straight-through")
    bias = (2 * p - 1) * p * (1 - p)
    assert np.all(np.abs(mean - p * (1 - p) * 0.1 - bias) <= 4 * error)
    assert np.all(np.abs(bias[[0, 2]]) > 10 * error[[0, 2]])


def test_gumbel_softmax_means_are_integrals_over_the_noise():
    noise = np.log(GRID) - np.log1p(-GRID)
    for i, logit in enumerate(LOGITS):
        z = logit + noise
        soft = sigmoid(z / 0.3)
        d_soft = soft * (1 - soft) / 0.3
        for name, x in (("gumbel", soft), ("gumbel, hard", 1.0 * (z > 0))):
            mean, error, variance = (values[i] for values in found(name))
            g = 2 * (x + 1) * d_soft
            assert abs(mean - g.mean()) <= 4 * error
            np.testing.assert_allclose(variance, g.var(), rtol=0.05)


def test_leave_one_out_is_the_mean_baseline_unshrunk():
    """K / (K - 1) times the one that subtracts the mean of all: that is biased by (K - 1) / K."""

    @jax.jit
    @jax.vmap
    def groups(key):
        (scores,) = ge.score_function_jacobians(lambda x: 1.0, [0.8], coin, key, 4)
        return scores, ge.rloo_jacobians(from_zero, [0.8], coin, key, 4)[0]

    keys = jax.random.split(KEY, N // 4)
    scores, jacobians = (np.asarray(x, np.float64) for x in groups(keys))
    p = sigmoid(0.8)
    values = np.where(scores > 0, 4.0, 1.0)
    shrunk = (values - values.mean(1, keepdims=True)) * scores
    np.testing.assert_allclose(jacobians, shrunk * 4 / 3, atol=1e-5)
    means = jacobians.mean(1), shrunk.mean(1)
    for mean, exact in zip(means, (3 * p * (1 - p), 3 * p * (1 - p) * 3 / 4), strict=True):
        assert abs(mean.mean() - exact) <= 4 * mean.std() / len(mean) ** 0.5
