"""Decays with a plateau, in stairs, in cycles and others, against float64 closed forms."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import grad_schedules as gs

STEPS = [*range(45), 100, 1000]


def warmup(t: float, init: float, peak: float, steps: float) -> float:
    return init + (peak - init) * t / steps if t < steps else peak


def part(t: float, begin: float, end: float) -> float:
    return min(max((t - begin) / (end - begin), 0.0), 1.0)


SHAPES = {
    "linear": lambda p: 1 - p,
    "1-sqrt": lambda p: 1 - math.sqrt(p),
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "power": lambda p: (1 - p) ** 3,
}


def stable(
    t: float, a: float, peak: float, w: int, n: int, c: int, end: float, shape: str, q: float = 3.0
) -> float:
    if t < w or c == 0:
        return warmup(t, a, peak, w)
    return end + (peak - end) * SHAPES[shape](part(t, n - c, n))


def power_law(
    t: float, peak: float, amp: float, w: int, n: int, c: int, b: float, end: float, shape: str
) -> float:
    def plateau(t: float) -> float:
        return min(peak, amp * max(t, 1) ** b)

    if t < w:
        return plateau(w) * t / w
    if c == 0:
        return plateau(t)
    return end + (plateau(min(t, n - c)) - end) * SHAPES[shape](part(t, n - c, n))


def line(t: float, a: float, peak: float, w: int, n: int, end: float = 0.0) -> float:
    return warmup(t, a, peak, w) if t < w else peak + (end - peak) * part(t, w, n)


def inverse_sqrt(t: float, a: float, peak: float, w: int, scale: float | None = None) -> float:
    scale = scale or max(w, 1)
    return warmup(t, a, peak, w) if t < w else peak * math.sqrt(scale / (scale + t - w))


def cyclic(
    t: float,
    low: float,
    high: float,
    n: float,
    mode: str = "triangular",
    rate: float = 1.0,
    *up: Any,
) -> float:
    rise = up[0] if up else n / 2
    cycle, step = divmod(t, n)
    x = step / rise if step < rise else (n - step) / (n - rise)
    height = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": rate**t}[mode]
    return low + (high - low) * height * x


def rex(t: float, a: float, n: float, end: float = 0.0) -> float:
    p = part(t, 0, n)
    return end + (a - end) * (1 - p) / (1 - p / 2)


def k_decay(
    t: float, a: float, n: float, k: float, end: float = 0.0, shape: str = "cosine", q: float = 1.0
) -> float:
    r = 1 - part(t, 0, n) ** k
    f = (1 - math.cos(math.pi * r)) / 2 if shape == "cosine" else r**q
    return end + (a - end) * f


def stairs(t: float, peak: float, n: int, rate: float, w: int = 0, a: float = 0.0) -> float:
    return warmup(t, a, peak, w) * rate ** (t // n)


def multistep(
    t: float, peak: float, at: list[int], rate: float, w: int = 0, a: float = 0.0
) -> float:
    return warmup(t, a, peak, w) * rate ** sum(t >= step for step in at)


CALLS: list[tuple[Any, Any, tuple]] = [
    *(
        (gs.warmup_stable_decay_schedule, stable, (a, 1.1, w, 40, c, end, shape, 3.0))
        for a in (0.0, 0.2)
        for w in (0, 5)
        for c in (0, 10, 35)
        for end in (0.0, 0.3)
        for shape in SHAPES
    ),
    *(
        (gs.power_schedule, power_law, (1.1, amp, w, 40, c, b, 0.05, shape))
        for amp in (0.7, 3.0)
        for w in (0, 5)
        for c in (0, 10)
        for b in (-0.51, 0.2)
        for shape in ("linear", "cosine")
    ),
    *(
        (gs.warmup_linear_decay_schedule, line, (0.1, 1.1, w, 40, e))
        for w in (0, 5)
        for e in (0, 2)
    ),
    *((gs.warmup_inverse_sqrt_schedule, inverse_sqrt, (0.1, 1.1, w)) for w in (0, 5)),
    (gs.warmup_inverse_sqrt_schedule, inverse_sqrt, (0.1, 1.1, 5, 100)),
    *(
        (gs.cyclic_schedule, cyclic, (0.1, 1.1, n, mode, 0.99, *up))
        for n in (10, 7)
        for mode in ("triangular", "triangular2", "exp_range")
        for up in ((), (0,), (3,), (n,))
    ),
    *((gs.rex_schedule, rex, (1.1, n, end)) for n in (10, 37.5) for end in (0.0, 0.3)),
    *(
        (gs.k_decay_schedule, k_decay, (1.1, 40, k, end, shape, q))
        for k in (0.3, 1, 1.5, 5)
        for end in (0.0, 0.3)
        for shape, q in (("cosine", 1.0), ("polynomial", 1.0), ("polynomial", 2.5))
    ),
    *(
        (gs.step_schedule, stairs, (1.1, 10, rate, w, 0.2))
        for rate in (0.1, 1, 0)
        for w in (0, 5, 15)
    ),
    *(
        (gs.multistep_schedule, multistep, (1.1, at, 0.1, w))
        for at in ([], [3, 20])
        for w in (0, 5)
    ),
]


@pytest.mark.parametrize(
    ("factory", "oracle", "args"),
    CALLS,
    ids=[f"{factory.__name__}{args}" for factory, _, args in CALLS],
)
def test_closed_forms(factory: Any, oracle: Callable[..., float], args: tuple) -> None:
    want = [oracle(t, *args) for t in STEPS]
    got = factory(*args)(np.array(STEPS))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)
    assert not np.isnan(got).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_floor_is_met_without_a_jump(shape: str) -> None:
    schedule = gs.warmup_stable_decay_schedule(0.0, 1.0, 100, 10_000, 2_000, 0.1, shape, 3.0)
    values = np.array([schedule(t) for t in (99, 100, 7_999, 8_000, 9_999, 10_000, 10_001)])
    f32 = np.float32
    assert [*values[[1, 2, 3]]] == [1.0, 1.0, 1.0]
    assert [*values[-2:]] == [f32(0.1), f32(0.1)]
    assert 0.1 <= values[-3] < 0.1 + 0.9 / 2_000 * 1.001
    assert (np.diff(np.asarray(schedule(np.arange(8_000, 10_010)))) <= 0).all()


def test_the_cooldown_is_precise_beyond_float32() -> None:
    begin = 2**24 + 1
    schedule = gs.warmup_stable_decay_schedule(0.0, 1.0, 5, begin + 4, 4)
    assert [schedule(begin + step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    stairs_ = gs.step_schedule(1.0, begin, 0.5)
    assert [stairs_(step) for step in (begin - 1, begin, 2 * begin - 1)] == [1.0, 0.5, 0.5]
    np.testing.assert_allclose(stairs_(2 * begin), 0.25, rtol=1e-6)
    cycle = gs.cyclic_schedule(0.0, 1.0, 4)
    last = 2**31 - 4
    assert [cycle(last + step) for step in range(4)] == [0.0, 0.5, 1.0, 0.5]


def test_the_tail_of_k_decay_does_not_cancel() -> None:
    n, k = 10**6, 3.0
    want = -math.expm1(k * math.log1p(-1 / n))
    got = gs.k_decay_schedule(1.0, n, k, shape="polynomial")(n - 1)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    got = gs.warmup_stable_decay_schedule(0.0, 1.0, 0, n, n, cooldown="1-sqrt")(n - 1)
    np.testing.assert_allclose(got, (1 / n) / (1 + math.sqrt(1 - 1 / n)), rtol=1e-6)


BAD = [
    (
        lambda: gs.warmup_stable_decay_schedule(0.0, 1.0, 5, 20, 16),
        (
            r"warmup_stable_decay_schedule: decay_steps, the length of the whole schedule, must be "
            r">= warmup_steps \+ cooldown_steps = 5 \+ 16; got 20\."
        ),
    ),
    (
        lambda: gs.warmup_stable_decay_schedule(0.0, 1.0, 5, 20, 5, cooldown="cubic"),
        r"cooldown must be one of \('linear', '1-sqrt', 'cosine', 'power'\); got 'cubic'\.",
    ),
    (
        lambda: gs.warmup_stable_decay_schedule(0.0, 1.0, 5, 20, -5),
        r"warmup_stable_decay_schedule: cooldown_steps must be >= 0; got -5\.",
    ),
    (lambda: gs.power_schedule(1.0, 1.0, 20, 20), r"power_schedule: decay_steps, .* > warmup_step"),
    (lambda: gs.power_schedule(1.0, -1.0, 0, 20), r"power_schedule: amplitude must be >= 0; got -"),
    (
        lambda: gs.warmup_linear_decay_schedule(0.0, 1.0, 20, 20),
        (
            r"warmup_linear_decay_schedule: decay_steps, the length of the whole schedule, must be "
            r"> warmup_steps = 20; got 20\."
        ),
    ),
    (
        lambda: gs.warmup_inverse_sqrt_schedule(0.0, 1.0, 5, 0),
        r"warmup_inverse_sqrt_schedule: timescale must be > 0; got 0\.",
    ),
    (lambda: gs.cyclic_schedule(0.0, 1.0, 0), r"cyclic_schedule: cycle_steps must be > 0; got 0\."),
    (
        lambda: gs.cyclic_schedule(0.0, 1.0, 5, "square"),
        r"mode must be one of \('triangular', 'triangular2', 'exp_range'\); got 'square'\.",
    ),
    (
        lambda: gs.cyclic_schedule(0.0, 1.0, 5, warmup_steps=6),
        r"cyclic_schedule: warmup_steps must be <= cycle_steps = 5; got 6\.",
    ),
    (lambda: gs.rex_schedule(1.0, -1), r"rex_schedule: decay_steps must be > 0; got -1\."),
    (lambda: gs.k_decay_schedule(1.0, 5, 0.0), r"k_decay_schedule: k must be > 0; got 0.0\."),
    (lambda: gs.k_decay_schedule(1.0, 5, 1.0, shape="x"), r"shape must be one of .* got 'x'\."),
    (lambda: gs.step_schedule(1.0, 0, 0.1), r"step_schedule: transition_steps must be > 0; got 0"),
    (lambda: gs.step_schedule(1.0, 5, -0.1), r"step_schedule: decay_rate must be >= 0; got -0.1"),
    (lambda: gs.multistep_schedule(1.0, [5], -0.1), r"multistep_schedule: decay_rate must be >= 0"),
    (
        lambda: gs.warmup_exponential_decay_schedule(0.0, 1.0, -1, 5, 0.5),
        r"warmup_exponential_decay_schedule: warmup_steps must be >= 0; got -1\.",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("boundaries", [["5"], [None]])
def test_boundaries_are_numbers(boundaries: list[Any]) -> None:
    with pytest.raises(TypeError, match=r"multistep_schedule: boundaries\[0\] must be a number"):
        gs.multistep_schedule(1.0, boundaries, 0.1)
