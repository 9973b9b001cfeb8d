"""Schedules one after another, and schedules made of others, ours and users'."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
import grad_schedules as gs
from grad_core import schedules
from grad_core.schedules import ScheduleFn

WARMUP = gs.linear_schedule(0.0, 1.0, 4)
DECAY = gs.exponential_decay(1.0, 2, 0.5)
COSINE = gs.cosine_decay_schedule(1.0, 8)


def squared(count: Any) -> Any:
    """A user's schedule that pickles."""
    return 0.01 * count**2


def values(schedule: Callable[[Any], Any], steps: int = 14) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


def test_each_schedule_counts_from_where_it_takes_over() -> None:
    joined = gs.join_schedules([WARMUP, DECAY, COSINE], [4, 8])
    want = [t / 4 if t < 4 else 0.5 ** ((t - 4) / 2) if t < 8 else math.nan for t in range(8)]
    want += [(1 + math.cos(math.pi * (t - 8) / 8)) / 2 for t in range(8, 14)]
    np.testing.assert_allclose(values(joined), want, rtol=1e-6)
    np.testing.assert_allclose(joined(np.arange(14)), want, rtol=1e-6)


def test_negative_and_equal_boundaries() -> None:
    assert values(gs.join_schedules([DECAY, WARMUP], [-3]), 3) == [0.75, 1.0, 1.0]
    assert values(gs.join_schedules([DECAY, WARMUP], [0]), 3) == [0.0, 0.25, 0.5]
    skipped = gs.join_schedules([WARMUP, DECAY, gs.constant_schedule(7.0)], [2, 2])
    assert values(skipped, 4) == [0.0, 0.25, 7.0, 7.0]
    assert gs.join_schedules([DECAY, WARMUP], [-(2**31)])(2**31 - 1) == 1.0


def test_boundaries_beyond_float32_and_beyond_int32() -> None:
    for begin in (2**24 + 1, 2**31 - 6):
        joined = gs.join_schedules([gs.constant_schedule(9.0), WARMUP], [begin])
        steps = [begin - 1, begin, begin + 1, begin + 4]
        assert [joined(step) for step in steps] == [9.0, 0.0, 0.25, 1.0]
    assert gs.join_schedules([WARMUP, DECAY], [2**40])(2**31 - 1) == 1.0
    assert gs.join_schedules([DECAY, WARMUP], [4.0])(2**24 + 1) == 1.0


def test_gradients_are_finite_where_another_schedule_would_overflow() -> None:
    joined = gs.join_schedules([gs.exponential_decay(1.0, 1, 2.0), gs.constant_schedule(3.0)], [5])
    assert jax.grad(joined)(1e6) == 0.0
    np.testing.assert_allclose(jax.grad(joined)(3.0), 8 * math.log(2), rtol=1e-6)


def test_joined_schedules_are_values() -> None:
    joined = gs.join_schedules([WARMUP, DECAY], [4])
    assert joined == gs.join_schedules((WARMUP, DECAY), (4,))
    assert hash(joined) == hash(gs.join_schedules([WARMUP, DECAY], [4]))
    assert joined != gs.join_schedules([WARMUP, DECAY], [5])
    assert joined != gs.join_schedules([WARMUP, COSINE], [4])
    assert pickle.loads(pickle.dumps(joined)) == joined
    assert copy.deepcopy(joined) == joined
    assert eval(repr(joined), vars(gs)) == joined
    nested = gs.scaled(gs.join_schedules([joined, gs.clipped(COSINE, 0.1)], [9]), 2.0)
    assert eval(repr(nested), vars(gs)) == nested == pickle.loads(pickle.dumps(nested))
    np.testing.assert_allclose(values(nested, 9), 2 * np.array(values(joined, 9)), rtol=1e-6)


def test_numbers_of_nested_schedules_compile_nothing_new() -> None:
    def make(k: int) -> Callable[[Any], Any]:
        parts = [gs.linear_schedule(0.0, 0.1 * k, 4 * k), gs.cosine_decay_schedule(0.1 * k, k)]
        joined = gs.join_schedules(parts, [4 * k])
        return gs.clipped(gs.shifted(gs.scaled(joined, 0.1 * k), k), 0.01 * k, 1.0 * k)

    make(1)(1)
    before = schedules._evaluate._cache_size()  # type: ignore[attr-defined]
    for k in (2, 3):
        for step in (0, 5, 2**24 + 1, 2**31 - 1):
            make(k)(step)
    assert schedules._evaluate._cache_size() == before  # type: ignore[attr-defined]


