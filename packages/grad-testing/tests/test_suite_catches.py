"""The suite can fail: for each check a transformation that breaks its property, and is caught."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import EmptyState, GradientTransformation, LeafRule, NonNegative, Real
from grad_testing import (
    DoesNotApply,
    TransformationSuite,
    descent_checks,
    error_checks,
    input_checks,
    number_checks,
    sharding_checks,
    state_checks,
    step_checks,
    tpu_checks,
    value_checks,
)
from grad_testing.checking import subject_of
from grad_testing.tpu_targets import Target

CHECKS = (
    descent_checks,
    error_checks,
    input_checks,
    number_checks,
    sharding_checks,
    state_checks,
    step_checks,
    tpu_checks,
    value_checks,
)


def pair(update: Any, init: Any = lambda params: EmptyState()) -> GradientTransformation:
    return GradientTransformation(init, update)


def leafwise(f: Any) -> GradientTransformation:
    """A raw pair that maps leaves, as many are written."""
    return pair(lambda g, s, params=None: (jax.tree.map(f, g), s))


@grad_core.example(0.5)
@grad_core.rule
def good(strength: NonNegative) -> LeafRule:
    """Breaks nothing."""
    return LeafRule(lambda g: strength * g)


class Sum(NamedTuple):
    total: Any


def summing(add: Any, dtype: Any = None, zeros: Any = jnp.zeros_like) -> GradientTransformation:
    """A raw pair that keeps a sum of updates."""

    def init(params: Any) -> Sum:
        return Sum(jax.tree.map(lambda p: zeros(p, dtype=dtype), params))

    def update(g: Any, s: Sum, params: Any = None) -> Any:
        total = jax.tree.map(add, s.total, g)
        return jax.tree.map(lambda t, g: t.astype(g.dtype), total, g), Sum(total)

    return pair(update, init)


# Values.


def raw_pair() -> GradientTransformation:
    return leafwise(lambda g: 0.5 * g)


def with_annotations_of_good(make: Any) -> Any:
    """A factory that claims to be `good`, with its ranges, but makes something else."""

    @functools.wraps(good)
    def public(strength: float) -> GradientTransformation:
        return make(strength)

    return public


ignores_its_number = with_annotations_of_good(lambda strength: good(0.5))
checks_no_number = with_annotations_of_good(lambda strength: leafwise(lambda g: strength * g))


@with_annotations_of_good
def recompiles(strength: float) -> GradientTransformation:
    """Its number is a constant of compiled code."""
    scale = jax.jit(lambda g: jax.tree.map(lambda x: strength * x, g))
    return pair(lambda g, s, params=None: (scale(g), s))


class PrintedTuple(GradientTransformation):
    """Keeps its identity on the tuple, where `_replace` and `jax.tree.map` lose it."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def lives_on_the_tuple() -> GradientTransformation:
    return PrintedTuple(*good(0.5))


# States.


def counts_in_python() -> GradientTransformation:
    return pair(lambda g, s, params=None: (g, s + 1), lambda params: 0)


def drifting_dtype() -> GradientTransformation:
    return summing(lambda t, g: t + g.astype(jnp.float32), jnp.bfloat16)


def drifting_weak_type() -> GradientTransformation:
    return pair(lambda g, s, params=None: (g, s * jnp.float32(2)), lambda params: jnp.asarray(1.0))


class Forgetful:
    """A state that loses its contents on the way through pickle."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return Forgetful, (jnp.zeros(()),)


jax.tree_util.register_pytree_node(Forgetful, lambda s: ((s.x,), None), lambda _, c: Forgetful(*c))


def state_lost_in_pickling() -> GradientTransformation:
    def update(g: Any, s: Forgetful, params: Any = None) -> Any:
        return jax.tree.map(lambda x: x * s.x, g), Forgetful(s.x + 1)

    return pair(update, lambda params: Forgetful(jnp.ones(())))


def init_looks_at_values() -> GradientTransformation:
    return pair(
        lambda g, s, params=None: (g, s),
        lambda params: jax.tree.map(lambda p: jnp.asarray(float(jnp.sum(p))), params),
    )


# Steps.


def mutates_in_place() -> GradientTransformation:
    def update(g: Any, s: Any, params: Any = None) -> Any:
        for leaf in jax.tree.leaves(g):
            if isinstance(leaf, np.ndarray):
                leaf *= 2
        return g, s

    return pair(update)


def host_state() -> GradientTransformation:
    calls = [0]

    def update(g: Any, s: Any, params: Any = None) -> Any:
        calls[0] += 1
        factor = calls[0]
        return jax.tree.map(lambda x: factor * x, g), s

    return pair(update)


def looks_whether_it_is_traced() -> GradientTransformation:
    return leafwise(lambda g: 2 * g if isinstance(g, jax.core.Tracer) else g)


def sums_over_the_batch() -> GradientTransformation:
    """Branches on what vmap hides: an array that is batched."""
    return leafwise(lambda g: 3 * g if "BatchTracer" in type(g).__name__ else g)


def state_is_the_params() -> GradientTransformation:
    """Keeps the very arrays; to donate the state then deletes the parameters."""
    return summing(lambda t, g: t + g, zeros=lambda p, dtype: p)


def refuses_extra_arguments() -> GradientTransformation:
    def update(g: Any, s: Any, params: Any = None, **extra: Any) -> Any:
        if extra:
            raise TypeError("what is this?")
        return g, s

    return grad_core.GradientTransformationExtraArgs(lambda params: (), update)


@grad_core.example(good(0.5))
def swallows_extra_arguments(inner: GradientTransformation) -> GradientTransformation:
    inner = grad_core.with_extra_args_support(inner)

    def update(g: Any, s: Any, params: Any = None, **extra: Any) -> Any:
        return inner.update(g, s, params)

    return grad_core.GradientTransformationExtraArgs(inner.init, update)


# Inputs.


def flattens_its_containers() -> GradientTransformation:
    return pair(lambda g, s, params=None: (jax.tree.leaves(g), s))


def widens() -> GradientTransformation:
    return leafwise(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)))


def computes_in_the_dtype_it_gets() -> GradientTransformation:
    """Cancels in the gradient's own precision what only float32 can hold."""
    return leafwise(lambda g: (g + 64) - 64)


