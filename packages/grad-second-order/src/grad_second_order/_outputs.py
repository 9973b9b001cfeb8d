"""Between parameters and a model's outputs: J v, J^T u, and matrices J^T M J of that form."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import Params, PyTree, tree
from grad_core.numerics import widen
from grad_second_order._vectors import Operator, check_alike, check_real, mean_over

Model: TypeAlias = Callable[[Any, Any], Any]
"""``model(params, inputs)``: outputs, whose first axis counts the examples, as that of inputs."""


class Linearized(NamedTuple):
    """Outputs, and their Jacobian J as two functions: v -> J v, and u -> J^T u."""

    outputs: Any
    push: Callable[[Any], Any]
    pull: Callable[[Any], Any]


def linearized(function: str, model: Callable[[Any], Any], params: Params) -> Linearized:
    """A function of the parameters, linearized there."""
    check_real(function, "params", params)
    outputs, push = jax.linearize(model, params)
    check_real(function, "outputs", outputs)
    transposed = jax.linear_transpose(push, params)
    return Linearized(outputs, push, lambda u: transposed(tree.cast_like(u, outputs))[0])


def number_of_examples(function: str, outputs: jax.Array, inputs: PyTree) -> int:
    """How many examples the first axis of the outputs counts, as all inputs must."""
    lengths = {x.shape[:1] for x in map(jnp.asarray, jax.tree.leaves((outputs, inputs)))}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"{function}: the first axis of the outputs and of all inputs counts the examples, at "
            f"least one; got outputs of shape {jnp.shape(outputs)} and inputs of shapes "
            f"{[jnp.shape(x) for x in jax.tree.leaves(inputs)]}."
        )
    return int(lengths.pop()[0])


def sandwich(
    function: str, params: Params, at: Linearized, middle: Callable[[Any], Any]
) -> Operator:
    """The operator v -> J^T M J v, with M u = middle(u)."""

    def multiply(v: PyTree) -> PyTree:
        check_alike(function, ("params", "v"), params, v)
        return at.pull(middle(at.push(v)))

    return multiply


def diagonal_by_output(
    model: Model,
    params: Params,
    rows: Any,
    middle: Callable[[jax.Array, Any, jax.Array], jax.Array],
    chunk_size: int,
) -> Any:
    """The diagonal of the mean over examples n of J_n^T M_n J_n, in float32 at least.

    With e_c for one output out of C, it is the sum over c of (J_n^T e_c) * (J_n^T M_n e_c).

    Args:
      model: The model.
      params: The parameters.
      rows: Pairs (inputs, other arguments) as batches of one, of shapes (n, 1, ...).
      middle: ``middle(outputs, row, u)``, the product M_n u.
      chunk_size: How many pairs (n, c) to compute at once.
    """
    row = jax.tree.map(lambda x: x[0], rows)
    size = jax.eval_shape(lambda p: model(p, row[0]), params).size

    def term(pair: tuple[jax.Array, jax.Array]) -> Any:
        row = jax.tree.map(lambda x: x[pair[0]], rows)
        outputs, pull = jax.vjp(lambda p: model(p, row[0]), params)
        e = jnp.zeros(size, outputs.dtype).at[pair[1]].set(1).reshape(outputs.shape)
        return products(pull(e)[0], pull(middle(outputs, row, e).astype(e.dtype))[0])

    number = len(jax.tree.leaves(rows)[0])
    pairs = jnp.divmod(jnp.arange(number * size), size)
    return tree.scale(size, mean_over(term, pairs, chunk_size))


def products(x: Any, y: Any) -> Any:
    """The elementwise products of two trees, in float32 at least."""
    return jax.tree.map(lambda a, b: widen(a) * widen(b), x, y)
