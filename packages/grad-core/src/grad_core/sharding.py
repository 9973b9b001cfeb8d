"""The sharding of an optimizer's whole state, from that of the parameters: `state_sharding`.

What a statistic's sharding is, the ``init`` of the optimizer tells by itself. Where all axes of a
mesh are explicit, JAX's types say how arrays are sharded, through any computation; so ``init`` is
evaluated abstractly on such a mesh, whatever the real one is. A sum over rows loses the entry of
the rows, a vector for each axis keeps the entry of its axis, a count is replicated. Where ``init``
makes an array from nothing but a parameter's shape, types say nothing; what then has the place and
the shape of a parameter is sharded like it.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from grad_core import structure
from grad_core.errors import (
    LeafTypeError,
    MissingArgumentError,
    TreeMismatchError,
    naming,
    shown,
)
from grad_core.nodes import node_of
from grad_core.structure import KeyPath, where
from grad_core.tree._map_params import ParamsPlaceholder
from grad_core.types import GradientTransformation, OptState, Params, PyTree

Placement: TypeAlias = NamedSharding | SingleDeviceSharding
"""Where an array is: spread over a mesh, or on one device."""

_REPLICATED = PartitionSpec()  # type: ignore[no-untyped-call]


def state_sharding(
    optimizer: GradientTransformation, params: Params, shardings: PyTree = None
) -> PyTree:
    """The sharding of each array of an optimizer's state, for ``jax.jit(..., out_shardings=...)``.

    Statistics shaped like their parameter are sharded like it, in the same kind of memory. Those of
    fewer axes keep the entries of the axes that they keep, if ``init`` computes them from the
    parameter. All else (counts, keys, hyperparameters) is replicated over the parameters' mesh. It
    works with shapes only, and makes no state.

    Args:
      optimizer: Any transformation whose ``init`` can be traced, yours too.
      params: The parameters, or `jax.ShapeDtypeStruct` in their place.
      shardings: Shardings for them: a tree that is a prefix of `params`, one sharding for all of
        them, say. A `jax.sharding.PartitionSpec` is one for the mesh of `jax.set_mesh`. With None,
        those that `params` have. An array that was not put anywhere counts as replicated over the
        mesh of the others, or else of `jax.set_mesh`; without a mesh, the state is on one device.

    Returns:
      A tree with the structure of ``jax.eval_shape(optimizer.init, params)``, of shardings.

    Raises:
      MissingArgumentError: If shapes, or traced arrays, come without shardings, or a
        `PartitionSpec` without a mesh.
      TreeMismatchError: If `shardings` is no prefix of `params`, or one does not fit its parameter.
      LeafTypeError: If one is neither a `NamedSharding` nor a `SingleDeviceSharding`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import grad_core
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
      >>> params = jax.device_put({"w": jnp.zeros((16, 3))}, rows)
      >>> optimizer = grad_core.trace(0.9)
      >>> shardings = grad_core.state_sharding(optimizer, params)
      >>> shardings.trace["w"] == rows
      True
      >>> state = jax.jit(optimizer.init, out_shardings=shardings)(params)
    """
    node_of(optimizer, "state_sharding")  # raises if it is none
    with naming("state_sharding"):
        placed, default = _placed(params, shardings)
    owner_of = _owners(optimizer, placed)

    def sharding(path: KeyPath, x: Any) -> Placement:
        return _sharding_of(x, owner_of(path), default)

    state = _state_types(optimizer, placed, default)
    return jax.tree_util.tree_map_with_path(sharding, state)


def _sharding_of(x: Any, owner: Any, default: Placement) -> Placement:
    """The sharding of a leaf of the state, from its type and the parameter that it belongs to."""
    like: Placement = default if owner is None else owner.sharding
    if not isinstance(like, NamedSharding):
        return like
    spec = getattr(x.sharding, "spec", _REPLICATED)
    spec = spec if any(spec) else _REPLICATED
    says_no_other = spec == _REPLICATED or _full(spec, x.ndim) == _full(like.spec, x.ndim)
    if owner is not None and owner.shape == x.shape and says_no_other:
        return like
    return NamedSharding(like.mesh, spec, memory_kind=like.memory_kind)


def _full(spec: PartitionSpec, ndim: int) -> tuple[Any, ...]:
    """An entry for each axis."""
    return (*spec, *[None] * (ndim - len(spec)))


def _state_types(optimizer: GradientTransformation, placed: Params, default: Placement) -> OptState:
    """The state's shapes; with shardings, as far as types tell them."""
    if isinstance(default, NamedSharding):
        mesh = _explicit(default.mesh)
        # Users' code may not be written for explicit meshes. An error of another kind comes again.
        with contextlib.suppress(Exception), jax.sharding.use_abstract_mesh(mesh):
            return jax.eval_shape(optimizer.init, _on(mesh, placed))
    return jax.eval_shape(optimizer.init, _on(None, placed))


def _explicit(mesh: Any) -> AbstractMesh:
    kinds = (AxisType.Explicit,) * len(mesh.axis_names)
    return AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=kinds)


