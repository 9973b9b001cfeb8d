"""Accumulation: k microbatches make one step, exactly, at no more memory than it needs."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_wrappers import (
    MultiSteps,
    MultiStepsState,
    apply_every,
    skip_large_updates,
    skip_not_finite,
)

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}


def momentum(rate=-0.1):
    return gc.chain(gc.trace(0.9), gc.add_decayed_weights(0.01), gc.scale(rate))


def gradient(value, params=PARAMS):
    return jax.tree.map(lambda p: jnp.full_like(p, value), params)


def run(tx, values, params=PARAMS, **extra_args):
    """The first entry of each update on constant gradients, and the last state."""
    state = tx.init(params)
    seen = []
    for value in values:
        updates, state = tx.update(gradient(value, params), state, params, **extra_args)
        seen.append(float(np.ravel(jax.tree.leaves(updates)[0])[0]))
    return seen, state


def jitted(tx):
    return tx._replace(init=jax.jit(tx.init), update=jax.jit(tx.update))


def foreign(step=lambda g: g):
    """Somebody else's momentum, whose state takes the dtype of what comes in."""

    def update(updates, state, params=None):
        state = jax.tree.map(lambda s, g: 0.5 * s + g, state, updates)
        return jax.tree.map(step, state), state

    return gc.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


@pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
@pytest.mark.parametrize("inner", [momentum, foreign], ids=["ours", "foreign"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_microbatches_are_one_batch(k, inner, wrap):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)

    def loss(params, x, y):
        return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)

    plain, accumulated = inner(), wrap(MultiSteps(inner(), k))
    expected = found = PARAMS
    plain_state, state = plain.init(PARAMS), accumulated.init(PARAMS)
    for _ in range(3):
        updates, plain_state = plain.update(jax.grad(loss)(expected, x, y), plain_state, expected)
        expected = gc.apply_updates(expected, updates)
        for part in zip(np.split(x, k), np.split(y, k), strict=True):
            updates, state = accumulated.update(jax.grad(loss)(found, *part), state, found)
            found = gc.apply_updates(found, updates)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5), found, expected)
    assert (int(state.mini_step), int(state.gradient_step)) == (0, 3)


@pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
def test_means_and_sums(wrap):
    values = [1.0, 2.0, 6.0, 4.0, 5.0]
    seen, state = run(wrap(MultiSteps(gc.scale(-1.0), 3)), values)
    assert seen == [0, 0, -3, 0, 0]
    np.testing.assert_allclose(state.acc_grads["w"], 4.5)
    assert (int(state.mini_step), int(state.gradient_step)) == (2, 1)
    seen, state = run(wrap(MultiSteps(gc.scale(-1.0), 3, use_grad_mean=False)), values)
    assert seen == [0, 0, -9, 0, 0]
    np.testing.assert_allclose(state.acc_grads["w"], 9.0)


