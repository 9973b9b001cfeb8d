"""Parameters of low precision: small updates are not lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import (
    GradientTransformation,
    MaskedNode,
    TreeMismatchError,
    add_decayed_weights,
    apply_updates,
    chain,
    masked,
    scale,
    trace,
)
from grad_core.structure import means_no_update
from grad_wrappers import (
    apply_if_finite,
    kahan_summation,
    lookahead,
    master_weights,
    stochastic_rounding,
)

BF16, F16 = jnp.bfloat16, jnp.float16


def rounding(inner):
    return stochastic_rounding(inner, key=1)


WRAPPERS = pytest.mark.parametrize("wrap", [master_weights, kahan_summation, rounding])


def users_own(step_size):
    """The same as `scale`, as users write it: it is called outside of compiled code."""
    return GradientTransformation(
        lambda params: (),
        lambda updates, state, params=None: (
            jax.tree.map(lambda g: step_size * g, updates),
            state,
        ),
    )


def run(tx, params, gradient, steps):
    """Parameters after some steps on one gradient, and the state."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]


@WRAPPERS
@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("inner", [scale, users_own])
def test_a_thousand_small_updates_arrive(wrap, dtype, inner):
    """From 1, and from 4 where nothing else would move; within 1% of the way in float32."""
    for first in (1.0, 4.0):
        params, gradient = jnp.full(4096, first, dtype), jnp.ones(4096, dtype)
        last, _ = run(wrap(inner(-1e-3)), params, gradient, 1000)
        assert last.dtype == dtype
        exact, _ = run(inner(-1e-3), params.astype("float32"), gradient.astype("float32"), 1000)
        np.testing.assert_allclose(last.astype("float32").mean(), exact.mean(), atol=0.01)
        plain, _ = run(inner(-1e-3), params, gradient, 1000)
        if dtype == BF16:
            assert plain[0] == first


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("jit", [False, True])
def test_parameters_are_rounded_master_weights(dtype, jit):
    """Exactly, through sign changes, large steps, subnormal numbers; `apply_updates` in the jit."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=4096) * 10.0 ** rng.uniform(-7, 1, 4096), dtype)
    tx = master_weights(scale(-1.0))

    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state = tx.init(params)
    exact = np.asarray(params, np.float32)
    for _ in range(20):
        size = np.abs(np.asarray(params, np.float32)) + 1e-6
        gradient = jnp.asarray(rng.normal(size=4096) * size, "float32")
        params, state = step(gradient, state, params)
        exact = exact - np.asarray(gradient)
        np.testing.assert_array_equal(state.master, exact)
        np.testing.assert_array_equal(params, jnp.asarray(exact).astype(dtype))


@WRAPPERS
def test_the_parameter_is_reached_exactly(wrap):
    """What the wrapper wants is a number of the dtype, and `apply_updates` ends there."""
    params = jnp.asarray(np.random.default_rng(0).normal(size=1000), BF16)
    tx = wrap(scale(-1.0))
    updates, _ = tx.update(0.7 * params, tx.init(params), params)
    wanted = params.astype("float32") + updates
    np.testing.assert_array_equal(apply_updates(params, updates).astype("float32"), wanted)


def test_master_weights_are_what_is_optimized():
    """Weight decay and momentum see float32; the result is that of float32 parameters, rounded."""
    inner = chain(trace(0.9), add_decayed_weights(0.1), scale(-0.01))
    params, gradient = jnp.linspace(0.1, 2.0, 50).astype(BF16), jnp.linspace(-1, 1, 50).astype(BF16)
    last, state = run(master_weights(inner), params, gradient, 30)
    wide = params.astype("float32"), gradient.astype("float32")
    exact, inner_state = run(inner, *wide, 30)
    np.testing.assert_allclose(state.master, exact, rtol=1e-6)
    np.testing.assert_array_equal(last, state.master.astype(BF16))
    np.testing.assert_allclose(state.inner_state[0].trace, inner_state[0].trace, rtol=1e-6)


def test_moved_parameters_are_copied_anew():
    tx = master_weights(scale(-1e-3))
    params = jnp.ones(2, BF16)
    state = tx.init(params)
    _, state = tx.update(jnp.ones(2, BF16), state, params)
    _, state = tx.update(jnp.ones(2, BF16), state, jnp.array([1.0, 5.0], BF16))
    np.testing.assert_allclose(state.master, [1 - 2e-3, 5 - 1e-3], rtol=1e-6)


def test_master_weights_of_lookahead():
    """Each two steps of -1e-3 make one of -1e-3, since the slow parameters go half of the way."""
    tx = master_weights(lookahead(scale(-1e-3), sync_period=2, slow_step_size=0.5))
    params, state = run(tx, jnp.ones((), BF16), jnp.ones((), BF16), 1000)
    np.testing.assert_allclose(params, 0.5, rtol=2**-8)
    assert state.inner_state.slow.dtype == jnp.float32


@WRAPPERS
def test_wide_parameters_cost_nothing(wrap):
    params = {"bf16": jnp.ones((2, 3), BF16), "f32": jnp.ones(5), "c64": jnp.ones(2, "complex64")}
    gradients = jax.tree.map(lambda p: 0.1 * p, params)
    tx = wrap(trace(0.9))
    state = tx.init(params)
    updates, after = tx.update(gradients, state, params)
    np.testing.assert_array_equal(updates["f32"], gradients["f32"])
    np.testing.assert_array_equal(updates["c64"], gradients["c64"])
    assert {k: u.dtype for k, u in updates.items()} == {
        "bf16": jnp.float32,
        "f32": jnp.float32,
        "c64": jnp.complex64,
    }
    own = [x for x in jax.tree.leaves(state[:1]) if jnp.issubdtype(x.dtype, jnp.floating)]
    sizes = {master_weights: [24], kahan_summation: [12], rounding: []}
    assert [x.nbytes for x in own] == sizes[wrap]
    if wrap is not rounding:
        assert state[0]["f32"] == MaskedNode()
    assert jax.tree.map(jnp.dtype, _dtypes(state)) == jax.tree.map(jnp.dtype, _dtypes(after))


def _dtypes(tree):
    return [jax.typeof(x).dtype for x in jax.tree.leaves(tree) if x.ndim]


@WRAPPERS
def test_leaves_without_updates_stay(wrap):
    params = {"a": jnp.ones(2, BF16), "b": jnp.ones(3, BF16), "c": None, "d": MaskedNode()}
    tx = wrap(scale(-1e-3))
    first = tx.init(params)
    for nothing in (None, MaskedNode(), np.zeros(3, jax.dtypes.float0)):
        gradients = {**params, "b": nothing}
        updates, state = tx.update(gradients, first, params)
        assert means_no_update(updates["b"])
        assert jax.tree.structure(state) == jax.tree.structure(first)
        moved = apply_updates(params, updates)
        np.testing.assert_array_equal(moved["b"], params["b"])
    split = masked(wrap(scale(-1e-3)), {"a": True, "b": False, "c": True, "d": True})
    split.update(params, split.init(params), params)


@WRAPPERS
def test_states_can_be_carried_donated_and_batched(wrap):
    """In bfloat16, as the suite's check, which wants updates of the gradient's dtype, cannot."""
    params = {"w": jnp.ones((4, 3), BF16)}
    tx = wrap(trace(0.5))
    state = tx.init(params)
    types = jax.tree.map(jax.typeof, state)
    update = jax.jit(tx.update, donate_argnums=1)
    for _ in range(2):
        updates, state = update(params, state, params)
        assert jax.tree.map(jax.typeof, state) == types
    assert updates["w"].dtype == jnp.float32
    batch = jax.vmap(lambda p: run(tx, p, p, 2)[0])(params)
    assert batch["w"].shape == (4, 3)


def test_compensation_recovers_what_rounding_took():
    """The pair is the exact sum, but for rounding of at most 2^-17 in each step.

    The compensation of numbers in [1, 2) is at most 2^-8, and has 8 digits.
    """
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.uniform(1, 2, 100), BF16)
    gradient = jnp.asarray(rng.uniform(1e-3, 2e-3, 100), "float32")
    last, state = run(kahan_summation(scale(-1.0)), params, gradient, 100)
    pair = last.astype("float32") + state.compensation.astype("float32")
    exact = params.astype("float32") - 100 * gradient
    np.testing.assert_allclose(pair, exact, rtol=0, atol=100 * 2**-17)
    np.testing.assert_allclose(last, exact, rtol=2**-8)


@WRAPPERS
def test_infinity_stays_infinity(wrap):
    params = jnp.array([jnp.inf, -jnp.inf], BF16)
    tx = wrap(scale(1.0))
    updates, _ = tx.update(jnp.ones(2, BF16), tx.init(params), params)
    np.testing.assert_array_equal(apply_updates(params, updates), params)


def test_compensation_forgets_infinity():
    tx = kahan_summation(scale(1.0))
    params = jnp.ones(2, BF16)
    _, state = tx.update(jnp.array([jnp.inf, 1e-3], BF16), tx.init(params), params)
    assert jnp.isfinite(state.compensation).all()


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("start", [1.0, -3.0, 1e-3, 2e-6])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_stochastic_rounding_is_unbiased(dtype, start, fraction):
    """Over 10^5 draws the mean is within 5 standard deviations; only neighbours are drawn."""
    n = 100_000
    params = jnp.full(n, start, dtype)
    low = float(params[0])
    up = np.nextafter(np.asarray(params[:1]), np.asarray([1e4], params.dtype))
    unit = float(up[0]) - low
    tx = stochastic_rounding(scale(1.0), key=3)
    gradient = jnp.full(n, fraction * unit, "float32")
    updates, _ = tx.update(gradient, tx.init(params), params)
    new = np.asarray(apply_updates(params, updates), np.float64)
    assert set(np.unique(new)) == {low, low + unit}
    deviation = unit * np.sqrt(fraction * (1 - fraction) / n)
    assert abs(new.mean() - (low + fraction * unit)) < 5 * deviation


def test_stochastic_rounding_of_numbers_that_are_not_finite():
    largest = float(jnp.finfo(BF16).max)
    params = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 1.0, largest, 0.0], BF16)
    gradient = jnp.array([0.0, 0.0, 0.0, jnp.inf, largest / 2**12, 0.0], "float32")
    tx = stochastic_rounding(scale(1.0), key=0)
    for seed in range(5):
        tx = stochastic_rounding(scale(1.0), key=seed)
        updates, _ = tx.update(gradient, tx.init(params), params)
        new = np.asarray(apply_updates(params, updates), np.float32)
        np.testing.assert_array_equal(np.isnan(new), [False, False, True, False, False, False])
        np.testing.assert_array_equal(new[[0, 1, 3, 4, 5]], [np.inf, -np.inf, np.inf, largest, 0])


@pytest.mark.parametrize(
    "key", [7, np.int64(7), 2**40, jax.random.key(7), jax.random.PRNGKey(7)], ids=repr
)
def test_keys_of_every_kind(key):
    tx = stochastic_rounding(scale(1.0), key)
    params = jnp.ones(1000, BF16)
    state = tx.init(params)
    first, state = tx.update(1e-3 * params, state, params)
    second, _ = tx.update(1e-3 * params, state, params)
    assert (np.asarray(first) != np.asarray(second)).any()
    with pytest.raises(TypeError, match="stochastic_rounding: key must be a random key or an int"):
        stochastic_rounding(scale(1.0), 0.5)


@WRAPPERS
@pytest.mark.parametrize(("dtype", "unit"), [(BF16, 2**-8), (F16, 2**-11)])
def test_inside_a_wrapper_that_keeps_the_dtypes_of_gradients(wrap, dtype, unit):
    """Exact where p' is between p / 2 and 2 p; a larger step is rounded, relative to itself."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=1000), dtype)
    inner = scale(-0.7)  # whose steps are no numbers of the dtype
    outermost, inside = wrap(inner), apply_if_finite(wrap(inner), 2)
    for sizes, error in (((-0.9, 0.45), 0.0), ((0.6, 1.4), unit), ((-5.0, -1.1), unit)):
        gradient = jnp.asarray(params * rng.uniform(*sizes, 1000) / 0.7, dtype)
        updates, _ = outermost.update(gradient, outermost.init(params), params)
        found, _ = inside.update(gradient, inside.init(params), params)
        assert (updates.dtype, found.dtype) == (jnp.float32, dtype)
        target, reached = apply_updates(params, updates), apply_updates(params, found)
        target, reached = np.asarray(target, float), np.asarray(reached, float)
        bound = error * (np.abs(updates) + np.abs(target))
        assert (np.abs(reached - target) <= bound).all()
        assert error == 0 or (reached != target).any()
    small = jnp.full(1000, 1e-3, dtype)
    first = jnp.ones(1000, dtype)
    arrived = [np.mean(run(tx, first, small, 100)[0], dtype=float) for tx in (outermost, inside)]
    np.testing.assert_allclose(arrived, 1 - 70 * float(small[0]), atol=unit)


@WRAPPERS
def test_shapes_must_agree(wrap):
    params = {"w": jnp.ones((2, 3), BF16)}
    tx = wrap(scale(1.0))
    with pytest.raises(TreeMismatchError, match=r"updates\['w'\] has shape \(1, 3\)"):
        tx.update({"w": jnp.ones((1, 3), BF16)}, tx.init(params), params)
    with pytest.raises(ValueError, match="current value of the parameters"):
        tx.update(params, tx.init(params))
