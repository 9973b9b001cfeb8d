"""Piecewise schedules and the 1cycle policy, against plain Python."""

import itertools
import math
import pickle
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_schedules as gs
from grad_core import schedules

PIECES = [
    None,
    {},
    {3: 0.5},
    {3: 0.5, 10: 0.1},
    {10: 0.5, 3: 0.1},
    {1: 2.0, 5: 0.0, 9: 3.0},
    {0: 2.0, 7: 0.5},
    {2.5: 0.5, 6: 0.5},
    {-2: 0.5, 4: 3.0},
]


def constant(t: float, init: float, scales: dict[float, float] | None) -> float:
    return init * math.prod(scale for step, scale in (scales or {}).items() if step <= t)


def interpolated(t: float, knots: list[tuple[float, float]], curve: Callable[..., float]) -> float:
    """A curve through knots; the last one at a step is the one that counts from there on."""
    value = knots[0][1]
    for (begin, before), (end, after) in itertools.pairwise(knots):
        if begin <= t < end:
            return before + (after - before) * curve((t - begin) / (end - begin))
        if t >= end:
            value = after
    return value


CURVES = {"linear": lambda p: p, "cosine": lambda p: (1 - math.cos(math.pi * p)) / 2}


def knots(init: float, scales: dict[float, float] | None) -> list[tuple[float, float]]:
    found, value = [(min([0, *(scales or {})]), init)], init
    for step, scale in sorted((scales or {}).items()):
        value *= scale
        found.append((step, value))
    return found


@pytest.mark.parametrize("scales", PIECES)
@pytest.mark.parametrize("init", [1.0, -0.3])
def test_closed_forms(init: float, scales: dict[float, float] | None) -> None:
    steps = range(14)
    got = gs.piecewise_constant_schedule(init, scales)(np.arange(14))
    np.testing.assert_allclose(got, [constant(t, init, scales) for t in steps], rtol=2e-7)
    for kind, curve in CURVES.items():
        got = gs.piecewise_interpolate_schedule(kind, init, scales)(np.arange(14))
        want = [interpolated(t, knots(init, scales), curve) for t in steps]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_values_at_boundaries_are_exact() -> None:
    scales = {3: 0.3, 2**24 + 1: 0.7, 2**31 - 1: 0.1}
    values = np.float32([0.1, 0.1 * 0.3, 0.1 * 0.3 * 0.7, 0.1 * 0.3 * 0.7 * 0.1])
    stairs = gs.piecewise_constant_schedule(0.1, scales)
    steps = [0, 2, 3, 2**24, 2**24 + 1, 2**31 - 2, 2**31 - 1]
    assert [stairs(step) for step in steps] == [*values[[0, 0, 1, 1, 2, 2, 3]]]
    for kind in CURVES:
        curve = gs.piecewise_interpolate_schedule(kind, 0.1, scales)
        assert [curve(step) for step in (0, *scales)] == [*values]


def test_a_short_piece_beyond_float32() -> None:
    begin = 2**30 + 1
    curve = gs.piecewise_interpolate_schedule("linear", 1.0, {begin: 1.0, begin + 4: 0.0})
    assert [curve(begin + step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


ONECYCLES = [(10, 1.0), (37, 0.003), (1000, 1.0), (100, 2.0, 0.29), (20, 1.0, 0.0), (20, 1.0, 0.5)]


@pytest.mark.parametrize("args", ONECYCLES)
def test_onecycle(args: tuple) -> None:
    steps, peak, start = (*args, 0.3)[:3]
    low, end = peak / 25, peak / 25 / 1e4
    up, down = int(start * steps), int(0.85 * steps)
    points = [*range(steps + 3)]
    got = gs.cosine_onecycle_schedule(*args)(np.array(points))
    through = [(0, low), (up, peak), (steps, end)]
    want = [interpolated(t, through, CURVES["cosine"]) for t in points]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7 * peak)
    got = gs.linear_onecycle_schedule(*args)(np.array(points))
    through = [(0, low), (up, peak), (down, low), (steps, end)]
    want = [interpolated(t, through, CURVES["linear"]) for t in points]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7 * peak)


def test_turns_at_the_same_step_are_kept_apart() -> None:
    # No fall: the peak at the end. No start: the peak at once. Then the last value, in any case.
    schedule = gs.linear_onecycle_schedule(10, 1.0, pct_start=0.5, pct_final=1.0)
    np.testing.assert_allclose([schedule(t) for t in (5, 10)], [1.0, 4e-6], rtol=1e-6)
    schedule = gs.linear_onecycle_schedule(3, 1.0, 0.1, 0.1)
    np.testing.assert_allclose([schedule(t) for t in (0, 3)], [0.04, 4e-6], rtol=1e-6)


def test_turns_are_rounded_as_python_rounds() -> None:
    # In float32 0.29 * 100 is 29; in double precision it is 28.999999999999996.
    assert int(0.29 * 100) == 28
    schedule = gs.cosine_onecycle_schedule(100, 1.0, 0.29)
    assert schedule(28) == 1.0
    assert schedule(29) < 1.0


