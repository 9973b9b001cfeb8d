"""Aggregation of the updates of single elements of a batch."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_core import clip, trace
from grad_testing import TransformationSuite
from grad_wrappers import aggregating
from grad_wrappers.aggregating import (
    AccumulateAvgUpdatesState,
    Aggregator,
    accumulate_avg_updates,
    add_mean_variance_to_opt,
    average_incrementally_updates,
    average_per_element_updates,
    get_batch_size_from_per_elt_updates,
    get_per_element_mean_and_sum_sq_diff_grads,
    get_unbiased_mean_and_variance_ema,
    process,
    track_per_element_mean_and_variance_with_ema,
)

PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(()), "none": None}
RNG = np.random.default_rng(0)
BATCHES = [
    {
        "w": RNG.normal(size=(4, 3)).astype(np.float32),
        "b": RNG.normal(size=4).astype(np.float32),
        "none": None,
    }
    for _ in range(6)
]


def assert_close(actual, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=1e-6), actual, expected
    )


def together(batches):
    return jax.tree.map(lambda *xs: np.concatenate(xs), *batches)


def mean_of(batches):
    return jax.tree.map(lambda x: x.mean(axis=0), together(batches))


def run(tx, batches, jit=False, params=None):
    update = jax.jit(tx.update) if jit else tx.update
    state = tx.init(PARAMS)
    for g in batches:
        updates, state = update(g, state, params)
    return updates, state


class TestOrdinary(TransformationSuite):
    """Those whose updates have the parameters' shapes keep what all transformations keep."""

    @pytest.fixture(
        params=[accumulate_avg_updates, track_per_element_mean_and_variance_with_ema],
        ids=lambda factory: factory.__name__,
    )
    def factory(self, request):
        return request.param


class TestAggregators:
    """They map updates with an axis of elements to updates without, which the suite has not."""

    MADE = (
        average_per_element_updates(),
        average_incrementally_updates(0, 3),
        process(clip(1.0), average_incrementally_updates(0, 2), trace(0.9)),
        add_mean_variance_to_opt(trace(0.9), accumulation_steps=2),
    )

    @pytest.mark.parametrize("tx", MADE, ids=repr)
    def test_are_aggregators(self, tx):
        assert isinstance(tx, Aggregator)
        for same in (pickle.loads(pickle.dumps(tx)), copy.deepcopy(tx), jax.tree.map(id, tx)):
            assert isinstance(same, Aggregator)

    @pytest.mark.parametrize("tx", MADE, ids=repr)
    def test_are_values(self, tx):
        for same in (eval(repr(tx)), pickle.loads(pickle.dumps(tx)), copy.deepcopy(tx)):
            assert same == tx
            assert hash(same) == hash(tx)
        assert len(set(self.MADE)) == len(self.MADE)

    @pytest.mark.parametrize("tx", MADE, ids=repr)
    def test_jit_and_scan_change_nothing(self, tx):
        expected = run(tx, BATCHES)
        assert_close(run(tx, BATCHES, jit=True), expected)

        def step(state, g):
            updates, state = tx.update(g, state)
            return state, updates

        stacked = jax.tree.map(lambda *xs: np.stack(xs), *BATCHES)
        state, updates = jax.lax.scan(step, tx.init(PARAMS), stacked)
        assert_close((jax.tree.map(lambda u: u[-1], updates), state), expected)

    @pytest.mark.parametrize("tx", MADE, ids=repr)
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_dtypes_stay(self, tx, dtype):
        params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
        state = tx.init(params)
        g = jax.tree.map(lambda g: jnp.asarray(g, dtype), BATCHES[0])
        for _ in range(2):
            updates, new = tx.update(g, state)
            jax.tree.map(lambda u: dtype == u.dtype or pytest.fail(str(u.dtype)), updates)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            state = new

    @pytest.mark.parametrize("tx", MADE, ids=repr)
    def test_extra_arguments_are_ignored(self, tx):
        tx.update(BATCHES[0], tx.init(PARAMS), value=1.0)