def divides_by_the_root() -> GradientTransformation:
    """RMSprop's division, with an eps that float16 rounds to zero."""
    return leafwise(lambda g: g / (jnp.sqrt(g * g) + jnp.asarray(1e-8, g.dtype)))


def divides_by_the_gradient() -> GradientTransformation:
    return leafwise(lambda g: g / (jnp.real(g) - jnp.real(g)))


def squares() -> GradientTransformation:
    return leafwise(lambda g: g * jnp.abs(g) ** 2 / (1 + jnp.abs(g) ** 2))


# Numbers.


@grad_core.example(0.5)
@grad_core.transformation
def tells_no_range(strength: float) -> GradientTransformation:
    return good(strength)


@grad_core.rule
def end_point_is_a_pole(strength: NonNegative = 1.0) -> LeafRule:
    return LeafRule(lambda g: g / strength)


@grad_core.transformation
def branches_on_its_number(strength: Real = 0.5) -> GradientTransformation:
    return grad_core.scale(strength if strength > 0 else 0.0)


@grad_core.transformation
def reads_its_schedule_once(learning_rate: grad_core.LearningRate = 0.5) -> GradientTransformation:
    return grad_core.scale(learning_rate(0) if callable(learning_rate) else learning_rate)


@grad_core.rule
def has_no_derivative_at_zero(power: Real = 0.5) -> LeafRule:
    return LeafRule(lambda g: jnp.sign(g) * jnp.sqrt(power * g * g))


# Descent.


def ascends() -> GradientTransformation:
    return leafwise(lambda g: -g)


# Errors.


def takes_integers() -> GradientTransformation:
    return leafwise(lambda g: 2 * g)


def cryptic_without_params() -> GradientTransformation:
    return pair(lambda g, s, params=None: (jax.tree.map(lambda g, p: g + p, g, params), s))


def broadcasts_shapes() -> GradientTransformation:
    return summing(lambda t, g: t + g)


# Devices.


def unsharded_state() -> GradientTransformation:
    """Keeps zeros that know nothing of the parameter's sharding."""
    return summing(lambda t, g: t + g, zeros=lambda p, dtype: jnp.zeros(p.shape, p.dtype))


def runs_on_cpus_only() -> GradientTransformation:
    """Asks for eigenvalues of matrices that are not symmetric."""
    return leafwise(lambda g: g + jnp.abs(jnp.linalg.eigvals(g.T @ g)).sum() if g.ndim > 1 else g)


def large_temporary() -> GradientTransformation:
    """Has sixteen copies of each leaf in memory at once."""

    def copied(g: jax.Array) -> jax.Array:
        copies = jnp.concatenate([g * i for i in range(16)])
        return jax.lax.optimization_barrier(copies)[: len(g)]

    return leafwise(copied)