def test_the_mean_is_right_to_float32():
    """Of bfloat16 gradients, of which a sum in bfloat16 would stop to grow, and of large ones."""
    params = {"w": jnp.zeros(64, jnp.bfloat16)}
    gradients = jax.random.uniform(jax.random.key(0), (512, 64), jnp.bfloat16)
    seen = {}

    def keep(updates, state, params=None):
        seen.update(updates)
        return updates, state

    spy = gc.GradientTransformation(lambda params: (), keep)
    tx = MultiSteps(spy, 512)
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update({"w": g}, state)
    mean = np.mean(np.asarray(gradients, np.float64), axis=0)
    assert seen["w"].dtype == jnp.float32
    np.testing.assert_allclose(seen["w"], mean, rtol=3e-6)
    assert updates["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates["w"], mean.astype(jnp.bfloat16))
    assert run(MultiSteps(gc.scale(1.0), 4), [3e38] * 4)[0] == [0, 0, 0, np.float32(3e38)]


@pytest.mark.parametrize(
    ("dtype", "accumulator_dtype", "due"),
    [
        ("bfloat16", jnp.float32, "float32"),
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", jnp.bfloat16, "bfloat16"),
        ("float32", jnp.bfloat16, "bfloat16"),
        ("float64", jnp.float32, "float64"),
        ("complex64", jnp.float32, "complex64"),
        ("complex64", jnp.bfloat16, "complex64"),
        ("complex64", None, "complex64"),
        ("complex128", jnp.float32, "complex128"),
    ],
)
def test_dtypes_of_accumulators(dtype, accumulator_dtype, due):
    with jax.enable_x64("128" in dtype or "64" in dtype):
        params = {"w": jnp.ones(2, dtype)}
        turn = 1j if "complex" in dtype else 1.0
        g = {"w": jnp.asarray(np.array([1.0, 3.0]) * turn, dtype)}
        tx = MultiSteps(gc.trace(0.5), 2, accumulator_dtype=accumulator_dtype)
        state = first = tx.init(params)
        for _ in range(2):
            assert state.acc_grads["w"].dtype == due
            updates, state = tx.update(g, state)
        assert updates["w"].dtype == dtype
        np.testing.assert_array_equal(updates["w"], g["w"])
        dtypes = [[x.dtype for x in jax.tree.leaves(each)] for each in (state, first)]
        assert dtypes[0] == dtypes[1]


@pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
def test_a_foreign_state_keeps_its_dtype(wrap):
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    seen, state = run(wrap(MultiSteps(foreign(), 2)), [1.0, 3.0, 1.0, 1.0], params)
    assert seen == [0, 2, 0, 2]
    assert state.inner_opt_state["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_numbers_that_are_not_finite_do_not_stay(bad):
    seen, _ = run(MultiSteps(gc.scale(1.0), 2), [bad, 1.0, 2.0, 4.0])
    assert not np.isfinite(seen[1])
    assert seen[3] == 3
    seen, _ = run(apply_every(2), [bad, 1.0, 2.0, 4.0])
    assert not np.isfinite(seen[1])
    assert (seen[0], seen[2], seen[3]) == (0, 0, 6)


def growing(step):
    return jnp.where(step < 1, 1, 3)


@gc.schedule
def our_growing() -> gc.Schedule:
    return growing


@pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
@pytest.mark.parametrize("schedule", [growing, our_growing()], ids=["user's", "ours"])
def test_a_schedule_for_k(schedule, wrap):
    seen, state = run(wrap(MultiSteps(gc.scale(1.0), schedule)), [1.0, 2.0, 3.0, 7.0, 5.0])
    assert seen == [1, 0, 0, 4, 0]
    assert (int(state.mini_step), int(state.gradient_step)) == (1, 2)


def test_a_users_schedule_is_called_with_the_number_of_steps():
    counts = []

    def schedule(step):
        counts.append(step)
        return 2

    run(MultiSteps(gc.scale(1.0), schedule), [1.0] * 5)
    assert [int(c) for c in counts] == [0, 0, 1, 1, 2]


def test_schedules_inside_count_steps():
    inner = gc.scale_by_learning_rate(lambda count: 0.5**count)
    tx = gc.chain(gc.clip(100.0), MultiSteps(inner, 2))
    seen, state = run(tx, [8.0] * 6)
    assert seen == [0, -8, 0, -4, 0, -2]
    np.testing.assert_allclose(gc.current_learning_rate(tx, state), 0.125)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
@pytest.mark.parametrize("inner", [lambda: gc.scale(-1.0), lambda: foreign(jnp.negative)])
@pytest.mark.parametrize("skip", [skip_not_finite, lambda *args: skip_not_finite(*args)])
def test_skipped_gradients_might_not_have_been(skip, inner, wrap, k):
    values = [1.0, np.nan, 3.0, np.inf, 4.0, 8.0]
    kept = [value for value in values if np.isfinite(value)]
    expected, plain = run(MultiSteps(inner(), k), kept)
    seen, state = run(wrap(MultiSteps(inner(), k, should_skip_update_fn=skip)), values)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.asarray(seen)[finite], expected)
    np.testing.assert_array_equal(np.asarray(seen)[~finite], 0)
    jax.tree.map(np.testing.assert_array_equal, state._replace(skip_state=()), plain)
    assert not state.skip_state["should_skip"]
    assert int(state.skip_state["num_not_finite"]) == 0


def test_it_says_whether_it_has_updated():
    tx = MultiSteps(gc.scale(1.0), 2, should_skip_update_fn=skip_not_finite)
    state = tx.init(PARAMS)
    has = [bool(tx.has_updated(state))]
    for value in [1.0, 1.0, np.nan, 1.0, np.nan, 1.0]:
        _, state = tx.update(gradient(value), state)
        has.append(bool(tx.has_updated(state)))
    assert has == [False, False, True, False, False, False, True]


def test_a_users_reason_to_skip_is_asked_outside_of_compiled_code():
    asked = []

    def skip(updates, gradient_step, params):
        asked.append((updates["w"], gradient_step, params["w"]))
        return updates["w"][0] > 5, {"first": updates["w"][0]}

    tx = MultiSteps(momentum(), 2, should_skip_update_fn=skip)
    seen, state = run(tx, [1.0, 9.0, 3.0])
    leaves = jax.tree.leaves(asked)
    assert len(asked) == 4
    assert not any(isinstance(x, jax.core.Tracer) for x in leaves)
    assert (int(state.gradient_step), float(state.skip_state["first"])) == (1, 3.0)
    assert seen[1] == 0


def test_large_updates_are_skipped():
    size = 4 * 1.5**2
    for bound, due in [(size, True), (np.nextafter(size, 99.0, dtype=np.float32), False)]:
        skip, details = skip_large_updates(gradient(1.5), 0, None, bound)
        assert bool(skip) == bool(details["should_skip"]) == due
        assert float(details["norm_squared"]) == size
    half = {"w": jnp.full(3, 300.0, jnp.float16), "frozen": None}
    assert float(skip_large_updates(half, 0, None, 1.0)[1]["norm_squared"]) == 270000
    assert skip_large_updates(gradient(jnp.nan), 0, None, jnp.inf)[0]
    assert not skip_large_updates({}, 0, None, 1.0)[0]
    skip = functools.partial(skip_large_updates, max_squared_norm=30.0)
    tx = MultiSteps(gc.scale(1.0), 2, should_skip_update_fn=skip)
    assert run(tx, [1.0, 10.0, 2.0])[0] == [0, 0, 1.5]


def test_numbers_that_are_not_finite_are_counted():
    float0 = np.zeros(2, jax.dtypes.float0)
    tree = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array(-jnp.inf), "c": None, "d": float0}
    skip, details = skip_not_finite(tree, 0, None)
    assert skip
    assert int(details["num_not_finite"]) == 2
    assert not skip_not_finite({}, 0, None)[0]


