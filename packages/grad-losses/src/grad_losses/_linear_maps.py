"""Linear functions with a transpose that is given, where JAX's own would need more memory.

``with_transpose(apply, transpose, parameters, x)`` is ``apply(parameters, x)``, linear in ``x``. In
reverse mode ``transpose(parameters, y)`` is called; of both, derivatives with respect to the
parameters are derived by JAX, in either mode, so derivatives of every order exist. (JAX's own
``linear_call`` has no derivative with respect to parameters and no batching rule.)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[Any]
# A function of parameters and x, each a flat list of arrays, that returns a list of arrays.
Map = Callable[[Arrays, Arrays], Arrays]

_map_p: Any = Primitive("linear_map_with_transpose")  # JAX gives these no types
_map_p.multiple_results = True
_instantiate_zeros: Callable[[Any], Any] = ad.instantiate_zeros
_is_linear: Callable[[Any], bool] = ad.is_undefined_primal
_to_front: Callable[[Any, Any, int], Any] = batching.bdim_at_front


def with_transpose(
    apply: Callable[[Any, Any], Any],
    transpose: Callable[[Any, Any], Any],
    parameters: Any,
    x: Any,
) -> Any:
    """``apply(parameters, x)``, transposed by ``transpose(parameters, y)``.

    Both take and return trees of arrays; what `transpose` returns has the dtypes of `x`.
    """
    flat_parameters, parameters_tree = jax.tree.flatten(parameters)
    flat_x, x_tree = jax.tree.flatten(x)
    y_tree = jax.tree.structure(jax.eval_shape(apply, parameters, x))

    def flat(f: Callable[[Any, Any], Any], in_tree: Any, out_tree: Any) -> Map:
        def call(parameters: Arrays, x: Arrays) -> Arrays:
            y = f(jax.tree.unflatten(parameters_tree, parameters), jax.tree.unflatten(in_tree, x))
            leaves: list[Any] = out_tree.flatten_up_to(y)
            return leaves

        return call

    y = _map_p.bind(
        *flat_parameters,
        *flat_x,
        apply=flat(apply, x_tree, y_tree),
        transpose=flat(transpose, y_tree, x_tree),
        count=len(flat_parameters),
    )
    return jax.tree.unflatten(y_tree, y)


def _apply(*args: Any, apply: Map, transpose: Map, count: int) -> Arrays:
    return apply(list(args[:count]), list(args[count:]))


def _abstract(*args: Any, apply: Map, transpose: Map, count: int) -> Any:
    return jax.make_jaxpr(apply)(list(args[:count]), list(args[count:])).out_avals


def _jvp(primals: Arrays, tangents: Arrays, *, count: int, **maps: Map) -> tuple[Arrays, Arrays]:
    parameters, x = list(primals[:count]), list(primals[count:])
    y = _map_p.bind(*parameters, *x, count=count, **maps)
    y_dot: list[Any] = [0.0] * len(y)
    if any(type(t) is not ad.Zero for t in tangents[count:]):
        x_dot = [_instantiate_zeros(t) for t in tangents[count:]]
        y_dot = _map_p.bind(*parameters, *x_dot, count=count, **maps)
    changing = [i for i in range(count) if type(tangents[i]) is not ad.Zero]
    if changing:

        def apply(*changed: Any) -> Arrays:
            changed_parameters = list(parameters)
            for i, value in zip(changing, changed, strict=True):
                changed_parameters[i] = value
            return maps["apply"](changed_parameters, x)

        at, along = ([values[i] for i in changing] for values in (parameters, tangents))
        y_dot = [a + b for a, b in zip(y_dot, jax.jvp(apply, at, along)[1], strict=True)]
    return y, y_dot


def _transpose(y: Arrays, *args: Any, apply: Map, transpose: Map, count: int) -> Arrays:
    y = [_instantiate_zeros(cotangent) for cotangent in y]
    maps = {"apply": transpose, "transpose": apply}
    x = _map_p.bind(*args[:count], *y, count=count, **maps)
    wanted = [_is_linear(arg) for arg in args[count:]]
    return [None] * count + [
        v if is_wanted else None for v, is_wanted in zip(x, wanted, strict=True)
    ]


def _batch(args: Arrays, dims: Arrays, *, count: int, **maps: Map) -> tuple[Arrays, Arrays]:
    (size,) = {arg.shape[dim] for arg, dim in zip(args, dims, strict=True) if dim is not None}
    pairs = list(zip(args, dims, strict=True))
    x = [_to_front(arg, dim, size) for arg, dim in pairs[count:]]
    batched = {
        name: jax.vmap(each, in_axes=(list(dims[:count]), 0), axis_size=size)
        for name, each in maps.items()
    }
    y = _map_p.bind(*args[:count], *x, count=count, **batched)
    return y, [0] * len(y)


_map_p.def_impl(_apply)
_map_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_map_p] = _jvp
ad.primitive_transposes[_map_p] = _transpose
batching.primitive_batchers[_map_p] = _batch
mlir.register_lowering(_map_p, mlir.lower_fun(_apply, multiple_results=True))
