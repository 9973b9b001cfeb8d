"""Line searches: the conditions they promise, what they return when they fail, their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MaskedNode, apply_updates, chain, masked, partition, scale
from grad_second_order import (
    lbfgs,
    scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch,
    value_and_grad_from_state,
)

ZOOM, BACK = scale_by_zoom_linesearch(15), scale_by_backtracking_linesearch(30, store_grad=True)
BOTH = pytest.mark.parametrize("search", [ZOOM, BACK], ids=["zoom", "backtracking"])


def wavy(x):
    """Convex far away, with many local minima along the way."""
    return jnp.sum(0.05 * x**2 + jnp.sin(3 * x) + x)


def on_line(f, x, u, t):
    value, slope = jax.jvp(lambda t: f(x + t * u), (t,), (1.0,))
    return float(value), float(slope)


def search_once(search, f, x, u, **extra_args):
    value, grad = jax.value_and_grad(f)(x)
    return search.update(u, search.init(x), x, value=value, grad=grad, value_fn=f, **extra_args)


@pytest.mark.parametrize("length", [1e-3, 0.05, 1.0, 40.0])
def test_zoom_meets_the_strong_wolfe_conditions(length):
    c1, c2 = 0.4, 0.45
    search = scale_by_zoom_linesearch(40, slope_rtol=c1, curv_rtol=c2, approx_dec_rtol=None)
    with jax.enable_x64(True):
        for x in (jnp.array([7.0]), jnp.array([-3.0]), jnp.array([2.0, -9.0])):
            u = -length * jax.grad(wavy)(x)
            updates, state = search_once(search, wavy, x, u)
            t = float(state.learning_rate)
            f0, slope0 = on_line(wavy, x, u, 0.0)
            f1, slope1 = on_line(wavy, x, u, t)
            assert f1 <= f0 + c1 * t * slope0
            assert abs(slope1) <= c2 * abs(slope0)
            assert state.info.decrease_error == state.info.curvature_error == 0
            np.testing.assert_allclose(updates, t * u, rtol=1e-12)
            np.testing.assert_allclose(state.value, f1, rtol=1e-12)
            np.testing.assert_allclose(state.grad, jax.grad(wavy)(x + t * u), rtol=1e-12)


def test_zoom_takes_at_most_so_many_and_so_long_steps():
    far = lambda x: jnp.sum((x - 100.0) ** 2)  # noqa: E731
    x = jnp.zeros(1)
    _, state = search_once(scale_by_zoom_linesearch(30, max_learning_rate=3.0), far, x, x + 1)
    assert (state.learning_rate, state.info.num_linesearch_steps) == (3.0, 3)  # 1, 2, 3
    _, state = search_once(
        scale_by_zoom_linesearch(3, increase_factor=4.0, curv_rtol=0.5), far, x, x + 1
    )
    assert (state.learning_rate, state.info.num_linesearch_steps) == (16.0, 3)  # 1, 4, 16
    assert state.info.curvature_error > 0
    state = scale_by_zoom_linesearch(9).init(x)._replace(learning_rate=jnp.float32(50.0))
    for how, first in (("keep", 50.0), ("one", 1.0)):
        search = scale_by_zoom_linesearch(1, initial_guess_strategy=how)
        assert search.update(x + 1, state, x, value_fn=far)[1].learning_rate == first


def test_near_a_minimum_slopes_decide():
    f = lambda x: 1e6 + jnp.sum(x**2)  # noqa: E731  # float32 cannot tell these values apart
    x = jnp.array([1e-3])
    for eps, moved in ((1e-6, True), (None, False)):
        search = scale_by_zoom_linesearch(10, approx_dec_rtol=eps)
        updates, state = search_once(search, f, x, -x)
        assert (updates[0] != 0) == moved == (state.info.decrease_error == 0)


def test_backtracking_takes_the_first_that_falls_enough():
    c, beta, f = 0.3, 0.7, lambda x: float(np.sum(x**4))
    x, u = np.array([1.0, -2.0]), np.array([-4.0, 32.0])
    steps = beta ** np.arange(31)
    slope = np.sum(4 * x**3 * u)
    first = next(t for t in steps if f(x + t * u) <= f(x) + c * t * slope)
    search = scale_by_backtracking_linesearch(30, slope_rtol=c, decrease_factor=beta)
    with jax.enable_x64(True):
        fun = lambda x: jnp.sum(x**4)  # noqa: E731
        updates, state = search_once(search, fun, jnp.asarray(x), jnp.asarray(u))
        np.testing.assert_allclose(updates, first * u, rtol=1e-12)
        assert state.info.num_linesearch_steps == np.flatnonzero(steps == first)[0] + 1
        assert state.grad is None
        # The next one starts at 1.5 times that.
        _, again = search.update(jnp.asarray(1e-6 * u), state, jnp.asarray(x), value_fn=fun)
        np.testing.assert_allclose(again.learning_rate, 1.5 * first, rtol=1e-12)


def test_backtracking_may_rise_by_its_tolerances():
    f = lambda x: jnp.sum(x**2) - 100.0  # noqa: E731
    x = jnp.array([1.0])
    for kwargs in ({"atol": 9.0}, {"rtol": 0.09}):  # |f| = 99, and 100 * 0.09 = 9
        search = scale_by_backtracking_linesearch(5, slope_rtol=0.0, **kwargs)
        _, state = search_once(search, f, x, -4 * x)  # f rises by 8 at the whole step
        assert state.learning_rate == state.info.num_linesearch_steps == 1
        assert state.value == f(x - 4 * x)


@BOTH
def test_searches_that_fail_leave_parameters_where_they_are(search):
    x = jnp.array([1.0, 2.0])

    def square(x):
        return jnp.sum(x**2)

    nowhere = {
        "uphill": (square, x),
        "nan everywhere else": (lambda y: jnp.where((y == x).all(), square(y), jnp.nan), -x),
        "infinite everywhere else": (lambda y: jnp.where((y == x).all(), square(y), jnp.inf), -x),
        "nan": (lambda y: jnp.nan * square(y), -x),
        "infinite direction": (square, jnp.array([-jnp.inf, 1.0])),
    }
    for why, (f, u) in nowhere.items():
        updates, state = search_once(search, f, x, u)
        assert (updates == 0).all(), why
        assert state.info.decrease_error > 0, why
        np.testing.assert_array_equal(state.value, f(x))
        assert jnp.isfinite(state.learning_rate), why
    updates, state = search_once(search, square, x, jnp.zeros(2))
    assert (updates == 0).all()
    assert state.info.decrease_error == 0  # there was nothing to decrease
    # Shrinking goes on where values end.
    updates, state = search_once(search, lambda y: jnp.where(y[0] < 0.9, jnp.nan, square(y)), x, -x)
    assert state.info.decrease_error == 0
    assert -0.1 <= updates[0] < 0


@BOTH
def test_value_and_gradient_are_optional_and_the_batch_reaches_value_fn(search):
    def loss(x, batch, *, weight=1.0):
        return weight * jnp.sum((x - batch) ** 2)

    x, batch = jnp.zeros(2), jnp.array([1.0, 3.0])
    u = -jax.grad(loss)(x, batch, weight=2.0)
    given = {"value_fn": loss, "batch": batch, "weight": jnp.float32(2.0), "unknown": 1}
    updates, state = search.update(u, search.init(x), x, **given)
    value, grad = jax.value_and_grad(loss)(x, batch, weight=2.0)
    same, _ = search.update(u, search.init(x), x, value=value, grad=grad, **given)
    np.testing.assert_array_equal(updates, same)
    np.testing.assert_allclose(state.value, loss(x + updates, batch, weight=2.0), rtol=1e-6)
    get = value_and_grad_from_state(loss)
    for known in (search.init(x), state):  # computed, and looked up
        moved = x if known is not state else x + updates
        value, grad = get(moved, batch, weight=2.0, state=known)
        np.testing.assert_allclose(value, loss(moved, batch, weight=2.0), rtol=1e-6)
        np.testing.assert_allclose(grad, jax.grad(loss)(moved, batch, weight=2.0), rtol=1e-6)
    assert get(moved, 0 * batch, state=state)[0] == state.value  # it was not computed


def test_value_and_grad_from_state_needs_them_and_knows_when_they_are_old():
    x = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def f(x):
        return jnp.sum(x["a"] ** 2 + x["b"] ** 2)

    get = value_and_grad_from_state(f)
    for state in ((), scale_by_backtracking_linesearch(3).init(x)):
        with pytest.raises(ValueError, match=r"value_and_grad_from_state: .*store_grad=True"):
            get(x, state=state)
    parts = [
        partition({0: ZOOM, 1: scale(-1.0)}, labels, mask_compatible_extra_args=True)
        for labels in ({"a": 0, "b": 1}, {"a": 0, "b": 0})
    ]
    for tx in (*parts, chain(ZOOM, ZOOM)):
        state = tx.init(x)
        value, grad = jax.value_and_grad(f)(x)
        u = jax.tree.map(lambda g: -g, grad)
        updates, state = tx.update(u, state, x, value=value, grad=grad, value_fn=f)
        moved = apply_updates(x, updates)
        np.testing.assert_allclose(get(moved, state=state)[0], f(moved), rtol=1e-6)


def test_inside_partition_and_masked_a_search_moves_its_part_alone():
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}

    def f(x):
        return jnp.sum(x["a"] ** 2) * (1 + jnp.sum(x["b"] ** 2))

    value, grad = jax.value_and_grad(f)(x)
    steps = jax.tree.map(lambda g: -g, grad)
    args = {"value": value, "grad": grad, "value_fn": f}
    alone, _ = search_once(ZOOM, lambda a: f({**x, "a": a}), x["a"], steps["a"])
    transforms = {"search": ZOOM, "still": scale(0.0)}
    labels = {"a": "search", "b": "still"}
    for tx in (
        partition(transforms, labels, mask_compatible_extra_args=True),
        partition(transforms, lambda tree: labels, mask_compatible_extra_args=True),
        masked(ZOOM, {"a": True, "b": False}, mask_compatible_extra_args=True),
    ):
        for update in (tx.update, jax.jit(lambda *x, tx=tx: tx.update(*x, **args))):
            updates, state = update(steps, tx.init(x), x, **(args if update is tx.update else {}))
            np.testing.assert_allclose(updates["a"], alone, rtol=1e-6)
    assert isinstance(state.inner_state.grad["b"], MaskedNode)
    without = partition(transforms, labels)
    with pytest.raises(ValueError, match=r"grad.*mask_compatible_extra_args=True"):
        without.update(steps, without.init(x), x, **args)


def test_complex_parameters():
    def f(z):
        return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2)

    z = jnp.zeros(2, jnp.complex64)
    value, grad = jax.value_and_grad(f)(z)
    for search in (ZOOM, BACK):
        updates, state = search.update(
            -0.5 * jnp.conj(grad), search.init(z), z, value=value, grad=grad, value_fn=f
        )
        np.testing.assert_allclose(updates, [1 + 2j, 1 + 2j], rtol=1e-6)
        assert state.value.dtype == jnp.float32


@BOTH
def test_errors(search):
    x = jnp.ones(2)
    state = search.init(x)
    for error, words, kwargs in (
        (ValueError, "linesearch.*value_fn", {}),
        (ValueError, r"linesearch.*shape \(\)", {"value_fn": lambda x: x**2}),
        (TypeError, "linesearch.*real floating", {"value_fn": lambda x: jnp.sum(x).astype(int)}),
        (ValueError, r"linesearch.*value must be a number", {"value_fn": jnp.sum, "value": x}),
        (
            ValueError,
            r"linesearch.*grad has shape \(3,\)",
            {"value_fn": jnp.sum, "grad": jnp.ones(3)},
        ),
    ):
        with pytest.raises(error, match=words):
            search.update(-x, state, x, **kwargs)
    with pytest.raises(ValueError, match="Was it made by another init"):
        search.update(-x, (), x, value_fn=jnp.sum)


def test_bad_arguments():
    for bad, words in (
        ({"max_linesearch_steps": 0}, "max_linesearch_steps must be >= 1; got 0"),
        ({"max_linesearch_steps": 9, "tol": -1.0}, "tol"),
        ({"max_linesearch_steps": 9, "initial_guess_strategy": "two"}, "one of keep, one"),
    ):
        with pytest.raises(ValueError, match=words):
            scale_by_zoom_linesearch(**bad)
    with pytest.raises(ValueError, match="max_backtracking_steps must be >= 0; got -1"):
        scale_by_backtracking_linesearch(-1)
    with pytest.raises(ValueError, match="decrease_factor"):
        scale_by_backtracking_linesearch(3, decrease_factor=1.5)


def test_verbose_prints(capfd):
    x = jnp.ones(2)
    for search in (
        scale_by_zoom_linesearch(5, verbose=True),
        scale_by_backtracking_linesearch(5, verbose=True),
    ):
        search.update(-x, search.init(x), x, value_fn=lambda x: jnp.sum(x**2))
        jax.effects_barrier()
        assert "line search: step size" in capfd.readouterr().out


def test_lbfgs_searches_are_compiled_once_in_a_jitted_step():
    calls = []

    def f(x):
        calls.append(1)
        return jnp.sum(x**2)

    tx = lbfgs()

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad_from_state(f)(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        return apply_updates(x, updates), state

    x = jnp.arange(3.0)
    state = tx.init(x)
    for _ in range(4):
        x, state = step(x, state)
        seen = len(calls)
    assert seen <= 3
    np.testing.assert_allclose(x, 0, atol=1e-6)