def test_numbers_of_nested_schedules_may_be_traced() -> None:
    def run(peak: float, boundary: int) -> jax.Array:
        parts = [gs.linear_schedule(0.0, peak, 4), gs.constant_schedule(peak)]
        joined = gs.join_schedules(parts, [boundary])
        return gs.scaled(joined, peak)(jnp.arange(8))

    np.testing.assert_allclose(jax.jit(run)(0.5, 4), run(0.5, 4), rtol=1e-6)
    batched = jax.vmap(run)(jnp.array([0.5, 0.25]), jnp.array([4, 5]))
    np.testing.assert_allclose(batched[1], run(0.25, 5), rtol=1e-6)
    np.testing.assert_allclose(jax.jacobian(run)(0.5, 4), 2 * run(0.5, 4) / 0.5, rtol=1e-6)
    for boundary in (np.int64(4), jnp.int32(4)):
        np.testing.assert_allclose(run(0.5, boundary), run(0.5, 4), rtol=1e-6)


def test_sgdr() -> None:
    cycle = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5}
    cycles = [cycle, {**cycle, "peak_value": 0.5, "decay_steps": 7, "end_value": 0.2}]
    parts = [gs.warmup_cosine_decay_schedule(**each) for each in cycles]
    want = [*values(parts[0], 5), *values(parts[1], 9)]
    schedule = gs.sgdr_schedule(cycles)
    np.testing.assert_allclose(values(schedule), want, rtol=1e-6)
    assert schedule == gs.sgdr_schedule(each for each in cycles)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), vars(gs)) == schedule


def test_users_schedules_are_called_eagerly() -> None:
    seen: list[int] = []

    def branching(count: Any) -> float:
        assert not isinstance(count, jax.core.Tracer)
        seen.append(int(count))
        return 0.1 if count < 2 else 0.2

    made = [
        gs.join_schedules([WARMUP, branching], [4]),
        gs.scaled(branching, 0.5),
        gs.scaled(WARMUP, branching),
        gs.clipped(branching, 0.15),
        gs.shifted(branching, 1),
        gs.scaled(gs.join_schedules([WARMUP, gs.clipped(branching, 0.15)], [4]), 0.5),
    ]
    want = [0.2, 0.1, 0.2, 0.2, 0.2, 0.1]
    for schedule, last in zip(made, want, strict=True):
        assert not isinstance(schedule, ScheduleFn)
        seen.clear()
        tx = grad_core.scale_by_schedule(schedule)
        state = tx.init(jnp.ones(()))
        for _ in range(8):
            updates, state = tx.update(jnp.ones(()), state)
        np.testing.assert_allclose(updates, last, rtol=1e-6)
        assert len(seen) == 8
        assert min(seen) >= 0
        assert schedule == schedule
        assert "branching" in repr(schedule)


def test_users_schedules_that_are_pytrees_are_called_eagerly_too() -> None:
    def step_size(base: Any, count: Any) -> Any:
        assert not isinstance(count, jax.core.Tracer)
        return base * (1 + int(count))

    schedule = gs.join_schedules([WARMUP, jax.tree_util.Partial(step_size, 0.5)], [4])
    assert [float(schedule(step)) for step in (3, 4, 5)] == [0.75, 0.5, 1.0]


def test_users_schedules_may_be_traced_and_pickled() -> None:
    joined = gs.join_schedules([WARMUP, squared], [4])
    want = [*values(WARMUP, 4), *(0.01 * (t - 4) ** 2 for t in range(4, 14))]
    np.testing.assert_allclose(values(joined), want, rtol=1e-6)
    np.testing.assert_allclose(values(jax.jit(joined)), want, rtol=1e-6)
    np.testing.assert_allclose(joined(np.arange(14)), want, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(joined)(jnp.arange(14)), want, rtol=1e-6)
    assert joined == gs.join_schedules([WARMUP, squared], [4])
    assert hash(joined) == hash(gs.join_schedules([WARMUP, squared], [4]))
    assert joined != gs.join_schedules([WARMUP, squared], [5])


def test_ours_stay_in_compiled_code() -> None:
    made = gs.scaled(gs.join_schedules([WARMUP, gs.shifted(DECAY, 2)], [4]), WARMUP)
    assert isinstance(made, ScheduleFn)
    tx = grad_core.scale_by_learning_rate(made)
    state = tx.init(jnp.ones(()))
    found = []
    for _ in range(8):
        updates, state = tx.update(jnp.ones(()), state)
        found.append(-float(updates))
    np.testing.assert_allclose(found, values(made, 8), rtol=1e-6)
    text = str(jax.make_jaxpr(made)(3))
    assert text.count("jit") >= 1


