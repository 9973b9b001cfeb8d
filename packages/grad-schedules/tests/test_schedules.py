"""Basic schedules: closed forms; steps of every kind; large steps; gradients; values."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_schedules as gs
from grad_core import conformance_of, is_factory, schedules

STEPS = [0, 1, 2, 3, 4, 5, 7, 10, 11, 19, 20, 21, 100, 10_000]


def fraction(t: float, begin: float, length: float) -> float:
    return min(max((t - max(begin, 0)) / length, 0.0), 1.0) if length > 0 else 0.0


def polynomial(t: float, a: float, b: float, p: float, length: float, begin: float = 0) -> float:
    return b + (a - b) * (1 - fraction(t, begin, length)) ** p


def exponential(
    t: float,
    a: float,
    length: float,
    rate: float,
    begin: float = 0,
    staircase: bool = False,
    end: float | None = None,
) -> float:
    if length <= 0 or rate == 0:
        return a
    exponent = max(t - max(begin, 0), 0) / length
    value = a * rate ** (math.floor(exponent) if staircase else exponent)
    if end is None:
        return value
    return max(value, end) if rate < 1 else min(value, end)


def cosine(t: float, a: float, length: float, alpha: float = 0.0, p: float = 1.0) -> float:
    c = 0.5 * (1 + math.cos(math.pi * fraction(t, 0, length)))
    return a * ((1 - alpha) * c**p + alpha)


def warmup_cosine(
    t: float, a: float, peak: float, warmup: int, length: int, end: float = 0.0, p: float = 1.0
) -> float:
    if t < warmup:
        return a + (peak - a) * t / warmup
    return cosine(t - warmup, 1.0, length - warmup, 0.0, p) * (peak - end) + end


def linear(t: float, a: float, b: float, length: float, begin: float = 0) -> float:
    return polynomial(t, a, b, 1, length, begin)


def warmup_constant(t: float, a: float, peak: float, warmup: int) -> float:
    return linear(t, a, peak, warmup)


ORACLES: dict[Callable[..., Callable[..., object]], Callable[..., float]] = {
    gs.constant_schedule: lambda t, value: value,
    gs.polynomial_schedule: polynomial,
    gs.linear_schedule: linear,
    gs.warmup_constant_schedule: warmup_constant,
    gs.exponential_decay: exponential,
    gs.cosine_decay_schedule: cosine,
    gs.warmup_cosine_decay_schedule: warmup_cosine,
}

FACTORIES = [*ORACLES]

CALLS = [
    (gs.constant_schedule, (0.3,)),
    *((gs.polynomial_schedule, (1.0, 0.1, p, 10, b)) for p in (0, 0.5, 1, 2, 3.5) for b in (0, 4)),
    (gs.polynomial_schedule, (0.0, -0.3, 2, 7)),
    (gs.polynomial_schedule, (1.0, 0.1, 2, 10, -5)),
    (gs.polynomial_schedule, (1.0, 0.1, 2, 0)),
    (gs.polynomial_schedule, (1.0, 0.1, 2, -3)),
    (gs.linear_schedule, (0.1, 1.0, 10)),
    (gs.linear_schedule, (1, 0, 10.5, 3)),
    (gs.linear_schedule, (0.7, 0.1, 0)),
    (gs.warmup_constant_schedule, (0.1, 1.0, 5)),
    (gs.warmup_constant_schedule, (0.1, 1.0, 0)),
    *(
        (gs.exponential_decay, (0.7, 10, rate, begin, staircase, end))
        for rate in (0.5, 0.99, 1.0, 1.0003)
        for begin in (0, 3, -2)
        for staircase in (False, True)
        for end in (None, 0.3, 1.2)
    ),
    (gs.exponential_decay, (-0.7, 10, 0.5, 0, False, -0.3)),
    (gs.exponential_decay, (0.7, 10, 0.0, 0, False, 0.9)),
    (gs.exponential_decay, (0.7, 0, 0.5, 0, False, 0.9)),
    (gs.exponential_decay, (0.7, -1, 0.5)),
    *((gs.cosine_decay_schedule, (0.8, 20, a, p)) for a in (0, 0.1, 1.5) for p in (0, 0.5, 1, 2)),
    (gs.cosine_decay_schedule, (0.8, 4.5)),
    *((gs.warmup_cosine_decay_schedule, (0.1, 1.1, w, 20, e)) for w in (0, 5) for e in (0.0, 0.3)),
    (gs.warmup_cosine_decay_schedule, (0.1, -1.0, 3, 10, 0.05, 2.0)),
    (gs.warmup_cosine_decay_schedule, (0.1, 0.0, 3, 10, 0.05)),
]


@pytest.fixture(params=["x32", "x64"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param == "x64")
    yield request.param
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(("factory", "args"), CALLS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_closed_forms(precision: str, factory: Callable[..., object], args: tuple) -> None:
    schedule = factory(*args)
    want = [ORACLES[factory](t, *args) for t in STEPS]
    tolerance = {"x32": 1e-6, "x64": 1e-13}[precision]
    # The cosine of the closed form, not ours, cancels at the end: hence atol.
    got = np.array([schedule(t) for t in STEPS])
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 1e-2)
    for steps in (jnp.array(STEPS), np.array(STEPS)):
        np.testing.assert_allclose(schedule(steps), want, rtol=tolerance, atol=tolerance * 1e-2)
    dtype = np.dtype({"x32": np.float32, "x64": np.float64}[precision])
    assert {schedule(t).dtype for t in (3, 3.0, jnp.int32(3), np.uint8(3))} == {dtype}


def test_exactly_the_given_values_at_the_ends() -> None:
    a, b, f32 = 0.1, 0.7, np.float32
    begin, end = 1000, 1000 + 12_347
    for power in (0.5, 1, 2, 3.3):
        schedule = gs.polynomial_schedule(a, b, power, end - begin, begin)
        assert [schedule(t) for t in (0, begin, end, end + 1, 2**31 - 1)] == [f32(a)] * 2 + [
            f32(b)
        ] * 3
    schedule = gs.linear_schedule(a, b, end - begin, begin)
    assert [schedule(t) for t in (0, begin, end, 2**31 - 1)] == [f32(a)] * 2 + [f32(b)] * 2
    schedule = gs.warmup_cosine_decay_schedule(a, b, begin, end, 0.3, 0.7)
    assert [schedule(t) for t in (0, begin, end, 2**31 - 1)] == [f32(x) for x in (a, b, 0.3, 0.3)]
    schedule = gs.cosine_decay_schedule(a, end, 0.0)
    assert [schedule(t) for t in (0, end, end + 1)] == [f32(a), 0, 0]
    schedule = gs.exponential_decay(a, 10, 0.5, 5, end_value=0.07)
    assert [schedule(t) for t in (0, 5, 100)] == [f32(a), f32(a), f32(0.07)]
    assert gs.constant_schedule(a)(17) == f32(a)


@pytest.mark.parametrize("factory", FACTORIES)
def test_steps_of_every_kind_agree(factory: Callable[..., Callable[..., jax.Array]]) -> None:
    schedule = factory(*conformance_of(factory).args)
    want = schedule(7)
    kinds = [jnp.int32, jnp.uint8, jnp.uint32, jnp.float32, jnp.bfloat16, jnp.float16]
    for step in (7.0, np.int64(7), np.float32(7), np.array(7), *(kind(7) for kind in kinds)):
        np.testing.assert_array_equal(schedule(step), want)
    np.testing.assert_allclose(jax.jit(schedule)(7), want, rtol=3e-7)
    steps = jnp.arange(12).reshape(3, 4)
    one_by_one = np.array([schedule(t) for t in range(12)]).reshape(3, 4)
    for got in (schedule(steps), jax.vmap(jax.vmap(schedule))(steps)):
        assert got.shape == (3, 4)
        np.testing.assert_allclose(got, one_by_one, rtol=3e-7, atol=1e-12)
    _, scanned = jax.lax.scan(lambda t, _: (t + 1, schedule(t)), jnp.int32(0), length=12)
    np.testing.assert_allclose(scanned, one_by_one.ravel(), rtol=3e-7, atol=1e-12)


def test_narrow_counts_do_not_wrap_the_length() -> None:
    for kind in (jnp.int8, jnp.uint8, jnp.int16, jnp.float16):
        assert gs.linear_schedule(0.0, 1.0, 100_000)(kind(100)) == np.float32(1e-3)


@pytest.mark.parametrize("step", [2**24 + 1, 2**24 + 3, 2**30 + 1, 2**31 - 2])
def test_large_steps_count_one_by_one(step: int) -> None:
    # In float32, 2**24 + 1 is 2**24: the differences are only right if taken between integers.
    begin = step - 1
    assert gs.linear_schedule(1.0, 0.0, 4, begin)(step) == 0.75
    assert gs.polynomial_schedule(1.0, 0.0, 2, 4, begin)(step) == 0.5625
    assert gs.exponential_decay(1.0, 1, 0.5, begin)(step) == pytest.approx(0.5, rel=2e-7)
    length = 2**31 - 1
    left = (length - step) / length
    np.testing.assert_allclose(gs.linear_schedule(1.0, 0.0, length)(step), left, rtol=2e-7)
    np.testing.assert_allclose(
        gs.cosine_decay_schedule(1.0, length)(step), math.sin(math.pi / 2 * left) ** 2, rtol=1e-6
    )


@pytest.mark.parametrize("staircase", [False, True])
def test_stairs_are_at_the_integers(staircase: bool) -> None:
    schedule = gs.exponential_decay(1.0, 3, 0.5, 2**30, staircase)
    step = 2**30 + 3 * 5 - 1
    exponent = 4 if staircase else 5 - 1 / 3
    np.testing.assert_allclose(schedule(step), 0.5**exponent, rtol=1e-6)
    np.testing.assert_allclose(schedule(step + 1), 0.5**5, rtol=1e-6)


@pytest.mark.parametrize(("rate", "steps"), [(0.999, 10_000), (0.9999, 100_000), (1.0001, 100_000)])
def test_rates_near_one_are_not_rounded_first(rate: float, steps: int) -> None:
    np.testing.assert_allclose(gs.exponential_decay(1.0, 1, rate)(steps), rate**steps, rtol=3e-6)


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_first_steps_of_a_long_warmup_are_precise(power: float) -> None:
    length = 10**6
    want = -math.expm1(power * math.log1p(-1 / length))
    schedules_ = [gs.polynomial_schedule(0.0, 1.0, power, length)]
    schedules_ += [gs.linear_schedule(0.0, 1.0, length)] if power == 1 else []
    for schedule in schedules_:
        np.testing.assert_allclose(schedule(1), want, rtol=3e-7)


def test_one_executable_for_all_steps_and_numbers() -> None:
    def compilations() -> int:
        return schedules._evaluate._cache_size()  # type: ignore[attr-defined]

    calls = [
        lambda k: gs.constant_schedule(0.1 * k),
        lambda k: gs.linear_schedule(0.1 * k, 0.2, 10 * k, k),
        lambda k: gs.polynomial_schedule(0.1 * k, 0.2, 0.3 * k, 10 * k, k),
        lambda k: gs.warmup_constant_schedule(0.1 * k, 0.2, 10 * k),
        lambda k: gs.exponential_decay(0.1 * k, 10 * k, 0.3 * k, k, False, 0.2 * k),
        lambda k: gs.cosine_decay_schedule(0.1 * k, 10 * k, 0.1 * k, 0.3 * k),
        lambda k: gs.warmup_cosine_decay_schedule(0.1 * k, 0.5, k, 10 * k, 0.1 * k, 0.3 * k),
    ]
    for make in calls:
        make(1)(1)
    before = compilations()
    for make in calls:
        for k in range(1, 5):
            for step in (0, 1, 1000 * k, 2**24 + k, 2**31 - 1):
                make(k)(step)
    assert compilations() == before


SMOOTH = [
    (gs.constant_schedule, (0.3,)),
    *((gs.polynomial_schedule, (1.0, 0.1, p, 10.0, 2.0)) for p in (0.0, 0.5, 1.0, 2.0)),
    (gs.polynomial_schedule, (1.0, 0.1, 2.0, 0.0, 2.0)),
    (gs.linear_schedule, (1.0, 0.1, 10.0, 2.0)),
    (gs.warmup_constant_schedule, (0.0, 1.0, 0.0)),
    (gs.exponential_decay, (1.0, 10.0, 0.5, 2.0)),
    (gs.exponential_decay, (1.0, 0.0, 0.5, 2.0)),
    *((gs.cosine_decay_schedule, (1.0, 10.0, 0.1, p)) for p in (0.0, 0.5, 1.0, 2.0)),
    *((gs.warmup_cosine_decay_schedule, (0.0, 1.0, w, 10.0, 0.1, 0.5)) for w in (0.0, 5.0)),
]


@pytest.mark.parametrize(("factory", "args"), SMOOTH, ids=lambda x: getattr(x, "__name__", str(x)))
def test_gradients_are_finite_everywhere_and_right_inside(
    factory: Callable[..., object], args: tuple[float, ...]
) -> None:
    numbers = tuple(range(len(args) + 1))
    gradient = jax.grad(lambda t, *args: factory(*args)(t), numbers)
    for step in (0.0, 1.0, 2.0, 5.0, 10.0, 12.0, 13.0, 1e6):
        assert np.isfinite(gradient(step, *args)).all()
    inside, h = 7.3, 1e-6
    for index, got in enumerate(gradient(inside, *args)):

        def at(change: float, index: int = index) -> float:
            moved = [inside, *args]
            moved[index] += change
            return ORACLES[factory](*moved)

        if [inside, *args][index] == 0.0:  # an end of the argument's range
            continue
        np.testing.assert_allclose(got, (at(h) - at(-h)) / (2 * h), rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_where_growth_passes_its_bound() -> None:
    def value(t: float, a: float, rate: float, end: float) -> jax.Array:
        return gs.exponential_decay(a, 1.0, rate, 0, False, end)(t)

    gradient = jax.grad(value, (0, 1, 2, 3))(1e6, 1.0, 2.0, 3.0)
    np.testing.assert_array_equal(gradient, [0, 0, 0, 1])


def test_hyperparameters_may_be_traced() -> None:
    def run(a: float, length: int, p: float, rate: float) -> list[jax.Array]:
        return [
            gs.polynomial_schedule(a, 0.1, p, length)(7),
            gs.linear_schedule(a, 0.1, length)(7),
            gs.cosine_decay_schedule(a, length, 0.1, p)(7),
            gs.warmup_cosine_decay_schedule(0.0, a, length // 5, length, 0.1, p)(7),
            gs.exponential_decay(a, length, rate, 0, False, 0.2)(7),
        ]

    for args in [(1.0, 10, 2.0, 0.5), (0.5, 5, 1.0, 1.5), (0.5, 20, 0.0, 0.0)]:
        want = run(*args)
        np.testing.assert_allclose(jax.jit(run)(*args), want, rtol=1e-6)
        batched = jax.vmap(run)(*(jnp.array([x, x]) for x in args))
        np.testing.assert_allclose(np.array(batched)[:, 1], want, rtol=1e-6)


def test_arrays_as_hyperparameters() -> None:
    got = gs.linear_schedule(jnp.float32(1.0), np.float32(0.0), jnp.int32(4), np.int64(1))(2)
    assert got == 0.75
    assert gs.linear_schedule(jnp.bfloat16(1.0), 0.0, 4)(1).dtype == jnp.bfloat16


@pytest.mark.parametrize("factory", FACTORIES)
def test_schedules_are_values(factory: Callable[..., object]) -> None:
    assert is_factory(factory)
    args = conformance_of(factory).args
    schedule = factory(*args)
    for other in (
        factory(*args),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        eval(repr(schedule), vars(gs)),
    ):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert other(3) == schedule(3)
    assert factory(args[0] + 1, *args[1:]) != schedule
    assert repr(schedule).startswith(f"{factory.__name__}(")


def test_signatures_are_those_users_know() -> None:
    def told(factory: Callable[..., object]) -> dict[str, object]:
        return {
            p.name: ... if p.default is p.empty else p.default
            for p in inspect.signature(factory).parameters.values()
        }

    required = ...
    steps = {"transition_steps": required, "transition_begin": 0}
    ends = {"init_value": required, "end_value": required}
    assert told(gs.constant_schedule) == {"value": required}
    assert told(gs.linear_schedule) == ends | steps
    assert list(told(gs.polynomial_schedule)) == [*ends, "power", *steps]
    assert list(told(gs.exponential_decay).items()) == [
        ("init_value", required),
        ("transition_steps", required),
        ("decay_rate", required),
        ("transition_begin", 0),
        ("staircase", False),
        ("end_value", None),
    ]
    assert list(told(gs.cosine_decay_schedule).items()) == [
        ("init_value", required),
        ("decay_steps", required),
        ("alpha", 0.0),
        ("exponent", 1.0),
    ]
    assert list(told(gs.warmup_cosine_decay_schedule).items()) == [
        ("init_value", required),
        ("peak_value", required),
        ("warmup_steps", required),
        ("decay_steps", required),
        ("end_value", 0.0),
        ("exponent", 1.0),
    ]
    assert list(told(gs.warmup_constant_schedule)) == ["init_value", "peak_value", "warmup_steps"]


BAD = [
    (
        gs.polynomial_schedule,
        (1.0, 0.0, -1, 10),
        "polynomial_schedule: power must be >= 0; got",
    ),
    (
        gs.exponential_decay,
        (1.0, 10, -0.5),
        "exponential_decay: decay_rate must be >= 0; got",
    ),
    (gs.cosine_decay_schedule, (1.0, 10, 0.0, -2.0), r"exponent must be >= 0; got -2.0"),
    (gs.warmup_cosine_decay_schedule, (0.0, 1.0, -1, 10), r"warmup_steps must be >= 0; got -1"),
    (gs.constant_schedule, (math.nan,), r"constant_schedule: value must be a number; got nan"),
]


@pytest.mark.parametrize(("factory", "args", "message"), BAD)
def test_bad_numbers_name_the_factory_the_argument_and_the_range(
    factory: Callable[..., object], args: tuple, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        factory(*args)


@pytest.mark.parametrize("bad", ["1", None, [1.0]])
def test_what_is_no_number_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match="linear_schedule: transition_steps must be a number"):
        gs.linear_schedule(1.0, 0.0, bad)


def test_conditions_between_arguments() -> None:
    for steps in (0, -1, -0.5, math.nan):
        with pytest.raises(ValueError, match="cosine_decay_schedule: decay_steps must be"):
            gs.cosine_decay_schedule(1.0, steps)
    message = r"decay_steps, the length of the whole schedule, must be > warmup_steps = 10; got {}"
    for steps in (9, 10):
        with pytest.raises(ValueError, match=message.format(steps)):
            gs.warmup_cosine_decay_schedule(0.0, 1.0, 10, steps)


def test_all_is_sorted_and_documented() -> None:
    assert gs.__all__ == sorted(gs.__all__)
    for name in gs.__all__:
        assert getattr(gs, name).__doc__
