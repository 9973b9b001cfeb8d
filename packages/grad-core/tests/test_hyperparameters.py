"""Ranges of hyperparameters, told by annotations, and decays that know their complement."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import (
    Decay,
    Fraction,
    GradientTransformation,
    LearningRate,
    NonNegative,
    Real,
    StepSchedule,
    scale,
    transformation,
)
from grad_core.hyperparameters import Parameter, PreciseDecay

DECAYS = (0.0, 1e-3, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999)
STEPS = (1, 2, 3, 10, 100, 12345, 10**6)


@transformation
def everything(
    real: Real = 1.0,
    non_negative: NonNegative = 1.0,
    fraction: Fraction = 0.5,
    decay: Decay = 0.5,
    learning_rate: LearningRate = 0.1,
    optional: Decay | None = None,
    static: object = None,
) -> GradientTransformation:
    return scale(1.0)


@transformation
def only_a_schedule(step_size: StepSchedule) -> GradientTransformation:
    return grad_core.scale_by_schedule(step_size)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("real", -1e30),
        ("real", math.inf),
        ("non_negative", 0),
        ("non_negative", math.inf),
        ("fraction", 0.0),
        ("fraction", 1.0),
        ("decay", 0),
        ("decay", 1),
        ("decay", np.float32(1.0)),
        ("learning_rate", -0.1),
        ("learning_rate", 0),
        ("optional", None),
        ("optional", 1.0),
        ("static", "anything"),
        ("static", math.nan),
    ],
)
def test_end_points_and_signs_are_free(name, value):
    assert everything(**{name: value}).init.call.arguments[name] is value


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("non_negative", -1e-9, ">= 0"),
        ("fraction", -0.1, "in [0, 1]"),
        ("fraction", 1.1, "in [0, 1]"),
        ("decay", 1.0 + 1e-9, "in [0, 1]"),
        ("decay", -1, "in [0, 1]"),
        ("decay", np.float64(2.0), "in [0, 1]"),
        ("optional", 7, "in [0, 1]"),
        ("real", math.nan, "a number"),
        ("non_negative", math.nan, ">= 0"),
        ("decay", np.float32("nan"), "in [0, 1]"),
        ("learning_rate", math.nan, "a number"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, allowed):
    with pytest.raises(ValueError, match="everything") as error:
        everything(**{name: value})
    assert str(error.value) == f"everything: {name} must be {allowed}; got {value!r}."


@pytest.mark.parametrize("value", ["0.1", None, [0.1], (0.1,), {"a": 1}, True, 1j])
@pytest.mark.parametrize("name", ["real", "non_negative", "fraction", "decay", "learning_rate"])
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(TypeError, match=rf"^everything: {name} must be a number.*got .*\("):
        everything(**{name: value})


def test_only_learning_rates_may_be_functions():
    assert callable(everything(learning_rate=lambda count: 0.1).init)
    with pytest.raises(TypeError, match=r"everything: learning_rate .*or a schedule"):
        everything(learning_rate="cosine")
    with pytest.raises(
        TypeError, match=r"everything: decay must be a number, an array of shape \(\);"
    ):
        everything(decay=lambda count: 0.1)
    assert callable(only_a_schedule(lambda count: 0.1).init)


@pytest.mark.parametrize("make", [jnp.asarray, np.asarray])
def test_arrays_are_not_looked_into(make):
    for name in ("non_negative", "decay", "learning_rate"):
        everything(**{name: make(math.nan)})
        everything(**{name: make(-3.0)})


def test_tracers_pass_unchecked():
    def f(x):
        everything(non_negative=x, decay=x, learning_rate=x)
        return x

    assert jax.jit(f)(-3.0) == -3.0


def exactly(b, t):
    """1 - b**t in double precision, without cancellation."""
    return -math.expm1(t * math.log(b)) if 0 < b < 1 else 1.0 - b**t


@pytest.mark.parametrize("b", DECAYS)
@pytest.mark.parametrize("x64", [False, True])
def test_a_decay_knows_its_complement(b, x64):
    rtol = 1e-12 if x64 else 4e-7
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        decay = PreciseDecay.of(b)
        compiled = jax.jit(lambda decay, t: (1 - decay, 1 - decay**t, decay**t * 1.0))
        for t in STEPS:
            complement, power_complement, power = compiled(decay, jnp.int32(t))
            assert power_complement.dtype == dtype
            np.testing.assert_allclose(complement, 1 - b, rtol=rtol)
            np.testing.assert_allclose(power_complement, exactly(b, t), rtol=rtol)
            if b**t > 1e-30:
                np.testing.assert_allclose(power, b**t, rtol=max(rtol, 1e-7 * abs(t * math.log(b))))
            np.testing.assert_allclose(1 - PreciseDecay.of(b) ** t, exactly(b, t), rtol=rtol)


def test_plain_float32_does_not_know_it():
    # What the test above would find without PreciseDecay.
    plain = 1 - jnp.float32(0.999) ** jnp.int32(1)
    assert abs(float(plain) / exactly(0.999, 1) - 1) > 1e-6


@pytest.mark.parametrize("x64", [False, True])
def test_one_minus_a_power_of_one_is_not_zero(x64):
    with jax.enable_x64(x64):
        for t in STEPS:
            complement = jax.jit(lambda b, t: 1 - b**t)(PreciseDecay.of(1.0), jnp.int32(t))
            assert 0 < complement < 1e-30
            assert jnp.isfinite(1 / complement)


def test_traced_decays_are_as_good_as_float32_allows():
    complement = jax.jit(lambda b, t: 1 - PreciseDecay.of(b) ** t)(0.9, 3)
    np.testing.assert_allclose(complement, 1 - 0.9**3, rtol=1e-6)


def test_a_decay_is_a_number():
    b = PreciseDecay.of(0.25)
    assert PreciseDecay.of(b) is b
    assert (b * 2, 2 * b, b + 1, 1 + b, b - 1, b / 2, 1 / b, -b) == (
        0.5, 0.5, 1.25, 1.25, -0.75, 0.125, 4.0, -0.25,
    )  # fmt: skip
    assert (1 - b, 1.0 - b, 2 - b) == (0.75, 0.75, 1.75)
    assert repr(b) == "PreciseDecay(0.25)"
    assert 1 - PreciseDecay.of(0.9999999999) == 1 - 0.9999999999


def test_powers_on_a_leaf_are_refused():
    with pytest.raises(TypeError, match="compute them in `once`"):
        PreciseDecay.of(0.9).without_log() ** 2


@pytest.mark.parametrize(
    ("annotation", "optional", "schedulable", "numeric"),
    [
        (Real, False, False, True),
        (LearningRate, False, True, True),
        (LearningRate | None, True, True, True),
        (Decay | None, True, False, True),
        (StepSchedule, False, True, True),
        (str, False, False, False),
        (None, False, False, False),
    ],
)
def test_annotations_are_read(annotation, optional, schedulable, numeric):
    found = Parameter.of(annotation)
    assert (found.optional, found.schedulable, found.range is not None) == (
        optional,
        schedulable,
        numeric,
    )