class TestAverages:
    @pytest.mark.parametrize("axes", [0, 1, -1, (0,), (0, 2), [1, 2], (-1, 0)])
    def test_are_means_over_axes(self, axes):
        g = RNG.normal(size=(2, 3, 4)).astype(np.float32)
        tx = average_per_element_updates(axes)
        numpy_axes = axes if isinstance(axes, int) else tuple(axes)
        assert_close(tx.update(g, tx.init(0.0))[0], g.mean(axis=numpy_axes))

    def test_of_short_floats_do_not_overflow(self):
        tx = average_per_element_updates()
        g = jnp.full(100, 6e4, jnp.float16)
        assert tx.update(g, tx.init(0.0))[0] == jnp.float16(6e4)

    @pytest.mark.parametrize("jit", [False, True])
    def test_every_k_th_update_is_the_mean_of_k(self, jit):
        tx = accumulate_avg_updates(3)
        state = tx.init(PARAMS)
        update = jax.jit(tx.update) if jit else tx.update
        means = [mean_of([batch]) for batch in BATCHES]
        for i, g in enumerate(means):
            updates, state = update(g, state)
            is_last = i % 3 == 2
            expected = mean_of(BATCHES[i - 2 : i + 1]) if is_last else gc.tree.zeros_like(g)
            assert_close(updates, expected)
            assert isinstance(state, AccumulateAvgUpdatesState)
            assert bool(state.ready) == is_last
            assert state.micro_step == (i + 1) % 3

    def test_in_bfloat16_are_accumulated_in_float32(self):
        tx = accumulate_avg_updates(1024)
        state = tx.init(jnp.bfloat16(0))
        update = jax.jit(tx.update)
        for i in range(1024):  # in bfloat16, steps of 1 / 1024 would be lost
            mean, state = update(jnp.bfloat16(i >= 512), state)
        assert mean == jnp.bfloat16(0.5)
        assert mean.dtype == jnp.bfloat16

    def test_one_step_needs_no_state(self):
        assert average_incrementally_updates(None, 1).init(PARAMS) == gc.EmptyState()
        assert average_incrementally_updates(0, 1).init(PARAMS) == (gc.EmptyState(),) * 2

    def test_without_axis_they_are_ordinary(self):
        assert average_incrementally_updates(None, 3) != accumulate_avg_updates(3)
        assert not isinstance(average_incrementally_updates(None, 3), Aggregator)
        g = [mean_of([batch]) for batch in BATCHES]
        updates, state = run(average_incrementally_updates(None, 3), g)
        assert_close((updates, state), run(accumulate_avg_updates(3), g))

    def test_over_elements_and_batches(self):
        assert_close(run(average_incrementally_updates(0, 6), BATCHES)[0], mean_of(BATCHES))


class TestMoments:
    @pytest.mark.parametrize("steps", [1, 2, 3, 6])
    def test_are_those_of_all_elements(self, steps):
        tx = get_per_element_mean_and_sum_sq_diff_grads(0, steps)
        (mean, aux), state = run(tx, BATCHES)
        all_of_them = together(BATCHES[-steps:])
        assert_close(mean, mean_of(BATCHES[-steps:]))
        squares = jax.tree.map(lambda x: ((x - x.mean(axis=0)) ** 2).sum(axis=0), all_of_them)
        assert_close(aux["sum_sq_diff_grads"], squares)
        assert aux["sample_size"] == 4 * steps
        if steps == 1:
            assert state == gc.EmptyState()
        else:
            assert state.ready
            assert_close((state.mean_grads, state.sum_sq_diff_grads), (PARAMS, PARAMS))

    def test_between_all_is_zero(self):
        (mean, aux), state = run(get_per_element_mean_and_sum_sq_diff_grads(0, 4), BATCHES[:3])
        assert_close((mean, aux["sum_sq_diff_grads"]), (PARAMS, PARAMS))
        assert aux["sample_size"] == 0
        assert not state.ready
        assert state.micro_step == 3

    def test_large_means_leave_small_variances(self):
        """The sum of squares less the square of the sum would be all rounding error."""
        deviations = np.linspace(-1, 1, 5)
        g = jnp.asarray(1e4 + deviations, jnp.float32)
        (_, aux), _ = run_scalar(get_per_element_mean_and_sum_sq_diff_grads(0, 3), [g] * 3)
        np.testing.assert_allclose(aux["sum_sq_diff_grads"], 3 * (deviations**2).sum(), rtol=2e-3)

    def test_of_complex_updates_are_real(self):
        g = jnp.array([1 + 1j, 1 - 1j, 4 + 0j], jnp.complex64)
        for steps in (1, 2):
            tx = get_per_element_mean_and_sum_sq_diff_grads(0, steps)
            state = tx.init(jnp.complex64(0))
            for _ in range(steps):
                (mean, aux), state = tx.update(g, state)
            np.testing.assert_allclose(mean, 2)
            np.testing.assert_allclose(aux["sum_sq_diff_grads"], 8 * steps, rtol=1e-6)
            assert aux["sum_sq_diff_grads"].dtype == jnp.float32

    def test_over_several_axes(self):
        g = RNG.normal(size=(2, 3, 5)).astype(np.float32)
        (mean, aux), _ = run_scalar(get_per_element_mean_and_sum_sq_diff_grads((0, 2)), [g])
        assert_close(mean, g.mean(axis=(0, 2)))
        assert_close(aux["sum_sq_diff_grads"], g.var(axis=(0, 2)) * 10)
        assert aux["sample_size"] == 10


