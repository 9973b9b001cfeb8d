"""RELAX and REBAR: what tunes their control variates, and how both relate."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(2)
LOGITS = jnp.array([0.5, -0.3, 1.0])
WEIGHTS = jnp.array([1.0, -2.0, 0.7])
N = 1000


def coins(logits):
    return distrax.Bernoulli(logits=logits)


def cost(x):
    return (x @ WEIGHTS + 0.6) ** 2


def relaxed_cost(tuning, z):
    temperature, scale = tuning
    return scale * cost(jax.nn.sigmoid(z / temperature))


TUNING = (jnp.array(0.7), jnp.array(0.8))


def test_rebar_is_relax_with_f_itself_as_control():
    @jax.jit
    def both(key):
        arguments = cost, [LOGITS], coins, key, N
        return (
            ge.rebar_jacobians(*arguments, *TUNING)[0],
            ge.relax_jacobians(*arguments, relaxed_cost, TUNING)[0],
        )

    rebar, relax = both(KEY)
    np.testing.assert_allclose(rebar, relax, rtol=1e-4, atol=1e-4)


def test_one_gradient_trains_distribution_and_control_variate():
    """The tuning's gradient is that of the second moment, by finite differences of Jacobians."""

    @jax.jit
    def jacobian(temperature, scale):
        tuning = temperature, scale
        return ge.relax_jacobians(cost, [LOGITS], coins, KEY, N, relaxed_cost, tuning)[0]

    def second_moment(*tuning):
        return np.sum(np.asarray(jacobian(*tuning), float) ** 2) / N

    @jax.jit
    @jax.value_and_grad
    def surrogate(arguments):
        logits, tuning, factor = arguments
        return ge.rebar_surrogate(lambda x: factor * cost(x), [logits], coins, KEY, N, *tuning)

    value, (d_logits, d_tuning, d_factor) = surrogate((LOGITS, TUNING, 1.0))
    np.testing.assert_allclose(d_logits, np.mean(jacobian(0.7, 0.8), 0), rtol=1e-3, atol=1e-4)
    slopes = [
        (second_moment(0.71, 0.8) - second_moment(0.69, 0.8)) / 0.02,
        (second_moment(0.7, 0.81) - second_moment(0.7, 0.79)) / 0.02,
    ]
    np.testing.assert_allclose(d_tuning, slopes, rtol=0.01)
    # What f closes over has no part in the gradient of the variance.
    np.testing.assert_allclose(d_factor, value, rtol=1e-5)


def test_descending_the_variance_lowers_it():
    """A black box f of integers, with a control variate that has to learn it."""

    def black_box(x):
        return jnp.array([0.0, 3.0, 1.0, 7.0, 2.0, 2.0, 5.0, 4.0])[x @ jnp.array([1, 2, 4])]

    def control(params, z):
        return jnp.tanh(z @ params["in"]) @ params["out"]

    keys = jax.random.split(KEY, 200)
    generator = np.random.default_rng(0)
    params = {
        "in": jnp.array(generator.normal(size=(3, 16)), jnp.float32),
        "out": jnp.array(generator.normal(size=16) * 0.1, jnp.float32),
    }

    @jax.jit
    def train(params):
        def step(params, key):
            loss = lambda p: ge.relax_surrogate(  # noqa: E731
                black_box, [LOGITS], coins, key, 64, control, p
            )
            gradient = jax.grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient), None

        return jax.lax.scan(step, params, keys)[0]

    @jax.jit
    def moments(params):
        (jacobian,) = ge.relax_jacobians(black_box, [LOGITS], coins, KEY, 50_000, control, params)
        (exact,) = ge.enumeration_jacobians(black_box, [LOGITS], coins)
        return jnp.mean(jacobian, 0), jnp.var(jacobian, 0), exact[0]

    variances = []
    for p in (params, train(params)):
        mean, variance, exact = moments(p)
        assert np.all(np.abs(mean - exact) <= 4 * np.sqrt(variance / 50_000))
        variances.append(np.sum(variance))
    assert variances[1] < 0.75 * variances[0]


def test_extreme_logits_give_finite_gradients():
    """Of every estimator that works on logits, and zero where nothing can move."""
    logits = jnp.array([0.3, 60.0, -60.0, 3e4, jnp.inf, -jnp.inf], jnp.float16)

    def f(x):
        return jnp.sum(x * (1 + jnp.arange(x.size))) ** 2 / 10

    def one_of_four(logits):
        return distrax.OneHotCategorical(logits=jnp.append(logits[jnp.array([0, 2, 5])], 0))

    @jax.jit
    def jacobians(logits):
        found = ge.rebar_jacobians(f, [logits], one_of_four, KEY, 100)
        for name in ("rebar", "gumbel_softmax", "straight_through", "disarm"):
            found += getattr(ge, f"{name}_jacobians")(f, [logits], coins, KEY, 100)
        return found

    for jacobian in jacobians(logits):
        assert np.any(jacobian != 0)
        assert jacobian.shape == (100, 6)
        assert jacobian.dtype == jnp.float16
        assert np.all(np.isfinite(jacobian))
        assert np.all(jacobian[:, 4:] == 0)


def test_errors():
    def call(estimator, *arguments):
        """Errors come while tracing: no value is needed for them."""
        jax.eval_shape(lambda: estimator(*arguments))

    def poisson(log_rate):
        return distrax.as_distribution(
            pytest.importorskip("tensorflow_probability.substrates.jax").distributions.Poisson(
                log_rate=log_rate
            )
        )

    for estimator in (ge.rebar_jacobians, ge.gumbel_softmax_jacobians):
        text = "must give a Bernoulli or categorical .* Try rloo_jacobians, dice_jacobians"
        with pytest.raises(TypeError, match=text):
            call(estimator, cost, [LOGITS], poisson, KEY, 5)
    text = "arm_surrogate: .* must give a Bernoulli distribution; got Categorical. .* rebar_surr"
    with pytest.raises(TypeError, match=text):
        call(ge.arm_surrogate, cost, [LOGITS], lambda x: distrax.Categorical(logits=x), KEY, 5)
    text = "got Multinomial"
    with pytest.raises(TypeError, match=text):
        call(ge.rebar_surrogate, cost, [LOGITS], lambda x: distrax.Multinomial(2, logits=x), KEY, 5)
    for estimator in (ge.rebar_jacobians, ge.gumbel_softmax_surrogate):
        with pytest.raises(ValueError, match="temperature must be > 0 and finite; got 0"):
            call(estimator, cost, [LOGITS], coins, KEY, 5, 0)
    with pytest.raises(ValueError, match=r"relax_jacobians: control_variate: .* got shape \(3,\)"):
        call(ge.relax_jacobians, cost, [LOGITS], coins, KEY, 5, lambda _, z: z, None)
    with pytest.raises(ValueError, match="disarm_jacobians: num_samples must be >= 1; got 0"):
        call(ge.disarm_jacobians, cost, [LOGITS], coins, KEY, 0)
    with pytest.raises(ValueError, match="rloo_jacobians: num_samples must be >= 2; got 1"):
        call(ge.rloo_jacobians, cost, [LOGITS], coins, KEY, 1)
    for name in ("rloo_jacobians", "rebar_surrogate", "vimco_surrogate"):
        with pytest.raises(
            TypeError, match=rf"{name}: .* independent .* got Redrawn, .* score_fun"
        ):
            call(getattr(ge, name), cost, [LOGITS], ge.antithetic(coins), KEY, 4)
