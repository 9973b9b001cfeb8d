"""``init`` and ``update`` are pure, and mean the same however they are run."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import grad_core
from grad_core import GradientTransformation, GradientTransformationExtraArgs
from grad_testing.checking import (
    DoesNotApply,
    TransformationSubject,
    require,
    require_close,
    require_same_types,
    sample,
    take_steps,
    takes_extra_arguments,
)

__all__ = [
    "donation_changes_nothing",
    "extra_arguments_are_ignored",
    "extra_arguments_are_routed",
    "is_pure",
    "jit_changes_nothing",
    "scan_is_a_loop",
    "vmap_is_a_loop",
]


def is_pure(subject: TransformationSubject) -> None:
    """``init`` and ``update`` leave their inputs alone, and give the same outputs again."""
    params, gradients = jax.device_get(sample())  # arrays of NumPy could be changed in place
    params, gradients = jax.tree.map(np.array, (params, gradients))
    state = jax.tree.map(_writable, subject.runner.init(params))
    inputs = gradients[0], state, params
    before = copy.deepcopy(inputs)
    first = subject.runner.update(*inputs)
    require_close(inputs, before, f"{subject.name}: update changed its inputs")
    require_close(subject.runner.update(*inputs), first, f"{subject.name}: update called twice")
    require_close(inputs, before, f"{subject.name}: update changed its inputs")
    require_close(subject.runner.init(params), before[1], f"{subject.name}: init called twice")
    require_close(params, before[2], f"{subject.name}: init changed its inputs")


def _writable(x: Any) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.array(x)


def jit_changes_nothing(subject: TransformationSubject) -> None:
    """Inside `jax.jit`, ``init`` and ``update`` give what they give outside."""
    params, gradients = sample()
    state = jax.jit(subject.runner.init)(params)
    eager_state = subject.runner.init(params)
    require_same_types(state, eager_state, f"{subject.name}: init under jit")
    require_close(state, eager_state, f"{subject.name}: init under jit")
    _require_reference(
        subject,
        take_steps(subject.runner, params, gradients, state, jax.jit(subject.runner.update)),
        "under jit",
    )


def scan_is_a_loop(subject: TransformationSubject) -> None:
    """Steps taken by `jax.lax.scan` are the steps of a loop."""
    params, gradients = sample()
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *gradients)

    def step(state: Any, g: Any) -> tuple[Any, Any]:
        updates, state = subject.runner.update(g, state, params)
        return state, updates

    state, updates = jax.lax.scan(step, subject.runner.init(params), stacked)
    taken = [jax.tree.map(lambda u, i=i: u[i], updates) for i in range(len(gradients))]
    _require_reference(subject, (taken, state), "under scan")


def vmap_is_a_loop(subject: TransformationSubject) -> None:
    """A batch of problems under `jax.vmap` is solved as one problem after another."""
    params, gradients = sample()
    problems = [jax.tree.map(lambda x, k=k: k * x, (params, gradients)) for k in (1.0, -2.0, 0.5)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)

    def solve(params: Any, gradients: Any) -> Any:
        return take_steps(subject.runner, params, gradients)

    updates, state = jax.vmap(solve)(*batch)
    for i, problem in enumerate(problems):
        alone = solve(*problem)
        mine = jax.tree.map(lambda x, i=i: x[i], (updates, state))
        require_close(mine, alone, f"{subject.name}: problem {i} under vmap")


def donation_changes_nothing(subject: TransformationSubject) -> None:
    """With gradients and state donated, updates are the same, and the parameters stay usable."""
    params, gradients = sample()
    before, _ = sample()  # not device_get: its views would keep the buffers from being donated
    update = jax.jit(subject.runner.update, donate_argnums=(0, 1))
    found = take_steps(subject.runner, params, gradients, update=update)
    _require_reference(subject, found, "with donation")
    require_close(params, before, f"{subject.name}: the parameters, after the state was donated")


def extra_arguments_are_ignored(subject: TransformationSubject) -> None:
    """Extra keyword arguments that nobody asks for change nothing."""
    params, gradients = sample()
    tx = subject.tx if takes_extra_arguments(subject.tx) else grad_core.chain(subject.tx)
    extra_args = {**subject.conformance.extra_args, "nobody_asks_for_this": 1.0}
    for each in (tx, grad_core.with_extra_args_support(subject.tx)):
        update: Any = each.update
        updates, _ = update(gradients[0], each.init(params), params, **extra_args)
        expected = subject.reference[0][0]
        require_close(updates, expected, f"{subject.name}: with an extra argument, updates")


def extra_arguments_are_routed(subject: TransformationSubject) -> None:
    """A transformation made of others hands extra arguments to those that take them."""
    if not subject.inner:
        raise DoesNotApply("its example is made of no other transformations")
    params, gradients = sample()
    seen: list[object] = []

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: object
    ) -> tuple[Any, Any]:
        seen.append(extra_args.get("a_word"))
        return updates, state

    spy = GradientTransformationExtraArgs(lambda params: (), update)
    arguments = subject.arguments.arguments
    replaced = {name: _with_spies(value, spy) for name, value in arguments.items()}
    tx = subject.make(**replaced)
    require(takes_extra_arguments(tx), f"{tx!r} should be a GradientTransformationExtraArgs")
    word = jnp.asarray(7.0)
    update_of_all = subject.filled(tx).update
    update_of_all(gradients[0], tx.init(params), params, a_word=word)  # type: ignore[call-arg]
    heard = seen and all(x is not None for x in seen)
    require(heard, f"{tx!r} did not hand an extra argument to the transformations in it")


def _with_spies(value: Any, spy: GradientTransformation) -> Any:
    """An argument with each transformation in it replaced by `spy`."""
    return jax.tree.map(
        lambda x: spy if isinstance(x, GradientTransformation) else x,
        value,
        is_leaf=lambda x: isinstance(x, GradientTransformation),
    )


def _require_reference(
    subject: TransformationSubject, found: tuple[list[Any], Any], how: str
) -> None:
    updates, state = subject.reference
    require_same_types(found[1], state, f"{subject.name} {how}: the state")
    require_close(found[0], updates, f"{subject.name} {how}: the updates")
    require_close(found[1], state, f"{subject.name} {how}: the state")
