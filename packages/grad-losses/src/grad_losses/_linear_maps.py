"""Linear functions with a transpose that is given, where JAX's own would need more memory.

``with_transpose(apply, transpose, parameters, x)`` is ``apply(parameters, x)``, linear in ``x``. In
reverse mode ``transpose(parameters, y)`` is called. The derivatives of both with respect to the
parameters are JAX's, in either mode, so derivatives of every order exist. (JAX's own
``linear_call`` has no derivative with respect to parameters and no batching rule.)

``as_unit(f, *args)`` is ``f(*args)``, by the same primitive. In the derivative rule of a function
JAX takes what does not depend on tangents apart: constants leave loops, as arrays of full size;
`jax.checkpoint` is dropped, and derivative rules of functions called there. Not so inside a unit.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[Any]
# A function of parameters and x, each a list of arrays, that returns a list of arrays.
Map = Callable[[list[Any], list[Any]], Arrays]

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
        def call(parameters: list[Any], x: list[Any]) -> Arrays:
            y = f(jax.tree.unflatten(parameters_tree, parameters), jax.tree.unflatten(in_tree, x))
            leaves: list[Any] = out_tree.flatten_up_to(y)
            return leaves

        return call

    maps = flat(apply, x_tree, y_tree), flat(transpose, y_tree, x_tree)
    return jax.tree.unflatten(y_tree, _bind(*maps, flat_parameters, flat_x))


def as_unit(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)`` for trees of arrays, differentiated and compiled as it is written."""
    return with_transpose(lambda args, _: f(*args), lambda _, y: (), args, ())


def _bind(apply: Map, transpose: Map, parameters: Arrays, x: Arrays) -> Arrays:
    """Binds the primitive: `jaxpr` is what `apply` does, `count` the number of parameters."""
    jaxpr = jax.make_jaxpr(apply)(list(parameters), list(x))
    y: list[Any] = _map_p.bind(
        *parameters, *x, jaxpr=jaxpr, apply=apply, transpose=transpose, count=len(parameters)
    )
    return y


def _run(*args: Any, jaxpr: Any, **_: Any) -> Arrays:
    y: list[Any] = jaxpr_as_fun(jaxpr)(*args)
    return y


def _jvp(
    primals: Arrays, tangents: Arrays, *, jaxpr: Any, count: int, apply: Map, transpose: Map
) -> tuple[Arrays, Arrays]:
    parameters, x = primals[:count], primals[count:]
    y = _bind(apply, transpose, parameters, x)
    y_dot: Arrays = [0.0] * len(y)
    if any(type(t) is not ad.Zero for t in tangents[count:]):
        x_dot = [_instantiate_zeros(t) for t in tangents[count:]]
        y_dot = _bind(apply, transpose, parameters, x_dot)
    changing = [i for i in range(count) if type(tangents[i]) is not ad.Zero]
    if changing:

        def of_changing(*changed: Any) -> Arrays:
            args = list(primals)
            for i, value in zip(changing, changed, strict=True):
                args[i] = value
            return _run(*args, jaxpr=jaxpr)

        at, along = ([values[i] for i in changing] for values in (primals, tangents))
        y_dot = [a + b for a, b in zip(y_dot, jax.jvp(of_changing, at, along)[1], strict=True)]
    return y, y_dot


def _transpose(y: Arrays, *args: Any, jaxpr: Any, count: int, apply: Map, transpose: Map) -> Arrays:
    del jaxpr
    x = _bind(transpose, apply, args[:count], [_instantiate_zeros(cotangent) for cotangent in y])
    wanted = [_is_linear(arg) for arg in args[count:]]
    return [None] * count + [
        v if is_wanted else None for v, is_wanted in zip(x, wanted, strict=True)
    ]


def _batch(
    args: Arrays, dims: Arrays, *, jaxpr: Any, count: int, apply: Map, transpose: Map
) -> tuple[Arrays, Arrays]:
    del jaxpr
    pairs = list(zip(args, dims, strict=True))
    (size,) = {arg.shape[dim] for arg, dim in pairs if dim is not None}
    mapped = functools.partial(jax.vmap, in_axes=(list(dims[:count]), 0), axis_size=size)
    x = [_to_front(arg, dim, size) for arg, dim in pairs[count:]]
    y = _bind(mapped(apply), mapped(transpose), args[:count], x)
    return y, [0] * len(y)


_map_p.def_impl(_run)
_map_p.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals)
ad.primitive_jvps[_map_p] = _jvp
ad.primitive_transposes[_map_p] = _transpose
batching.primitive_batchers[_map_p] = _batch
mlir.register_lowering(_map_p, mlir.lower_fun(_run, multiple_results=True))