def test_it_composes():
    """It stands where any transformation does, also in groups of parameters."""
    values = [1.0, 3.0, 2.0, 4.0]
    due = [0, 2, 0, 3]
    tx = gc.chain(gc.scale(10.0), MultiSteps(gc.trace(0.0), 2), gc.scale(0.1))
    np.testing.assert_allclose(run(tx, values)[0], due, rtol=1e-6)
    masked = gc.masked(MultiSteps(gc.scale(1.0), 2), {"b": True, "w": False})
    seen, _ = run(masked, values)
    assert seen == due
    split = gc.partition({"b": MultiSteps(gc.scale(1.0), 2), "w": gc.scale(5.0)})
    state = split.init(PARAMS)
    for value, b in zip(values, due, strict=True):
        updates, state = split.update(gradient(value), state)
        assert (float(updates["b"]), float(updates["w"][0])) == (b, 5 * value)
    nested = MultiSteps(MultiSteps(gc.scale(1.0), 2), 2)
    assert run(nested, [1.0, 2.0, 3.0, 6.0])[0] == [0, 0, 0, 3]
    adder = MultiSteps(gc.add_decayed_weights(1.0), 2)
    np.testing.assert_allclose(run(adder, [1.0, 3.0])[0], [0, 2.5])


@pytest.mark.parametrize("k", [1, 2, growing])
@pytest.mark.parametrize("skip", [None, skip_not_finite, lambda *args: skip_not_finite(*args)])
def test_extra_arguments_arrive(k, skip):
    by_value = gc.rule(
        lambda: gc.LeafRule(lambda g, value: value * g, once=lambda value: {"value": value})
    )
    tx = gc.chain(MultiSteps(by_value(), k, should_skip_update_fn=skip))
    seen, _ = run(tx, [1.0, 1.0, 1.0], value=7.0, other="x")
    assert 7 in seen


def test_its_class_is_what_users_know():
    inner = gc.trace(0.9)
    tx = MultiSteps(inner, every_k_schedule=4)
    assert isinstance(tx, gc.GradientTransformationExtraArgs)
    assert repr(tx) == "MultiSteps(trace(decay=0.9), every_k_schedule=4)"
    assert repr(gc.chain(tx)) == f"chain({tx!r})"
    assert tx.gradient_transformation() == tx == MultiSteps(gc.trace(0.9), 4)
    assert tx != MultiSteps(inner, 5)
    assert tx != MultiSteps(inner, 4, False)
    updates, _ = tx.inner_opt.update(PARAMS, tx.inner_opt.init(PARAMS), PARAMS, value=1.0)
    np.testing.assert_array_equal(updates["w"], PARAMS["w"])
    for made in (pickle.loads(pickle.dumps(tx)), copy.deepcopy(tx), jax.tree.map(lambda x: x, tx)):
        assert type(made) is MultiSteps
        assert made == tx
        assert made.inner_opt == tx.inner_opt
    assert not jitted(tx).has_updated(tx.init(PARAMS))
    assert MultiStepsState(0, 0, (), ()).skip_state == ()


def test_states_are_mapped_over():
    tx = MultiSteps(gc.trace(0.5), 2, should_skip_update_fn=skip_not_finite)
    state = gc.tree.map_params(tx, lambda x: x + 1, tx.init(PARAMS))
    np.testing.assert_array_equal(state.acc_grads["w"], np.ones(3))
    np.testing.assert_array_equal(state.inner_opt_state.trace["w"], np.ones(3))
    assert int(state.mini_step) == 0