CAUGHT = [
    (value_checks.repr_is_the_call, raw_pair),
    (value_checks.equal_calls_are_equal, raw_pair),
    (value_checks.other_calls_are_unequal, ignores_its_number),
    (value_checks.pickles, raw_pair),
    (value_checks.copies_are_equal, lives_on_the_tuple),
    (value_checks.survives_tree_map_and_replace, lives_on_the_tuple),
    (value_checks.can_be_a_static_argument, raw_pair),
    (value_checks.numbers_do_not_recompile, recompiles),
    (state_checks.state_holds_only_arrays, counts_in_python),
    (state_checks.state_is_a_carry, drifting_dtype),
    (state_checks.state_is_a_carry, drifting_weak_type),
    (state_checks.state_round_trips, state_lost_in_pickling),
    (state_checks.init_takes_shapes, init_looks_at_values),
    (step_checks.is_pure, mutates_in_place),
    (step_checks.is_pure, host_state),
    (step_checks.jit_changes_nothing, host_state),
    (step_checks.jit_changes_nothing, looks_whether_it_is_traced),
    (step_checks.scan_is_a_loop, host_state),
    (step_checks.scan_is_a_loop, looks_whether_it_is_traced),
    (step_checks.vmap_is_a_loop, sums_over_the_batch),
    (step_checks.donation_changes_nothing, state_is_the_params),
    (step_checks.extra_arguments_are_ignored, refuses_extra_arguments),
    (step_checks.extra_arguments_are_routed, swallows_extra_arguments),
    (number_checks.numbers_are_checked, tells_no_range),
    (number_checks.numbers_are_checked, checks_no_number),
    (number_checks.end_points_are_legal, end_point_is_a_pole),
    (number_checks.numbers_may_be_traced, branches_on_its_number),
    (number_checks.schedules_stand_for_numbers, reads_its_schedule_once),
    (number_checks.gradients_flow, has_no_derivative_at_zero),
    (descent_checks.decreases_convex_loss, ascends),
    (descent_checks.decreases_nonconvex_loss, ascends),
    (descent_checks.decreases_stochastic_loss, ascends),
    (error_checks.integer_leaves_are_refused, takes_integers),
    (error_checks.missing_params_are_named, cryptic_without_params),
    (error_checks.wrong_trees_are_named, broadcasts_shapes),
]

CAUGHT_IN_CASE = [
    (input_checks.takes_trees, flattens_its_containers, "tuple"),
    (input_checks.takes_trees, broadcasts_shapes, "none_gradients"),
    (input_checks.takes_trees, broadcasts_shapes, "masked_node_gradients"),
    (input_checks.takes_trees, broadcasts_shapes, "float0_gradients"),
    (input_checks.works_in_dtype, widens, "bfloat16"),
    (input_checks.works_in_dtype, divides_by_the_gradient, "complex64"),
    (input_checks.agrees_with_float32, computes_in_the_dtype_it_gets, "float16"),
    (input_checks.zero_gradients_are_finite, divides_by_the_root, "float16"),
    (input_checks.extreme_gradients_are_finite, squares, "float32"),
    (input_checks.extreme_gradients_are_finite, squares, "float16"),
]


def names(entries: Any) -> list[str]:
    return ["-".join(getattr(x, "__name__", x) for x in entry) for entry in entries]


def require_caught(check: Any, factory: Any, *case: Any) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what breaks may raise anything
        check(subject_of(factory), *case)
    assert not isinstance(caught.value, DoesNotApply)


@pytest.mark.parametrize(("check", "factory"), CAUGHT, ids=names(CAUGHT))
def test_the_check_catches(check: Any, factory: Any) -> None:
    require_caught(check, factory)


@pytest.mark.parametrize(("check", "factory", "case"), CAUGHT_IN_CASE, ids=names(CAUGHT_IN_CASE))
def test_the_check_catches_the_case(check: Any, factory: Any, case: str) -> None:
    require_caught(check, factory, case)


def test_unsharded_state_is_caught(mesh: jax.sharding.Mesh) -> None:
    require_caught(sharding_checks.sharding_changes_nothing, unsharded_state, mesh)


@pytest.mark.tpu
def test_what_goes_wrong_on_tpus_is_caught(tpu: Target) -> None:
    require_caught(tpu_checks.compiles_for_tpu, runs_on_cpus_only, tpu)
    require_caught(tpu_checks.needs_little_memory_on_tpu, large_temporary, tpu)
    if tpu.layout == "sharded":
        require_caught(tpu_checks.compiles_for_tpu, unsharded_state, tpu)


def test_every_check_is_a_test_of_the_suite_and_shown_to_fail() -> None:
    checks = {
        check
        for module in CHECKS
        for check in (getattr(module, name) for name in module.__all__)
        if callable(check)
    }
    shown = {entry[0] for entry in (*CAUGHT, *CAUGHT_IN_CASE)}
    shown |= {sharding_checks.sharding_changes_nothing}
    shown |= {tpu_checks.compiles_for_tpu, tpu_checks.needs_little_memory_on_tpu}
    assert {check.__name__ for check in checks - shown} == set()
    tests = {name for name in dir(TransformationSuite) if name.startswith("test_")}
    assert tests == {f"test_{c.__name__}" for c in checks} | {
        "test_can_be_called",
        "test_exemptions_are_known",
    }


class TestGood(TransformationSuite):
    """What breaks nothing passes."""

    @pytest.fixture
    def factory(self) -> Any:
        return good