def run_scalar(tx, batches):
    state = tx.init(jnp.float32(0))
    for g in batches:
        updates, state = tx.update(g, state)
    return updates, state


class TestMovingAverages:
    @pytest.mark.parametrize("steps", [1, 2, 3])
    @pytest.mark.parametrize("jit", [False, True])
    def test_weighted_means_of_means_and_variances(self, steps, jit):
        tx = add_mean_variance_to_opt(gc.scale(-1.0), 0.75, accumulation_steps=steps)
        updates, state = run(tx, BATCHES, jit)
        assert_close(updates, jax.tree.map(np.negative, mean_of(BATCHES[-steps:])))
        groups = [BATCHES[i : i + steps] for i in range(0, 6, steps)]
        weights = 0.75 ** np.arange(len(groups))[::-1]

        def weighted(*values):
            return np.average(values, axis=0, weights=weights)

        def variance(group):
            return jax.tree.map(lambda x: x.var(axis=0, ddof=1), together(group))

        means, variances = get_unbiased_mean_and_variance_ema(state)
        assert_close(means, jax.tree.map(weighted, *map(mean_of, groups)))
        assert_close(variances, jax.tree.map(weighted, *map(variance, groups)))

    @pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.99999])
    def test_of_constants_are_the_constants(self, decay):
        tx = track_per_element_mean_and_variance_with_ema(decay)
        state = tx.init(0.0)
        update = jax.jit(tx.update)
        for _ in range(3):
            _, state = update(3.0, state, None, sum_sq_diff_grads=8.0, sample_size=5)
        mean, variance = get_unbiased_mean_and_variance_ema(state)
        np.testing.assert_allclose((mean, variance), (3.0, 2.0), rtol=1e-6)

    def test_before_the_first_update_are_zero(self):
        tx = add_mean_variance_to_opt(gc.identity(), 0.0, accumulation_steps=2)
        _, state = run(tx, BATCHES[:1])
        assert_close(get_unbiased_mean_and_variance_ema(state), (PARAMS, PARAMS))

    def test_single_elements_have_no_variance(self):
        tx = add_mean_variance_to_opt(gc.identity())
        _, state = run_scalar(tx, [jnp.array([2.0])])
        assert_close(get_unbiased_mean_and_variance_ema(state), (2.0, 0.0))


class Recorder(gc.GradientTransformationExtraArgs):
    """An optimizer of the user's, which counts its calls and keeps its extra arguments."""


def recorder():
    calls = []

    def update(updates, state, params=None, **extra_args):
        calls.append((params, extra_args))
        return updates, state + 1

    return Recorder(lambda params: 0, update), calls


class TestProcess:
    def test_one_after_another(self):
        tx = process(gc.clip(0.5), average_per_element_updates(), gc.scale(-2.0))
        clipped = jax.tree.map(lambda x: -2 * np.clip(x, -0.5, 0.5).mean(axis=0), BATCHES[0])
        updates, state = run(tx, BATCHES[:1])
        assert_close(updates, clipped)
        assert len(state) == 3

    @pytest.mark.parametrize("jit", [False, True])
    def test_the_optimizer_waits(self, jit):
        """k batches are one step on all of them."""
        tx = process(gc.identity(), average_incrementally_updates(0, 3), gc.trace(0.9))
        whole = process(gc.identity(), average_per_element_updates(), gc.trace(0.9))
        updates, state = run(tx, BATCHES, jit)
        expected, other = run(whole, [together(BATCHES[:3]), together(BATCHES[3:])])
        assert_close((updates, state[2]), (expected, other[2]))
        waiting, later = tx.update(BATCHES[0], state)
        assert_close((waiting, later[2]), (PARAMS, state[2]))

    def test_users_schedules_see_the_steps_of_the_optimizer(self):
        rates = []

        def schedule(count):
            rates.append(int(count))  # fails if traced
            return 0.5**count

        tx = process(
            gc.identity(), average_incrementally_updates(0, 2), gc.scale_by_schedule(schedule)
        )
        updates, _ = run(tx, BATCHES)
        assert rates[-3:] == [0, 1, 2]
        assert_close(updates, jax.tree.map(lambda x: x / 4, mean_of(BATCHES[4:])))

    def test_parameters_and_extra_arguments_reach_all(self):
        (first, calls), (last, others) = recorder(), recorder()
        tx = process(first, average_incrementally_updates(0, 2), last)
        state = tx.init(PARAMS)
        for _ in range(2):
            _, state = tx.update(BATCHES[0], state, PARAMS, value=3.0)
        assert calls == [(PARAMS, {"value": 3.0})] * 2
        assert others == [(PARAMS, {"value": 3.0})]
        assert state[0] == 2
        assert state[2] == 1

    def test_what_the_aggregator_adds_reaches_the_optimizer(self):
        last, calls = recorder()
        aggregator = Aggregator(
            lambda params: (),
            lambda g, state, params=None, **extra_args: ((g.sum(), {"size": 2}), state),
        )
        tx = process(gc.identity(), aggregator, last, aggregator_has_aux=True)
        assert tx.update(jnp.ones(2), tx.init(0.0), value=1)[0] == 2
        assert calls == [(None, {"value": 1, "size": 2})]

    def test_is_what_the_aggregator_is(self):
        assert isinstance(
            process(gc.identity(), Aggregator(*gc.identity()), gc.clip(1)), Aggregator
        )
        ordinary = process(gc.identity(), accumulate_avg_updates(2), gc.clip(1))
        assert type(ordinary) is gc.GradientTransformationExtraArgs

    def test_training(self):
        target = jnp.array([1.0, -2.0, 3.0])
        x = jax.random.normal(jax.random.key(0), (64, 3))

        def loss(w, x):
            return (x @ (w - target)) ** 2

        tx = add_mean_variance_to_opt(gc.scale(-0.1), accumulation_steps=2)

        @jax.jit
        def step(carry, i):
            w, state = carry
            rows = jax.lax.dynamic_slice_in_dim(x, 8 * (i % 8), 8)
            grads = jax.vmap(jax.grad(loss), (None, 0))(w, rows)
            updates, state = tx.update(grads, state, w)
            return (gc.apply_updates(w, updates), state), None

        start = jnp.zeros(3)
        (w, _), _ = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(400))
        np.testing.assert_allclose(w, target, rtol=1e-3)


