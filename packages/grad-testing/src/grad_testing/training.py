"""Training over a mesh: the same as on one device, and everything where it belongs.

`train` takes a few steps on one device. `train_sharded` takes them on a mesh, the way users do,
with states from ``init`` under `jax.jit`, steps that donate parameters and state, and shardings
from `grad_core.state_sharding`; it raises for what it finds in another place.
`require_same_training` compares the two::

    expected = train(optimizer, loss, params, batches)
    found = train_sharded(optimizer, loss, params, batches, mesh, specs, P("data"))
    require_same_training(found, expected)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

import grad_core
from grad_core import GradientTransformation, OptState, Params
from grad_testing.checking import require, require_close
from grad_testing.tolerances import Tolerance, tolerance_for

__all__ = ["Trained", "require_same_training", "require_sharded", "train", "train_sharded"]

Tree = Any


class Trained(NamedTuple):
    """What training ends with.

    Attributes:
      params: The parameters.
      state: The state of the optimizer.
      losses: The loss before each step.
    """

    params: Params
    state: OptState
    losses: list[jax.Array]


def train(
    optimizer: GradientTransformation,
    loss: Callable[[Params, Any], jax.Array],
    params: Params,
    batches: Sequence[Any],
) -> Trained:
    """Takes a step on each batch, on one device.

    Args:
      optimizer: The optimizer.
      loss: The loss of parameters and a batch, a scalar.
      params: The first parameters, of NumPy arrays.
      batches: Trees of NumPy arrays.

    Returns:
      Parameters, state and losses.

    Example:
      >>> import numpy as np, jax.numpy as jnp, grad_core
      >>> from grad_testing.training import train
      >>> def loss(params, x):
      ...     return jnp.mean((params["w"] - x) ** 2)
      >>> batches = [np.ones(2, np.float32)] * 3
      >>> sgd = grad_core.scale_by_learning_rate(1.0)
      >>> print(*train(sgd, loss, {"w": np.zeros(2, np.float32)}, batches).losses)
      1.0 0.0 0.0
    """
    step = jax.jit(_step(optimizer, loss))
    return _repeated(step, params, jax.jit(optimizer.init)(params), batches)


def train_sharded(
    optimizer: GradientTransformation,
    loss: Callable[[Params, Any], jax.Array],
    params: Params,
    batches: Sequence[Any],
    mesh: jax.sharding.Mesh,
    specs: Tree,
    batch_spec: Tree,
) -> Trained:
    """Takes the same steps on a mesh, and finds parameters and state sharded as they should be.

    On a mesh with explicit axes the step is left to itself: types tell how its results are sharded.
    On an automatic one they are asked for by ``out_shardings``, for else XLA may choose.

    Args:
      optimizer: The optimizer.
      loss: The loss; within `jax.set_mesh`.
      params: The first parameters, of NumPy arrays.
      batches: Trees of NumPy arrays.
      mesh: A mesh.
      specs: Of the parameters, a tree of `PartitionSpec` like them.
      batch_spec: Of a batch, a `PartitionSpec` for all of it or a tree of them.

    Returns:
      Parameters, state and losses.

    Raises:
      AssertionError: If after ``init`` or after a step an array is not sharded as the parameters
        were, or as `grad_core.state_sharding` says; or if what was donated is still there.
    """
    with jax.set_mesh(mesh):
        params = jax.device_put(params, specs)
        shardings = grad_core.state_sharding(optimizer, params)
        state = jax.jit(optimizer.init)(params)
        require_sharded(state, shardings, "after init under jit, state")
        is_explicit = AxisType.Explicit in mesh.axis_types
        replicated = PartitionSpec()  # type: ignore[no-untyped-call]
        results = None if is_explicit else (specs, shardings, replicated)
        step = jax.jit(_step(optimizer, loss), donate_argnums=(0, 1), out_shardings=results)
        placed = [jax.device_put(batch, batch_spec) for batch in batches]
        of_params = jax.tree.map(lambda p: p.sharding, params)
        trained = _repeated(step, params, state, placed)
    require_sharded(trained.params, of_params, "after training, params")
    require_sharded(trained.state, shardings, "after training, state")
    for x in jax.tree.leaves((params, state)):
        require(x.is_deleted(), f"an array of shape {x.shape} was donated and is still there")
    return trained


def require_sharded(tree: Tree, shardings: Tree, what: str) -> None:
    """Requires each array of a tree to be sharded as a tree of shardings says."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    for (path, x), due in zip(found, jax.tree.leaves(shardings), strict=True):
        require(
            x.sharding.is_equivalent_to(due, x.ndim),
            f"{what}{jax.tree_util.keystr(path)} is sharded as {x.sharding}, "
            f"but should be as {due}",
        )


def require_same_training(found: Trained, expected: Trained, rounding: float | None = None) -> None:
    """Requires the same parameters, state and losses, but for rounding; integers exactly.

    Args:
      found: What training on a mesh ended with.
      expected: What training on one device ended with.
      rounding: The error allowed, relative to the largest element of each array: devices take sums
        in another order, which is felt where their terms cancel. With None, that of a few
        operations in float32.

    Raises:
      AssertionError: If an array differs by more.
    """
    rounding = tolerance_for("float32").rtol if rounding is None else rounding
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
        what = f"trained{jax.tree_util.keystr(path)}"
        require_close(a, b, what, Tolerance(0.0, rounding * _largest(b)))


def _largest(x: jax.Array) -> float:
    """The largest modulus of what is rounded; 0 of integers and keys."""
    is_rounded = jnp.issubdtype(x.dtype, jnp.inexact)
    return float(jnp.max(jnp.abs(x), initial=0.0)) if is_rounded else 0.0


def _step(
    optimizer: GradientTransformation, loss: Callable[[Params, Any], jax.Array]
) -> Callable[[Params, OptState, Any], tuple[Params, OptState, jax.Array]]:
    def step(params: Params, state: OptState, batch: Any) -> tuple[Params, OptState, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return grad_core.apply_updates(params, updates), state, value

    return step


def _repeated(
    step: Callable[..., Any], params: Params, state: OptState, batches: Sequence[Any]
) -> Trained:
    losses = []
    for batch in batches:
        params, state, loss = step(params, state, batch)
        losses.append(loss)
    return Trained(params, state, losses)