def test_arithmetic() -> None:
    t = np.arange(14)
    decay = 0.5 ** (t / 2)
    np.testing.assert_allclose(gs.scaled(DECAY, -0.1)(t), -0.1 * decay, rtol=1e-6)
    np.testing.assert_allclose(gs.scaled(DECAY, WARMUP)(t), decay * np.clip(t / 4, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(gs.clipped(DECAY, 0.1, 0.5)(t), decay.clip(0.1, 0.5), rtol=1e-6)
    np.testing.assert_allclose(gs.clipped(DECAY, high=0.5)(t), decay.clip(None, 0.5), rtol=1e-6)
    for by in (3, 0, -3, 2.5):
        want = 0.5 ** (np.maximum(t - by, 0) / 2)
        np.testing.assert_allclose(gs.shifted(DECAY, by)(t), want, rtol=1e-6)


def test_shifts_do_not_overflow() -> None:
    line = gs.linear_schedule(1.0, 0.0, 4, 2**24 + 1)
    assert gs.shifted(line, 2**24)(2**25 + 2) == 0.75
    assert gs.shifted(line, -(2**24))(2) == 0.75
    assert gs.shifted(line, -(2**24))(2**31 - 1) == 0.0
    assert gs.shifted(line, 2**31 - 1)(2**31 - 1) == 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: gs.join_schedules([WARMUP, DECAY], []),
            ValueError,
            (
                r"join_schedules: schedules must be one more than boundaries; got 2 schedules and "
                r"boundaries \(\)\."
            ),
        ),
        (lambda: gs.join_schedules([], []), ValueError, "one more than boundaries; got 0 schedule"),
        (
            lambda: gs.join_schedules([WARMUP, DECAY, COSINE], [8, 4]),
            ValueError,
            r"join_schedules: boundaries must ascend; got \(8, 4\)\.",
        ),
        (
            lambda: gs.join_schedules([WARMUP, 0.1], [4]),
            TypeError,
            (
                r"join_schedules: schedules\[1\] must be a schedule, .* such as "
                r"constant_schedule\(0.1\); got 0.1 \(float\)\."
            ),
        ),
        (
            lambda: gs.join_schedules([gs.linear_schedule, DECAY], [4]),
            TypeError,
            r"schedules\[0\] must be .*; got the factory linear_schedule, which is to be called",
        ),
        (
            lambda: gs.join_schedules(WARMUP, [4]),
            TypeError,
            r"join_schedules: schedules must be a list or tuple; got linear_schedule\(",
        ),
        (
            lambda: gs.join_schedules([WARMUP, DECAY], 4),
            TypeError,
            r"join_schedules: boundaries must be a list or tuple of numbers; got 4 \(int\)\.",
        ),
        (
            lambda: gs.join_schedules([WARMUP, DECAY], ["4"]),
            TypeError,
            r"join_schedules: boundaries\[0\] must be a number; got '4' \(str\)\.",
        ),
        (
            lambda: gs.join_schedules([WARMUP, DECAY], [math.nan]),
            ValueError,
            r"join_schedules: boundaries\[0\] must be a number; got nan \(float\)\.",
        ),
        (lambda: gs.scaled(0.1, 0.1), TypeError, "scaled: schedule must be a schedule"),
        (lambda: gs.scaled(WARMUP, "x"), TypeError, "scaled: factor must be a number, .* or a sch"),
        (lambda: gs.shifted(None, 1), TypeError, "shifted: schedule must be a schedule"),
        (lambda: gs.shifted(WARMUP, math.nan), ValueError, "shifted: steps must be a number"),
        (
            lambda: gs.clipped(WARMUP, 1.0, 0.0),
            ValueError,
            r"clipped: low must be <= high = 0.0; got 1.0\.",
        ),
        (lambda: gs.clipped([WARMUP], 1.0), TypeError, "clipped: schedule must be a schedule"),
        (lambda: gs.sgdr_schedule([]), ValueError, "sgdr_schedule: cosine_kwargs must hold at le"),
        (
            lambda: gs.sgdr_schedule([{"init_value": 0.0, "x": 1}]),
            TypeError,
            r"sgdr_schedule: in cosine_kwargs\[0\], warmup_cosine_decay_schedule: ",
        ),
    ],
)
def test_bad_input(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