def _on(mesh: AbstractMesh | None, placed: Params) -> Params:
    """The parameters' shapes on another mesh, with the same specs; or without shardings."""

    def move(p: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = getattr(p.sharding, "spec", _REPLICATED)
        sharding = None if mesh is None else NamedSharding(mesh, spec)
        return _shape(p, sharding)

    return jax.tree.map(move, placed)


def _shape(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)  # type: ignore[no-untyped-call]


def _owners(
    optimizer: GradientTransformation, placed: Params
) -> Callable[[KeyPath], jax.ShapeDtypeStruct | None]:
    """The function from the path of a leaf of the state to the parameter that it belongs to.

    It tells so where `tree.map_params` would: below a place where the state holds a tree like the
    parameters, whatever is kept for each of them.
    """
    layout: OptState = None
    with contextlib.suppress(Exception):  # an init of users' may need leaves
        layout = jax.eval_shape(optimizer.init, ParamsPlaceholder())
    nodes = jax.tree_util.tree_flatten_with_path(layout, is_leaf=_is_placeholder)[0]
    places = [path for path, node in nodes if _is_placeholder(node)]
    parameters = dict(jax.tree_util.tree_flatten_with_path(placed)[0])

    def owner_of(path: KeyPath) -> jax.ShapeDtypeStruct | None:
        place = next((each for each in places if path[: len(each)] == each), None)
        if place is None:
            return None
        rest = path[len(place) :]
        heads = (rest[:length] for length in range(len(rest) + 1))
        return next((parameters[head] for head in heads if head in parameters), None)

    return owner_of


def _is_placeholder(x: object) -> bool:
    return isinstance(x, ParamsPlaceholder)


def _placed(params: Params, shardings: PyTree) -> tuple[Params, Placement]:
    """The parameters' shapes, each with its sharding; and where all else goes."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if shardings is None:
        name, given = "params", [_own(path, p) for path, p in leaves]
    else:
        name, given = "shardings", _broadcast(shardings, params)
    found = [_fitting(s, path, p, name) for s, (path, p) in zip(given, leaves, strict=True)]
    default = _default(found)
    shapes = [_shape(p, s or default) for s, (_, p) in zip(found, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), shapes), default


def _own(path: KeyPath, p: Any) -> Any:
    """The sharding that a parameter has; None if it was not put anywhere."""
    is_shape = isinstance(p, jax.ShapeDtypeStruct)
    if isinstance(p, jax.core.Tracer) or (is_shape and p.sharding is None):
        raise MissingArgumentError(
            f"{where('params', path)}, {shown(p)}, does not tell its sharding; "
            "call state_sharding(optimizer, params, shardings)."
        )
    return p.sharding if is_shape or getattr(p, "committed", False) else None


def _broadcast(shardings: PyTree, params: Params) -> list[Any]:
    """A sharding for each parameter, from a tree of them that may be a prefix."""
    structure.check_prefix(shardings, params, ("shardings", "params"))
    full = jax.tree.map(lambda s, below: jax.tree.map(lambda _: s, below), shardings, params)
    return jax.tree.leaves(full)


def _fitting(sharding: Any, path: KeyPath, p: Any, name: str) -> Placement | None:
    """A sharding, checked to be one for this parameter; for a spec, that on the current mesh."""
    if sharding is None or isinstance(sharding, SingleDeviceSharding):
        return sharding
    what = f"{where(name, path)}, {shown(getattr(sharding, 'spec', sharding))},"
    if not isinstance(sharding, NamedSharding | PartitionSpec):
        raise LeafTypeError(
            f"{what} must be a NamedSharding, a PartitionSpec or a SingleDeviceSharding."
        )
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else jax.sharding.get_mesh()
    if mesh.empty:
        raise MissingArgumentError(
            f"{what} is for the current mesh, and there is none; call jax.set_mesh(mesh), "
            "or give NamedSharding(mesh, spec)."
        )
    try:
        named = NamedSharding(mesh, sharding) if isinstance(sharding, PartitionSpec) else sharding
        _shape(p, named).sharding.shard_shape(jnp.shape(p))
    except (ValueError, IndexError):
        raise TreeMismatchError(
            f"{what} does not fit the shape {jnp.shape(p)} of {where('params', path)}: a spec has "
            "at most one entry for each axis, and names axes of the mesh whose sizes divide it; "
            f"the mesh is {dict(mesh.shape)}."
        ) from None
    return named


def _default(found: Iterable[Placement | None]) -> Placement:
    """Where an array goes that belongs to no parameter."""
    there = [s for s in found if s is not None]
    named = [s for s in there if isinstance(s, NamedSharding)]
    if named:
        return NamedSharding(named[0].mesh, _REPLICATED)
    return there[0] if there else _where_arrays_are_made()


def _where_arrays_are_made() -> Placement:
    mesh = jax.sharding.get_mesh()
    if not mesh.empty:
        return NamedSharding(mesh, _REPLICATED)
    (device,) = jnp.zeros(()).devices()  # whatever sets it: a context, the configuration
    return SingleDeviceSharding(device)
