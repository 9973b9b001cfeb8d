"""`microbatch`, and the loop behind it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from grad_core import PyTree
from grad_wrappers.microbatching.accumulators import (
    AccumulationType,
    accumulators_for,
)
from grad_wrappers.microbatching.splitting import Axes, Batch, BatchError, Steps, check_size


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: PyTree = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: Axes = 0,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Evaluates a function on one microbatch after another, and accumulates its values.

    What memory the function needs it needs for one microbatch; the accumulator comes to that. Sums
    and means of float16 and bfloat16 are accumulated in float32, and returned in the function's
    dtype. Accumulators have to fit the function: of a mean over rows take the `MEAN`, of a sum the
    `SUM`, and what has a value for each row needs `CONCAT`.

    Args:
      fun: Any function of arrays.
      argnums: The positions of the arguments that have rows.
      microbatch_size: The number of rows of a microbatch, a divisor of the number of rows; with
        None, `fun` is returned as it is.
      accumulator: An `AccumulationType`, an `Accumulator`, or a tree of them that is a prefix of
        what `fun` returns.
      argnames: The names of the keyword arguments that have rows.
      in_axes: The axis of rows: one for all those arguments, or a sequence, for those in `argnums`
        first and then for those in `argnames`. For an argument that is a tree, it may be a tree,
        with None where there are no rows.
      num_real_microbatches: How many microbatches are to run, from the first, where the others are
        padding; may be traced. Means are over those that ran, and `CONCAT` has zeros for others.

    Returns:
      A function with the parameters of `fun`.

    Raises:
      ValueError: If sizes, axes or accumulators do not fit, or an argument is missing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_wrappers.microbatching import AccumulationType, microbatch
      >>> def loss(w, x):
      ...     return jnp.mean((w * x) ** 2)
      >>> in_fours = microbatch(
      ...     jax.value_and_grad(loss),
      ...     argnums=1,
      ...     microbatch_size=4,
      ...     accumulator=AccumulationType.MEAN,
      ... )
      >>> in_fours(2.0, jnp.arange(8.0))
      (Array(70., dtype=float32), Array(70., dtype=float32))
    """
    if microbatch_size is None:
        return fun
    owner = "microbatch"
    check_size(owner, microbatch_size)
    positions = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    axes = _axis_of_each(owner, in_axes, len(positions) + len(names))

    @functools.wraps(fun)
    def microbatched(*args: Any, **kwargs: Any) -> Any:
        places = [
            *(place_of(owner, "argnums", number, args) for number in positions),
            *(_name_of(owner, name, kwargs) for name in names),
        ]
        by_place = dict(zip(places, axes, strict=True))
        batch = Batch(owner, args, kwargs, by_place, microbatch_size)
        return accumulate(fun, batch, accumulator, batch.steps(num_real_microbatches))

    return microbatched


def _axis_of_each(owner: str, in_axes: Axes, count: int) -> list[Any]:
    if not isinstance(in_axes, Sequence):
        return [in_axes] * count
    if len(in_axes) != count:
        raise BatchError(
            f"{owner}: in_axes must be a number, or have one entry for each of the {count} "
            f"arguments in argnums and argnames; got {in_axes!r}."
        )
    return list(in_axes)


def place_of(owner: str, name: str, number: int, args: Sequence[Any]) -> int:
    """A position among positional arguments, counted from the front."""
    if not -len(args) <= number < len(args):
        raise BatchError(
            f"{owner}: {name} has {number}, but the call has {len(args)} positional arguments."
        )
    return number % len(args)


def _name_of(owner: str, name: str, kwargs: dict[str, Any]) -> str:
    if name not in kwargs:
        raise BatchError(
            f"{owner}: argnames has {name!r}, but the call has the keyword arguments "
            f"{sorted(kwargs)}; an argument passed by position belongs in argnums."
        )
    return name


def accumulate(
    fun: Callable[..., Any],
    batch: Batch,
    accumulator: PyTree,
    steps: Steps,
    *,
    per_row: bool = False,
) -> Any:
    """The loop: accumulates the values of `fun` on the microbatches of a batch."""
    value, shapes = _traced_once(lambda i: _call(fun, batch, i))
    rules, treedef = accumulators_for(batch.owner, accumulator, shapes, steps, per_row=per_row)

    def parts(i: Any) -> list[Any]:
        values = treedef.flatten_up_to(value(i))
        if not per_row:
            return values  # type: ignore[no-any-return]
        return [rule.aggregate(x) for rule, x in zip(rules, values, strict=True)]

    def step(i: Any, carry: list[Any]) -> list[Any]:
        return [rule.update(c, x, i) for rule, c, x in zip(rules, carry, parts(i), strict=True)]

    def step_if_real(i: Any, carry: list[Any]) -> list[Any]:
        return jax.lax.cond(i < steps.run, step, lambda _, carry: carry, i, carry)  # type: ignore[no-any-return]

    first = [rule.init(x) for rule, x in zip(rules, jax.eval_shape(parts, 0), strict=True)]
    if isinstance(steps.run, int):
        last = jax.lax.fori_loop(0, steps.run, step, first)
    else:  # with as many steps as there are microbatches, so that it can be differentiated
        last = jax.lax.fori_loop(0, steps.total, step_if_real, first)
    return treedef.unflatten([rule.finalize(c) for rule, c in zip(rules, last, strict=True)])


def _call(fun: Callable[..., Any], batch: Batch, i: Any) -> Any:
    args, kwargs = batch.microbatch(i)
    return fun(*args, **kwargs)


def _traced_once(fun: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], PyTree]:
    """A function of a step that need not be traced again, and the shapes it returns."""
    jaxpr, shapes = jax.make_jaxpr(fun, return_shape=True)(0)
    evaluate = jax.extend.core.jaxpr_as_fun(jaxpr)
    treedef: Any = jax.tree.structure(shapes)
    return lambda i: treedef.unflatten(map(jnp.asarray, evaluate(i))), shapes