SHAPES = {name: jax.ShapeDtypeStruct((128, 512), "float32") for name in "abcd"}
SIZE = 4 * 128 * 512 * 4


def temporary_bytes(tx):
    """What a compiled update needs beyond its arguments and results, with donation."""
    state = jax.eval_shape(tx.init, SHAPES)
    update = jax.jit(tx.update, donate_argnums=(0, 1))
    analysis = update.lower(SHAPES, state, SHAPES).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("inner", [momentum, lambda: gc.scale(-0.1)])
def test_memory(inner):
    """At most one tree of the parameters' size beyond the optimizer's, and none for k = 1."""
    plain, small = temporary_bytes(inner()), 2**14
    assert temporary_bytes(MultiSteps(inner(), 1)) <= plain + small
    assert temporary_bytes(MultiSteps(inner(), 4)) <= plain + SIZE + small
    skipping = MultiSteps(inner(), 4, should_skip_update_fn=skip_not_finite)
    assert temporary_bytes(skipping) <= plain + SIZE + small


def count(tx, primitive):
    jaxpr = jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    return str(jaxpr).count(f"{primitive}[")


def test_one_branch_runs_and_none_for_k_1():
    assert count(MultiSteps(momentum(), 4), "cond") == 1
    skipping = MultiSteps(momentum(), 4, should_skip_update_fn=skip_not_finite)
    assert count(skipping, "cond") == 1
    assert count(MultiSteps(momentum(), 1), "cond") == 0
    assert MultiSteps(momentum(), 1).init(PARAMS).acc_grads == ()
    assert not jax.tree.leaves(MultiSteps(gc.scale(1.0), 1).init(PARAMS).acc_grads)


def test_an_optimizer_is_called_for_steps_only():
    calls = []
    spy = gc.GradientTransformation(
        lambda params: (), lambda g, s, params=None: (calls.append(1) or g, s)
    )
    run(MultiSteps(spy, 3), [1.0] * 7)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("k", "kind", "text"),
    [
        (0, ValueError, r"MultiSteps: every_k_schedule must be >= 1; got 0\."),
        (-3, ValueError, "every_k_schedule must be >= 1; got -3"),
        (2.5, ValueError, "every_k_schedule must be an integer; got 2.5"),
        (float("nan"), ValueError, "every_k_schedule"),
        ("two", TypeError, "every_k_schedule must be a number.*'two'"),
        (True, TypeError, "every_k_schedule must be a number.*True"),
    ],
)
def test_bad_k(k, kind, text):
    with pytest.raises(kind, match=text):
        MultiSteps(gc.scale(1.0), k)


def test_bad_calls():
    with pytest.raises(gc.NotATransformationError, match="MultiSteps: opt must be a gradient"):
        MultiSteps(3, 4)
    with pytest.raises(TypeError, match=r"should_skip_update_fn must be a function.*0\.5"):
        MultiSteps(gc.scale(1.0), 4, should_skip_update_fn=0.5)
    with pytest.raises(TypeError, match=r"MultiSteps: accumulator_dtype.*int32"):
        MultiSteps(gc.scale(1.0), 4, accumulator_dtype=jnp.int32)
    with pytest.raises(ValueError, match="apply_every: k must be >= 1; got 0"):
        apply_every(0)
    tx = MultiSteps(gc.scale(1.0), 4)
    with pytest.raises(ValueError, match=r"MultiSteps.*updates\['b'\] has shape \(2,\)"):
        tx.update({"w": jnp.ones(3), "b": jnp.ones(2)}, tx.init(PARAMS))


@pytest.mark.parametrize("zero", [0, -1, jnp.int32(0)])
def test_a_schedule_that_returns_no_positive_number(zero):
    """Where the number is known, it is an error; where it is traced, it counts as 1."""
    tx = MultiSteps(gc.scale(1.0), lambda step: zero + 0 * step)
    with pytest.raises(ValueError, match="return positive integers; at step 0"):
        run(tx, [1.0])
    assert run(jitted(tx), [1.0, 2.0])[0] == [1, 2]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_apply_every_lets_sums_pass(k):
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    due = [sum(values[i + 1 - k : i + 1]) if (i + 1) % k == 0 else 0 for i in range(7)]
    seen, state = run(apply_every(k), values)
    assert seen == due
    assert int(state.count) == 7 % k


def test_apply_every_in_a_wider_dtype():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    values = [256.0] + [1.0] * 9
    assert run(apply_every(10), values, params)[0][-1] == 256
    assert run(apply_every(10, accumulator_dtype=jnp.float32), values, params)[0][-1] == 264