def test_numbers_and_scales_compile_nothing_new() -> None:
    makes = [
        lambda k: gs.piecewise_constant_schedule(0.1 * k, {k: 0.5, 3 * k: 0.1 * k}),
        lambda k: gs.piecewise_interpolate_schedule("linear", 0.1 * k, {k: 0.5, 3 * k: 0.1 * k}),
        lambda k: gs.piecewise_interpolate_schedule("cosine", 0.1 * k, {k: 0.5, 3 * k: 0.1 * k}),
        lambda k: gs.cosine_onecycle_schedule(10 * k, 0.1 * k),
        lambda k: gs.linear_onecycle_schedule(10 * k, 0.1 * k),
        lambda k: gs.multistep_schedule(0.1 * k, [k, 3 * k], 0.1),
    ]
    for make in makes:
        make(1)(1)
    before = schedules._evaluate._cache_size()  # type: ignore[attr-defined]
    for make in makes:
        for step in (0, 1, 2**24 + 1, 2**31 - 1):
            make(7)(step)
    assert schedules._evaluate._cache_size() == before  # type: ignore[attr-defined]


def test_numbers_may_be_traced() -> None:
    def run(init: float, scale: float, step: int) -> jax.Array:
        scales = {3: scale, 10: 0.5}
        stairs = gs.piecewise_constant_schedule(init, scales)
        curve = gs.piecewise_interpolate_schedule("cosine", init, scales)
        cycle = gs.linear_onecycle_schedule(step, init)
        return jnp.stack([stairs(7), curve(7), cycle(7)])

    args = 0.7, 0.3, 10
    np.testing.assert_allclose(jax.jit(run)(*args), run(*args), rtol=1e-6)
    gradient = jax.jacobian(lambda init, scale: run(init, scale, 10), (0, 1))(0.7, 0.3)
    np.testing.assert_allclose(gradient[0], run(*args) / 0.7, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_dicts_are_values() -> None:
    one = gs.piecewise_constant_schedule(1.0, {3: 0.5, 10: 0.1})
    assert repr(one) == (
        "piecewise_constant_schedule(init_value=1.0, boundaries_and_scales={3: 0.5, 10: 0.1})"
    )
    assert one == gs.piecewise_constant_schedule(1.0, {10: 0.1, 3: 0.5})
    assert hash(one) == hash(gs.piecewise_constant_schedule(1.0, {10: 0.1, 3: 0.5}))
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != gs.piecewise_constant_schedule(1.0, {3: 0.5, 10: 0.2})
    assert one != gs.piecewise_constant_schedule(1.0, {3: 0.5})
    assert one != gs.piecewise_constant_schedule(1.0)
    given = {3: 0.5}
    schedule = gs.piecewise_constant_schedule(1.0, given)
    given[3] = 0.1
    assert schedule(3) == 0.5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: gs.piecewise_constant_schedule(1.0, {3: -0.5}),
            ValueError,
            (
                r"piecewise_constant_schedule: the scales in boundaries_and_scales must be >= 0; "
                r"got -0.5 at 3\."
            ),
        ),
        (
            lambda: gs.piecewise_interpolate_schedule("linear", 1.0, {3: math.nan}),
            ValueError,
            r"piecewise_interpolate_schedule: the scales .* must be >= 0; got nan at 3\.",
        ),
        (
            lambda: gs.piecewise_interpolate_schedule("cubic", 1.0, {3: 0.5}),
            ValueError,
            r"interpolate_type must be 'linear' or 'cosine'; got 'cubic'\.",
        ),
        (
            lambda: gs.piecewise_constant_schedule(1.0, [3, 0.5]),
            TypeError,
            r"boundaries_and_scales must be a dict from steps to scales; got \(3, 0.5\) \(tuple\)",
        ),
        (
            lambda: gs.piecewise_constant_schedule(1.0, {"3": 0.5}),
            TypeError,
            r"the boundaries in boundaries_and_scales must be numbers; got '3' \(str\)\.",
        ),
        (
            lambda: gs.cosine_onecycle_schedule(0, 1.0),
            ValueError,
            r"cosine_onecycle_schedule: transition_steps must be > 0; got 0\.",
        ),
        (
            lambda: gs.linear_onecycle_schedule(10, 1.0, 0.5, 0.2),
            ValueError,
            r"linear_onecycle_schedule: pct_final must be >= pct_start = 0.5; got 0.2\.",
        ),
        (
            lambda: gs.linear_onecycle_schedule(10, 1.0, div_factor=0.0),
            ValueError,
            r"linear_onecycle_schedule: div_factor must be > 0; got 0.0\.",
        ),
        (
            lambda: gs.cosine_onecycle_schedule(10, 1.0, 1.5),
            ValueError,
            r"cosine_onecycle_schedule: pct_start must be in \[0, 1\]; got 1.5\.",
        ),
    ],
)
def test_bad_input(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
