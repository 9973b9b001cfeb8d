"""What line searches share: a function along a line, and whatever users pass to ``update``."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    LeafTypeError,
    MissingArgumentError,
    Params,
    PyTree,
    TreeMismatchError,
    Updates,
    apply_updates,
    scalar_dtype,
    structure,
    zeros_like,
)
from grad_core.errors import shown
from grad_core.rules import in_compute_precision
from grad_core.sharing import dispatched_once

ValueFn = Callable[..., Any]
"""``value_fn(params, ...)``: the real number to minimise, an array of shape ()."""


class Point(NamedTuple):
    """A place on the line: the step size t, the value f(x + t u), the slope <f'(x + t u), u>."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array

    @property
    def leads_down(self) -> jax.Array:
        """Whether a search can begin here: downhill, or on level ground, from a finite value."""
        return (self.slope <= 0) & jnp.isfinite(self.value)

    @property
    def first_error(self) -> jax.Array:
        """The error of a search that does not begin: the slope uphill, infinite without a value."""
        slope = jnp.abs(self.slope)
        return jnp.where(jnp.isfinite(self.value) & jnp.isfinite(slope), slope, jnp.inf)


@jax.jit
def half_square(params: Params) -> jax.Array:
    """Half the squared norm: a value function for trees of all kinds, as an example."""
    squares = [
        jnp.sum(jnp.real(x * jnp.conj(x))) for x in map(jnp.asarray, jax.tree.leaves(params))
    ]
    return jnp.asarray(sum(squares, jnp.zeros([]))) / 2


def strongly_typed(params: Params) -> Params:
    """The parameters as arrays of dtypes of their own, Python numbers too."""

    def convert(p: Any) -> Any:
        return jnp.asarray(p, jnp.result_type(p)) if structure.is_array(p) else p

    return jax.tree.map(convert, params)


@dispatched_once
def scaled(updates: Updates, step: jax.Array) -> Updates:
    """The updates times a step size, in their dtypes; absent leaves stay."""

    def scale(u: Any) -> Any:
        if structure.means_no_update(u):
            return u
        u = jnp.asarray(u)
        wide = in_compute_precision(u)
        factor = jnp.asarray(step, wide.real.dtype)
        return jnp.where(factor == 0, 0, factor * wide).astype(u.dtype)

    return jax.tree.map(scale, updates, is_leaf=structure.is_absent)


@dispatched_once
def _moved(params: Params, updates: Updates, step: jax.Array) -> Params:
    """The parameters x + t u."""
    return apply_updates(params, scaled(updates, step))


@dispatched_once
def _slope(grad: Updates, updates: Updates) -> jax.Array:
    """The derivative along the line: the inner product of gradient and direction."""
    leaves, treedef = structure.flatten(updates)
    products = [
        jnp.sum(jnp.real(in_compute_precision(g) * in_compute_precision(u)))
        for g, u in zip(treedef.flatten_up_to(grad), leaves, strict=True)
        if not structure.means_no_update(u)
    ]
    return sum(products, jnp.zeros([]))


class Line:
    """The function t -> f(x + t u) of the step size t, checked to be one.

    Args:
      params: The start x.
      updates: The direction u; parameters without an update stay.
      extra_args: The extra arguments of ``update``: ``value_fn``, perhaps ``value`` and ``grad`` at
        the start, and any other that ``value_fn`` asks for by name.
    """

    def __init__(self, params: Params | None, updates: Updates, extra_args: dict[str, Any]) -> None:
        problem = minimised(params, updates, extra_args)
        self.params, self.updates, self.value_fn, extra_args = problem
        self.dtype = scalar_dtype(self.params)
        value, self.grad = self._value_and_grad(extra_args.get("value"), extra_args.get("grad"))
        self.start = Point(self.number(0.0), self.number(value), self.slope(self.grad))

    def _value_and_grad(self, value: Any, grad: Updates | None) -> tuple[Any, Updates]:
        """Value and gradient at the start: those that the user gave, or computed."""
        if grad is None:
            computed, grad = jax.value_and_grad(self.value_fn)(self.params)
            value = computed if value is None else value
        else:
            grad = like_params(grad, self.params)
            value = self.value_fn(self.params) if value is None else value
        if jnp.shape(value) != ():
            raise TreeMismatchError(
                f"value must be a number, of shape (); got shape {jnp.shape(value)}."
            )
        return value, grad

    def check_state(self, state: Any, kind: type[tuple[Any, ...]]) -> None:
        """Raises unless the state is of a kind, and its gradient fits the parameters."""
        if not all(hasattr(state, field) for field in kind._fields):  # type: ignore[attr-defined]
            raise TreeMismatchError(
                f"the state must be a {kind.__name__}; got {shown(state)}. "
                "Was it made by another init?"
            )
        if state.grad is not None:
            check_beside_params(state.grad, self.params, "state.grad")

    def number(self, x: Any) -> jax.Array:
        """A number in the dtype of step sizes, with derivatives of 0."""
        return jax.lax.stop_gradient(jnp.asarray(x, self.dtype))

    def slope(self, grad: Updates) -> jax.Array:
        """The derivative along the line at a point with this gradient."""
        return jnp.asarray(_slope(grad, self.updates), self.dtype)

    def value_alone(self, step: jax.Array) -> Point:
        """The point at a step size, whose slope is not known: NaN."""
        value = self.value_fn(_moved(self.params, self.updates, step))
        return Point(step, jnp.asarray(value, self.dtype), self.number(jnp.nan))

    def point(self, step: jax.Array) -> tuple[Point, Updates]:
        """The point at a step size, and the gradient there."""
        params = _moved(self.params, self.updates, step)
        value, grad = jax.value_and_grad(self.value_fn)(params)
        return Point(step, jnp.asarray(value, self.dtype), self.slope(grad)), grad


