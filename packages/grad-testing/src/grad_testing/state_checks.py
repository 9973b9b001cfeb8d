"""States hold arrays alone, and survive what states go through."""

import pickle
from typing import Any

import jax
import numpy as np

from grad_testing.checking import (
    TransformationSubject,
    require,
    require_close,
    require_same_types,
    sample,
    take_steps,
)

__all__ = [
    "init_takes_shapes",
    "state_holds_only_arrays",
    "state_is_a_carry",
    "state_round_trips",
]


def state_holds_only_arrays(subject: TransformationSubject) -> None:
    """Each leaf of a state, first and later, is a `jax.Array`."""
    params, _ = sample()
    for when, state in (("init", subject.runner.init(params)), ("update", subject.reference[1])):
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            place = f"{subject.name}: after {when}, state{jax.tree_util.keystr(path)}"
            require(isinstance(leaf, jax.Array), f"{place} should be a jax.Array, but is {leaf!r}")


def state_is_a_carry(subject: TransformationSubject) -> None:
    """Structure, shapes, dtypes and weak types of state and updates are the same at every step.

    This holds for parameters of strong and of weak type (such as ``jnp.asarray(1.0)``), in float32
    and in bfloat16.
    """
    for dtype in ("float32", "bfloat16"):
        params, gradients = sample(dtype)
        _require_stable(subject.name, subject.runner, params, gradients)
    weak = {"w": jax.numpy.asarray(1.0)}
    _require_stable(subject.name, subject.runner, weak, [weak] * 3)
    _require_stable(subject.name, subject.runner, {"w": 1.0}, [{"w": jax.numpy.ones(())}] * 3)


def _require_stable(name: str, tx: Any, params: Any, gradients: Any) -> None:
    first = state = tx.init(params)
    before = None
    for i, g in enumerate(gradients):
        updates, state = tx.update(g, state, params)
        require_same_types(state, first, f"{name}: the state after update {i + 1}")
        require_same_types(updates, g, f"{name}: update {i + 1}", weak=False)
        if before is not None:
            require_same_types(updates, before, f"{name}: update {i + 1}")
        before = updates


def state_round_trips(subject: TransformationSubject) -> None:
    """A state pickled, fetched to the host, or flattened and rebuilt goes on as it would have."""
    params, gradients = sample()
    _, state = take_steps(subject.runner, params, gradients[:1])
    trips = {
        "pickled": pickle.loads(pickle.dumps(state)),
        "flattened": jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(state)),
        "fetched": jax.device_get(state),
    }
    for how, back in trips.items():
        what = f"{subject.name}: a state {how}"
        require_close(back, state, what)
        updates, after = take_steps(subject.runner, params, gradients[1:], back)
        require_close(updates, subject.reference[0][1:], f"{what}: the next updates")
        require_close(after, subject.reference[1], f"{what}: the next state")


def init_takes_shapes(subject: TransformationSubject) -> None:
    """``jax.eval_shape(init, params)`` works, and so does ``init`` on `ShapeDtypeStruct` leaves."""
    params, _ = sample()
    state = subject.runner.init(params)
    shapes = jax.eval_shape(lambda: params)
    abstract = jax.eval_shape(subject.runner.init, params)
    require_same_types(abstract, state, f"{subject.name}: jax.eval_shape(init)", weak=False)
    made = subject.runner.init(shapes)
    require_same_types(made, state, f"{subject.name}: init of shapes", weak=False)
    for leaf in jax.tree.leaves(made):
        usable = isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
        require(usable, f"{subject.name}: init of shapes made {leaf!r}")