class TestBatchSize:
    def test_is_the_product_of_the_axes(self):
        assert get_batch_size_from_per_elt_updates(BATCHES[0], 0) == 4
        assert get_batch_size_from_per_elt_updates({"a": np.zeros((2, 3, 4))}, [0, -1]) == 8


BAD = {
    "steps": (lambda: accumulate_avg_updates(0), "accumulate_avg_updates: .* >= 1; got 0"),
    "steps of batches": (
        lambda: average_incrementally_updates(0, -1),
        "average_incrementally_updates: .*got -1",
    ),
    "steps of moments": (
        lambda: get_per_element_mean_and_sum_sq_diff_grads(0, 0),
        "get_per_element_mean_and_sum_sq_diff_grads: .*got 0",
    ),
    "axis": (
        lambda: run(average_per_element_updates(2), BATCHES),
        r"average_per_element_updates: updates\['b'\] has shape \(4,\), .*\(2,\)",
    ),
    "sizes": (
        lambda: get_batch_size_from_per_elt_updates([np.zeros(2), np.zeros(3)], 0),
        r"same number of elements.*\[2, 3\]",
    ),
    "none": (lambda: get_batch_size_from_per_elt_updates({}, 0), "found no updates"),
    "sizes of moments": (
        lambda: run(
            get_per_element_mean_and_sum_sq_diff_grads(), [{**BATCHES[0], "b": np.zeros(5)}]
        ),
        r"get_per_element_mean_and_sum_sq_diff_grads: .*\[4, 5\]",
    ),
    "decay": (lambda: add_mean_variance_to_opt(gc.identity(), 2.0), "ema_decay must be in"),
    "no moments": (
        lambda: run(track_per_element_mean_and_variance_with_ema(), [PARAMS]),
        "track_per_element_mean_and_variance_with_ema: .*'sum_sq_diff_grads' and 'sample_size'",
    ),
    "no state": (
        lambda: get_unbiased_mean_and_variance_ema(gc.trace(0.9).init(PARAMS)),
        "get_unbiased_mean_and_variance_ema: .*has 0",
    ),
    "two states": (
        lambda: get_unbiased_mean_and_variance_ema(
            [track_per_element_mean_and_variance_with_ema().init(PARAMS)] * 2
        ),
        "has 2",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_is_named(self, name):
        call, text = BAD[name]
        with pytest.raises(ValueError, match=text):
            call()

    @pytest.mark.parametrize("axis", [None, 1.0, "0", (0, None)])
    def test_axes_are_integers(self, axis):
        with pytest.raises(TypeError, match="average_per_element_updates: per_elt_axis must be"):
            average_per_element_updates(axis)

    def test_transformations_are_needed(self):
        with pytest.raises(gc.NotATransformationError, match="process: postprocessor must be"):
            process(gc.identity(), average_per_element_updates(), 0.1)


def test_all_is_sorted():
    assert aggregating.__all__ == sorted(aggregating.__all__)