def loop(goes_on: Callable[[Any], jax.Array], advance: Callable[[Any], Any], state: Any) -> Any:
    """`jax.lax.while_loop` where something is traced; outside of that a loop that never compiles.

    The loop calls the user's function, which may close over anything: so it would be compiled at
    each call anew.
    """
    while not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((state, goes_on(state)))):
        if not goes_on(state):
            return state
        state = advance(state)
    return jax.lax.while_loop(goes_on, advance, state)


def minimised(
    params: Params | None, updates: Updates, extra_args: dict[str, Any]
) -> tuple[Params, Updates, Callable[[Params], jax.Array], dict[str, Any]]:
    """What ``update`` minimises: parameters, updates beside them, `value_fn`, extra arguments.

    All are constants to derivatives, and `value_fn` is one of the parameters alone.
    """
    if params is None:
        raise MissingArgumentError(
            "update() needs the current value of the parameters: call "
            "update(updates, state, params, value=..., grad=..., value_fn=...)."
        )
    if not callable(extra_args.get("value_fn")):
        raise MissingArgumentError(
            "update() needs the extra argument 'value_fn', a function of the parameters; got "
            f"{shown(extra_args.get('value_fn'))}. Call "
            "update(updates, state, params, value=..., grad=..., value_fn=...)."
        )
    check_beside_params(updates, params, "updates")
    params, updates, extra_args = _constant((params, updates, extra_args))
    value_fn = scalar_fn(extra_args["value_fn"], extra_args)
    return strongly_typed(params), updates, value_fn, extra_args


def _constant(tree: Any) -> Any:
    """The tree with derivatives of 0: loops that end by a condition have none in reverse mode."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if structure.is_array(x) else x, tree)


def scalar_fn(
    value_fn: ValueFn, extra_args: dict[str, Any], name: str = "value_fn"
) -> Callable[[Params], jax.Array]:
    """`value_fn` as a function of the parameters alone, checked to give a real number."""
    asked = asked_by(value_fn, extra_args)

    @functools.wraps(value_fn)
    def of_params(params: Params) -> jax.Array:
        value = value_fn(params, **asked)
        if jnp.shape(value) != ():
            raise TreeMismatchError(
                f"{name} must return a number, of shape (); got {shown(value)}. "
                "Take the mean or the sum of the losses."
            )
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise LeafTypeError(f"{name} must return a real floating number; got {shown(value)}.")
        return jnp.asarray(value)

    return of_params


def asked_by(fn: Callable[..., Any], extra_args: dict[str, Any]) -> dict[str, Any]:
    """The extra arguments that a function of the parameters takes, by name."""
    others = {k: x for k, x in extra_args.items() if k not in ("value", "grad", "value_fn")}
    if not others:
        return {}
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # of functions in C
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return others
    return {p.name: others[p.name] for p in parameters[1:] if p.name in others}


def check_beside_params(tree: Updates, params: Params, name: str) -> None:
    """Raises, naming the path, unless `tree` has the parameters' structure and shapes."""
    leaves, treedef = structure.flatten(tree)
    beside = structure.flatten_like(tree, treedef, params, (name, "params"))
    for i, (u, p) in enumerate(zip(leaves, beside, strict=True)):
        if structure.means_no_update(u):
            continue
        here = functools.partial(_where, tree, name, i)
        structure.check_inexact_leaf(u, here)
        there = jnp.shape(p) if structure.is_array(p) else None
        if jnp.shape(u) != there:
            raise TreeMismatchError(
                f"{here()} has shape {jnp.shape(u)}, but {_where(tree, 'params', i)} has shape "
                f"{there}; they must be equal."
            )


def _where(tree: PyTree, name: str, i: int) -> str:
    return structure.where(name, structure.leaf_paths(tree)[i])


def like_params(grad: Updates, params: Params) -> Updates:
    """The gradient in the structure and the dtypes of the parameters, zero where there is none."""
    try:
        check_beside_params(grad, params, "grad")
    except TreeMismatchError as error:
        raise TreeMismatchError(
            f"{error.message} In partition and masked, mask_compatible_extra_args=True restricts "
            "grad and value_fn to the leaves that are there."
        ) from None
    leaves, treedef = structure.flatten(params)
    like = [
        p
        if structure.is_absent(p)
        else zeros_like(p)
        if structure.means_no_update(g)
        else jnp.asarray(g, jnp.result_type(p))
        for g, p in zip(treedef.flatten_up_to(grad), leaves, strict=True)
    ]
    return treedef.unflatten(like)
