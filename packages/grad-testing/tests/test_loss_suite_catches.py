"""The suite can fail: for each check a loss that breaks its property, and is caught."""

import functools
import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike

from grad_core import example, exempt, promises
from grad_testing import (
    DoesNotApply,
    LossSuite,
    loss_checks,
    loss_derivative_checks,
    loss_device_checks,
    loss_error_checks,
    loss_extreme_checks,
    loss_functions,
)
from grad_testing.loss_cases import EXTREMES
from grad_testing.loss_subject import loss_subject_of
from grad_testing.tpu_targets import Target

LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 0.25, 0.3]], np.float32)
LABELS = np.array([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], np.float32)


def checked(name: str, logits: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """The arguments as arrays, or the errors that are due."""
    arrays = jnp.asarray(logits), jnp.asarray(labels)
    for argument, array in zip(("logits", "labels"), arrays, strict=True):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: {argument} must be floating point; got {array.dtype}")
    if arrays[0].shape != arrays[1].shape:
        shapes = f"logits of shape {arrays[0].shape} and labels of shape {arrays[1].shape}"
        raise ValueError(f"{name}: {shapes} must have one shape")
    return arrays


@example(LOGITS, LABELS)
@promises(infinite=("logits",), ranges={"labels": (0, 1), "weight": (0, math.inf)})
def good(logits: ArrayLike, labels: ArrayLike, weight: ArrayLike = 1.5) -> jax.Array:
    """Breaks nothing: a cross entropy of yes and no."""
    if isinstance(weight, float) and not weight >= 0:
        raise ValueError(f"good: weight must be >= 0; got {weight!r}")
    logits, labels = checked("good", logits, labels)
    dtype = logits.dtype
    return (weight * cross_entropy(*widened(logits, labels))).astype(dtype)


@example(LOGITS, LABELS)
@promises(per="batch", infinite=("logits",), ranges={"labels": (0, 1)})
def good_of_the_batch(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Breaks nothing either: the mean of it over the batch."""
    logits, labels = checked("good_of_the_batch", logits, labels)
    return jnp.mean(cross_entropy(*widened(logits, labels))).astype(logits.dtype)


def widened(*arrays: jax.Array) -> list[jax.Array]:
    return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


def cross_entropy(z: jax.Array, y: jax.Array) -> jax.Array:
    def product(label: jax.Array, cost: jax.Array) -> jax.Array:
        is_void = (label == 0) & jnp.isinf(cost)
        return jnp.where(is_void, 0, label * jnp.where(is_void, 0, cost))

    return product(y, jax.nn.softplus(-z)) + product(1 - y, jax.nn.softplus(z))


def broken(body: Any, **promised: Any) -> Any:
    """A loss of logits and labels that does what `body` does with them, widened and checked."""

    def loss(logits: Any, labels: Any) -> Any:
        logits, labels = checked(body.__name__, logits, labels)
        return body(*widened(logits, labels)).astype(logits.dtype)

    loss.__name__ = body.__name__
    return raw(loss, **promised)


def raw(loss: Any, **promised: Any) -> Any:
    """A loss of logits and labels, with an example of how to call it."""
    return example(LOGITS, LABELS)(promises(**promised)(loss))


# Batches.


@broken
def averages(z: Any, y: Any) -> Any:
    return jnp.mean((z - y) ** 2)


@broken
def centers_the_batch(z: Any, y: Any) -> Any:
    return (z - jnp.mean(z, axis=0) - y) ** 2


@functools.partial(broken, per="batch")
def weighs_by_place(z: Any, y: Any) -> Any:
    return jnp.sum(jnp.arange(len(z)) * jnp.sum((z - y) ** 2, -1))


@broken
def needs_an_example(z: Any, y: Any) -> Any:
    return (z - y) ** 2 * (len(z) / len(z))


# Ways to call.


@raw
def looks_whether_it_is_traced(logits: Any, labels: Any) -> Any:
    factor = 2 if isinstance(logits, jax.core.Tracer) else 1
    return factor * (jnp.asarray(logits) - labels) ** 2


@raw
def branches_on_its_number(logits: Any, labels: Any, weight: ArrayLike = 1.5) -> Any:
    return (jnp.asarray(logits) - labels) ** 2 * (weight if weight > 1 else 1)


@jax.custom_batching.custom_vmap
def square(x: Any) -> Any:
    return x**2


@square.def_vmap
def _of_the_first_only(size: int, is_batched: Any, x: Any) -> Any:
    return jnp.broadcast_to(x[:1] ** 2, x.shape), True


@broken
def vmaps_wrongly(z: Any, y: Any) -> Any:
    return square(z - y)


@raw
def wants_arrays(logits: Any, labels: Any) -> Any:
    return (logits - labels) ** 2


# Dtypes.


@raw
def single_precision_always(logits: Any, labels: Any) -> Any:
    return (jnp.asarray(logits, jnp.float32) - jnp.asarray(labels, jnp.float32)) ** 2


@raw
def takes_one_half_for_the_other(logits: Any, labels: Any) -> Any:
    logits = jnp.asarray(logits)
    narrow = jnp.bfloat16 if logits.dtype == jnp.float16 else logits.dtype
    return ((logits - labels).astype(narrow).astype(logits.dtype)) ** 2


@raw
def ignores_the_dtype_asked_for(logits: Any, labels: Any, dtype: Any = None) -> Any:
    return (jnp.asarray(logits) - labels) ** 2


@raw
def computes_in_the_dtype_it_gets(logits: Any, labels: Any) -> Any:
    return (jnp.asarray(logits) - labels) ** 2


# Derivatives.


@broken
def stops_a_gradient(z: Any, y: Any) -> Any:
    return (z - jax.lax.stop_gradient(y)) ** 2


@jax.custom_vjp
def half_square(x: Any) -> Any:
    return x**2 / 2


half_square.defvjp(lambda x: (x**2 / 2, x), lambda x, g: (x * jnp.mean(g),))


@broken
def averages_cotangents(z: Any, y: Any) -> Any:
    return half_square(z - y)


@jax.custom_jvp
def cube(x: Any) -> Any:
    return x**3


@cube.defjvp
def _constant_slope(primals: Any, tangents: Any) -> Any:
    (x,), (v,) = primals, tangents
    return x**3, 3 * jax.lax.stop_gradient(x) ** 2 * v


@broken
def has_no_second_derivative(z: Any, y: Any) -> Any:
    return cube(z - y)


# Extremes.


@broken
def norm(z: Any, y: Any) -> Any:
    return jnp.sqrt(jnp.sum(z**2, -1)) + 0 * jnp.sum(y, -1)


@broken
def distance(z: Any, y: Any) -> Any:
    return jnp.sqrt(jnp.sum((z - y) ** 2, -1))


@broken
def cosine(z: Any, y: Any) -> Any:
    squares = jnp.sum(z**2, -1) * jnp.sum(y**2, -1)
    return jnp.sum(z * y, -1) / jnp.sqrt(jnp.where(squares == 0, 1, squares))


@broken
def naive_softplus(z: Any, y: Any) -> Any:
    return jnp.log(1 + jnp.exp(z - y))


@functools.partial(broken, ranges={"labels": (0, 1)})
def naive_entropy(z: Any, y: Any) -> Any:
    return z**2 - y * jnp.log(y)


@functools.partial(broken, infinite=("logits",), ranges={"labels": (0, 1)})
def naive_products(z: Any, y: Any) -> Any:
    return y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)


@functools.partial(broken, infinite=("logits",))
def cuts_infinities(z: Any, y: Any) -> Any:
    return jax.nn.softplus(jnp.where(jnp.isposinf(z), 3.0, z)) + y**2


@functools.partial(broken, infinite=("logits",))
def cuts_what_overflows(z: Any, y: Any) -> Any:
    return jnp.exp(jnp.where(jnp.isposinf(z), 3.0, z)) + y**2


@functools.partial(broken, infinite=("logits",))
def turns_its_sign(z: Any, y: Any) -> Any:
    return jnp.where(jnp.isposinf(z), -jnp.inf, z) + y**2


# Errors.


@raw
def takes_integers(logits: Any, labels: Any) -> Any:
    return (1.0 * jnp.asarray(logits) - labels) ** 2


@raw
def gives_complex_numbers(logits: Any, labels: Any) -> Any:
    logits, _ = checked("gives_complex_numbers", logits, LABELS)
    return (logits - jnp.asarray(labels)) ** 2


@raw
def broadcasts_cryptically(logits: Any, labels: Any) -> Any:
    return (jnp.asarray(logits) - jnp.asarray(labels)) ** 2


@raw
def repeats_examples(logits: Any, labels: Any) -> Any:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    return logits**2 + jnp.resize(labels, logits.shape)


@raw
def checks_no_number(logits: Any, labels: Any, weight: float = 1.5) -> Any:
    return (jnp.asarray(logits) - labels) ** 2 * weight


@functools.partial(raw, ranges={"weight": (0, math.inf)})
def refuses_an_end(logits: Any, labels: Any, weight: float = 1.5) -> Any:
    if not weight > 0:
        raise ValueError(f"refuses_an_end: weight must be > 0; got {weight!r}")
    return (jnp.asarray(logits) - labels) ** 2 * weight


# Devices.


@broken
def forgets_later_examples(z: Any, y: Any) -> Any:
    return jnp.where(jnp.arange(len(z))[:, None] < 2, (z - y) ** 2, 0)


@functools.partial(broken, per="batch")
def compares_all_pairs(z: Any, y: Any) -> Any:
    return jnp.sum((z @ z.T - y @ y.T) ** 2)


@broken
def gathers(z: Any, y: Any) -> Any:
    everywhere = jax.sharding.PartitionSpec()
    explicit = jax.sharding.AxisType.Explicit in jax.typeof(z).sharding.mesh.axis_types
    return jax.sharding.reshard((z - y) ** 2, everywhere) if explicit else (z - y) ** 2


@broken
def runs_on_cpus_only(z: Any, y: Any) -> Any:
    return (z - y) ** 2 + jnp.abs(jnp.linalg.eigvals(jax.lax.stop_gradient(z.T @ z))).sum()


CAUGHT = [
    (loss_checks.one_value_per_example, averages),
    (loss_checks.one_value_per_example, centers_the_batch),
    (loss_checks.order_of_examples_is_kept, weighs_by_place),
    (loss_checks.empty_batch_is_empty, needs_an_example),
    (loss_checks.jit_changes_nothing, looks_whether_it_is_traced),
    (loss_checks.jit_changes_nothing, branches_on_its_number),
    (loss_checks.vmap_is_a_loop, vmaps_wrongly),
    (loss_checks.lists_are_arrays, wants_arrays),
    (loss_checks.arithmetic_is_in_float32, computes_in_the_dtype_it_gets),
    (loss_derivative_checks.gradients_are_slopes, stops_a_gradient),
    (loss_derivative_checks.gradients_are_slopes, averages_cotangents),
    (loss_derivative_checks.tangents_are_slopes, stops_a_gradient),
    (loss_derivative_checks.second_derivatives_are_slopes, has_no_second_derivative),
    (loss_extreme_checks.infinities_are_limits, naive_products),
    (loss_extreme_checks.infinities_are_limits, cuts_infinities),
    (loss_extreme_checks.infinities_are_limits, cuts_what_overflows),
    (loss_extreme_checks.infinities_are_limits, turns_its_sign),
    (loss_error_checks.integers_are_refused, takes_integers),
    (loss_error_checks.integers_are_refused, gives_complex_numbers),
    (loss_error_checks.wrong_shapes_are_named, broadcasts_cryptically),
    (loss_error_checks.wrong_shapes_are_named, repeats_examples),
    (loss_error_checks.numbers_are_checked, checks_no_number),
    (loss_error_checks.numbers_are_checked, refuses_an_end),
]

CAUGHT_IN_CASE = [
    (loss_checks.works_in_dtype, single_precision_always, "float16"),
    (loss_checks.works_in_dtype, single_precision_always, "bfloat16"),
    (loss_checks.works_in_dtype, single_precision_always, "float64"),
    (loss_checks.works_in_dtype, takes_one_half_for_the_other, "float16"),
    (loss_checks.works_in_dtype, ignores_the_dtype_asked_for, "bfloat16"),
    (loss_extreme_checks.extremes_are_finite, norm, "zeros"),
    (loss_extreme_checks.extremes_are_finite, distance, "equal"),
    (loss_extreme_checks.extremes_are_finite, cosine, "tiny"),
    (loss_extreme_checks.extremes_are_finite, naive_softplus, "large"),
    (loss_extreme_checks.extremes_are_finite, distance, "largest"),
    (loss_extreme_checks.extremes_are_finite, naive_entropy, "ends"),
]


def names(entries: Any) -> list[str]:
    return ["-".join(getattr(x, "__name__", x) for x in entry) for entry in entries]


def require_caught(check: Any, loss: Any, *case: Any) -> None:
    subject = loss_subject_of(loss)
    assert subject.reason_to_skip is None
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what breaks may raise anything
        check(subject, *case)
    assert not isinstance(caught.value, DoesNotApply)


@pytest.mark.parametrize(("check", "loss"), CAUGHT, ids=names(CAUGHT))
def test_the_check_catches(check: Any, loss: Any) -> None:
    require_caught(check, loss)


@pytest.mark.parametrize(("check", "loss", "case"), CAUGHT_IN_CASE, ids=names(CAUGHT_IN_CASE))
def test_the_check_catches_the_case(check: Any, loss: Any, case: str) -> None:
    require_caught(check, loss, case)


def test_wrong_results_on_a_mesh_are_caught(mesh: jax.sharding.Mesh) -> None:
    is_explicit = jax.sharding.AxisType.Explicit in mesh.axis_types
    for loss in (compares_all_pairs, gathers) if is_explicit else (forgets_later_examples,):
        require_caught(loss_device_checks.sharding_changes_nothing, loss, mesh)


@pytest.mark.tpu
def test_what_does_not_compile_for_a_tpu_is_caught(tpu: Target) -> None:
    require_caught(loss_device_checks.compiles_for_tpu, runs_on_cpus_only, tpu)


def test_every_check_is_a_test_of_the_suite_and_shown_to_fail() -> None:
    modules = (loss_checks, loss_derivative_checks, loss_error_checks, loss_extreme_checks)
    checks = {name for module in modules for name in module.__all__}
    assert checks == {entry[0].__name__ for entry in (*CAUGHT, *CAUGHT_IN_CASE)}
    cases = {case for check, _, case in CAUGHT_IN_CASE if check.__name__ == "extremes_are_finite"}
    assert cases == {*EXTREMES}
    tests = {name for name in dir(LossSuite) if name.startswith("test_")}
    assert tests == {f"test_{name}" for name in (*checks, *loss_device_checks.__all__)} | {
        "test_exemptions_are_known",
        "test_is_a_loss",
    }


def test_all_functions_are_found_and_none_twice() -> None:
    package = ModuleType("package")
    public = {"good": good, "again": good, "Array": jax.Array, "norm": norm, "PI": math.pi}
    vars(package).update(public)
    package.__all__ = [*public]
    assert loss_functions(package) == [good, norm]
    with pytest.raises(AttributeError, match="no_all has no __all__"):
        loss_functions(ModuleType("no_all"))


def classes_of(scores: jax.Array) -> jax.Array:
    return jnp.argmax(scores, -1)


no_loss = exempt("is_a_loss", reason="it gives classes")


@pytest.mark.parametrize("loss", [classes_of, example(LOGITS)(jax.jit(classes_of))])
def test_what_is_no_loss_fails_unless_it_says_so(loss: Any) -> None:
    suite = LossSuite()
    with pytest.raises(AssertionError) as caught:
        suite.test_is_a_loss(loss)
    assert "is_a_loss" in caught.value.__notes__[0]
    with pytest.raises(pytest.skip.Exception, match="test_is_a_loss"):
        suite.test_vmap_is_a_loop(loss)
    excused = no_loss(functools.wraps(loss)(lambda *args: loss(*args)))
    with pytest.raises(pytest.xfail.Exception, match="it gives classes"):
        suite.test_is_a_loss(excused)
    with pytest.raises(pytest.skip.Exception, match="it gives classes"):
        suite.test_vmap_is_a_loop(excused)


def test_exemptions_and_promises_must_be_needed_and_known() -> None:
    def copy() -> Any:
        return functools.wraps(good)(lambda *args, **kwargs: good(*args, **kwargs))

    suite = LossSuite()
    with pytest.raises(pytest.fail.Exception, match="claims to be no loss"):
        suite.test_is_a_loss(no_loss(copy()))
    with pytest.raises(pytest.fail.Exception, match="the property holds"):
        suite.test_lists_are_arrays(exempt("lists_are_arrays", reason="none")(copy()))
    with pytest.raises(pytest.fail.Exception, match="exempt from loveliness"):
        suite.test_exemptions_are_known(exempt("loveliness", reason="none")(copy()))
    with pytest.raises(pytest.fail.Exception, match="promises loveliness"):
        suite.test_exemptions_are_known(promises(loveliness=True)(copy()))
    for promise in ({"infinite": ("logit",)}, {"infinite": "logits"}, {"per": "batches"}):
        with pytest.raises(pytest.fail.Exception, match=f"promises {next(iter(promise))}"):
            suite.test_exemptions_are_known(promises(**promise)(copy()))
    suite.test_exemptions_are_known(good)


class TestGood(LossSuite):
    """What breaks nothing passes."""

    @pytest.fixture
    def factory(self) -> Any:
        return good


class TestGoodOfTheBatch(LossSuite):
    """So does a loss of the batch as a whole."""

    @pytest.fixture
    def factory(self) -> Any:
        return good_of_the_batch
