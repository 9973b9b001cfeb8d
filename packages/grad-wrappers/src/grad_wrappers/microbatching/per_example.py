"""`micro_vmap` and `micro_grad`: functions of single rows, evaluated microbatch by microbatch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import PyTree
from grad_wrappers.microbatching.accumulators import AccumulationType
from grad_wrappers.microbatching.functions import accumulate, place_of
from grad_wrappers.microbatching.splitting import Axes, Batch, BatchError, check_size


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: Axes = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Callable[..., Any]] = jax.vmap,
    accumulator: PyTree = AccumulationType.CONCAT,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """`jax.vmap`, one microbatch after another, with reductions over the rows.

    With `CONCAT` the values are those of `jax.vmap`; with `SUM` and `MEAN` their sum and mean over
    the rows, for which no array of all values is ever there.

    Args:
      fun: A function of single rows.
      in_axes: The axis of rows of all positional arguments, or of each, or trees of them, with None
        where there are no rows. Keyword arguments have their rows along the first axis.
      out_axes: Only 0.
      microbatch_size: The number of rows of a microbatch, a divisor of the number of rows; all rows
        with None.
      vmap_fn: What maps `fun` over the rows of a microbatch, called ``vmap_fn(fun, in_axes, 0)``.
      accumulator: As for `microbatch`.
      num_real_microbatches: As for `microbatch`; without effect if `microbatch_size` is None.

    Returns:
      A function of batches.

    Raises:
      ValueError: If sizes, axes or accumulators do not fit.
      NotImplementedError: If `out_axes` is not 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.microbatching import AccumulationType, micro_vmap
      >>> micro_vmap(jnp.square, microbatch_size=2)(jnp.arange(4.0))
      Array([0., 1., 4., 9.], dtype=float32)
      >>> sum_of_squares = micro_vmap(
      ...     jnp.square, microbatch_size=2, accumulator=AccumulationType.SUM
      ... )
      >>> sum_of_squares(jnp.arange(4.0))
      Array(14., dtype=float32)
    """
    if out_axes != 0:
        raise NotImplementedError(f"micro_vmap: out_axes must be 0; got {out_axes!r}.")
    return _mapped(
        "micro_vmap", fun, in_axes, microbatch_size, vmap_fn, accumulator, num_real_microbatches
    )


def _mapped(
    owner: str,
    fun: Callable[..., Any],
    in_axes: Axes,
    size: int | None,
    vmap_fn: Callable[..., Callable[..., Any]],
    accumulator: PyTree,
    num_real: Any,
) -> Callable[..., Any]:
    """`micro_vmap`, in the name of `owner`."""
    if size is not None:
        check_size(owner, size)

    def mapped(*args: Any, **kwargs: Any) -> Any:
        axes = _axis_of_each(owner, in_axes, args)
        by_place: dict[int | str, Any] = {**dict(enumerate(axes)), **dict.fromkeys(kwargs, 0)}
        batch = Batch(owner, args, kwargs, by_place, size)
        steps = batch.steps(None if size is None else num_real)
        rows = vmap_fn(fun, axes, 0)
        return accumulate(rows, batch, accumulator, steps, per_row=True)

    return mapped


def _axis_of_each(owner: str, in_axes: Axes, args: Sequence[Any]) -> tuple[Any, ...]:
    if not isinstance(in_axes, Sequence):
        return (in_axes,) * len(args)
    if len(in_axes) != len(args):
        raise BatchError(
            f"{owner}: in_axes must be a number, or have one entry for each of the {len(args)} "
            f"positional arguments; got {in_axes!r}."
        )
    return tuple(in_axes)


class Aux(NamedTuple):
    """What `micro_grad` returns beside gradients, one of each for each row.

    Attributes:
      values: The values of the function.
      metrics: What ``metrics_fn`` makes of the gradients.
      aux: What the function returns beside its value.
    """

    values: jax.Array
    metrics: Any
    aux: Any


def _unchanged(gradient: PyTree) -> PyTree:
    return gradient


def _nothing(gradient: PyTree) -> None:
    return None


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: PyTree = AccumulationType.SUM,
    transform_fn: Callable[[Any], Any] = _unchanged,
    metrics_fn: Callable[[Any], Any] = _nothing,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., tuple[Any, Aux]]:
    """Gradients of single rows, transformed and accumulated: sum_i transform(grad of row i).

    So are clipped and squared gradients of single rows added up, for differential privacy or for
    their variance, with memory for one microbatch of them.

    Args:
      fun: A function ``fun(params, batch, ...)`` that returns a number.
      has_aux: Whether it returns a pair, of the number and anything else.
      argnums: The positions of the arguments to differentiate with respect to.
      batch_argnums: The positions of the arguments that have rows, along their first axis. Keyword
        arguments have theirs there too.
      keep_batch_dim: Whether `fun` gets batches of one row, or rows without that axis.
      microbatch_size: As for `micro_vmap`.
      accumulator: As for `microbatch`, for what `transform_fn` returns.
      transform_fn: What is accumulated, as a function of the gradient of one row.
      metrics_fn: What is returned for each row, as a function of its gradient.
      num_real_microbatches: As for `micro_vmap`.

    Returns:
      A function with the parameters of `fun` that returns the accumulated gradients, and for all
      rows the values, metrics and auxiliary values, as a tuple of ``(values, metrics, aux)``.

    Raises:
      ValueError: If sizes, axes or accumulators do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.microbatching import micro_grad
      >>> def loss(w, x):
      ...     return jnp.mean(w * x)
      >>> gradients = micro_grad(
      ...     loss, transform_fn=lambda g: (g, g**2), microbatch_size=2, metrics_fn=abs
      ... )
      >>> (first, second), aux = gradients(3.0, jnp.arange(4.0))
      >>> first.item(), second.item(), aux.metrics
      (6.0, 14.0, Array([0., 1., 2., 3.], dtype=float32))
    """
    owner = "micro_grad"
    numbers = tuple(batch_argnums) if isinstance(batch_argnums, Sequence) else (batch_argnums,)
    value_and_grad = jax.value_and_grad(fun, argnums, has_aux=has_aux)

    def gradients(*args: Any, **kwargs: Any) -> tuple[Any, Aux]:
        places = {place_of(owner, "batch_argnums", number, args) for number in numbers}

        def of_row(*args: Any, **kwargs: Any) -> tuple[Any, Aux]:
            rows = [_as_batch(x) if i in places else x for i, x in enumerate(args)]
            value, gradient = value_and_grad(*(rows if keep_batch_dim else args), **kwargs)
            value, aux = value if has_aux else (value, None)
            return transform_fn(gradient), Aux(value, metrics_fn(gradient), aux)

        axes = [0 if i in places else None for i in range(len(args))]
        mapped = _mapped(
            owner,
            of_row,
            axes,
            microbatch_size,
            jax.vmap,
            (accumulator, AccumulationType.CONCAT),
            num_real_microbatches,
        )
        return mapped(*args, **kwargs)  # type: ignore[no-any-return]

    if microbatch_size is not None:
        check_size(owner, microbatch_size)
    return gradients


def _as_batch(row: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.expand_dims(x, 0), row)
