"""What the curvature tools share: trees as vectors, checks of arguments, sums taken in chunks."""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from grad_core import LeafTypeError, PyTree, TreeMismatchError, structure, tree
from grad_core.errors import naming
from grad_core.numerics import widen

Loss: TypeAlias = Callable[..., jax.Array]
"""``loss(params, *batch)``: a number. It must be the mean over the examples where that is said."""

Operator: TypeAlias = Callable[[PyTree], PyTree]
"""A linear map from trees like the parameters to such trees: a matrix that is never formed."""

Distribution: TypeAlias = Literal["rademacher", "normal"]
"""Of the entries of random vectors: signs, or standard normal numbers."""

matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Space:
    """The vectors that trees like one of parameters stand for, in at least float32."""

    def __init__(self, function: str, name: str, like: PyTree) -> None:
        check_real(function, name, like)
        flat, self._unravel = ravel_pytree(like)
        self._narrow = flat.dtype
        self.dtype = jnp.promote_types(flat.dtype, jnp.float32)
        self.size: int = flat.size
        self._like, self._names = like, (function, name)

    def tree(self, vector: jax.Array) -> Any:
        """The tree, in the dtypes of the parameters."""
        return self._unravel(vector.astype(self._narrow))

    def vector(self, like: PyTree) -> jax.Array:
        """The vector that a tree stands for."""
        return ravel_pytree(like)[0].astype(self.dtype)

    def on_vectors(self, operator: Operator) -> Callable[[jax.Array], jax.Array]:
        """The operator as a map of vectors, once it is known to keep trees as they are."""
        function, name = self._names
        image = jax.eval_shape(operator, self._like)
        check_alike(function, (name, f"operator({name})"), self._like, image)
        return lambda vector: self.vector(operator(self.tree(vector)))

    def draw(self, key: jax.Array, distribution: Distribution) -> jax.Array:
        """A random vector whose entries are independent, of mean 0 and variance 1."""
        if distribution not in get_args(Distribution):
            raise ValueError(
                f"{self._names[0]}: distribution must be 'rademacher' or 'normal'; "
                f"got {distribution!r}."
            )
        sampler = jax.random.normal if distribution == "normal" else jax.random.rademacher
        return sampler(key, (self.size,), self.dtype)


def signs(key: jax.Array, space: Space, number: int) -> jax.Array:
    """Columns of random signs, of shape (P, number)."""
    return jax.random.rademacher(key, (space.size, number), space.dtype)


def check_real(function: str, name: str, like: PyTree) -> None:
    """Raises unless all leaves are real floating-point arrays, with an element among them."""
    with naming(function):
        structure.check_inexact(like, name)
        for path, leaf in jax.tree_util.tree_flatten_with_path(like)[0]:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise LeafTypeError(
                    f"{structure.where(name, path)} is {jnp.result_type(leaf)}; curvature is that "
                    "of real parameters. Give real and imaginary parts as two leaves."
                )
    if not tree.size(like):
        raise ValueError(f"{function}: {name} must have at least one element; got none.")


def check_alike(function: str, names: tuple[str, str], reference: PyTree, other: PyTree) -> None:
    """Raises, naming the path, unless two trees have the same structure and shapes."""
    with naming(function):
        leaves, treedef = structure.flatten(reference)
        beside = structure.flatten_like(reference, treedef, other, names)
        for path, x, y in zip(structure.leaf_paths(reference), leaves, beside, strict=True):
            if not structure.is_absent(x) and jnp.shape(x) != _shape(y):
                raise TreeMismatchError(
                    f"{structure.where(names[0], path)} has shape {jnp.shape(x)}, but "
                    f"{structure.where(names[1], path)} has {_shape(y)}; they must be equal."
                )


def _shape(leaf: Any) -> Any:
    return getattr(leaf, "shape", () if structure.is_array(leaf) else "none")


def check_scalar(function: str, name: str, fn: Callable[..., Any], *args: Any) -> None:
    """Raises unless ``fn(*args)`` is one real number."""
    value = jax.eval_shape(fn, *args)
    is_real = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    if not is_real or value.shape != ():
        raise TypeError(
            f"{function}: {name} must return one real number, of shape (); got {value}. "
            "Take the mean over the batch."
        )


def check_at_least(function: str, least: int, **numbers: int) -> None:
    """Raises unless the Python integers, by argument name, are that large."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{function}: {name} must be an integer, at least {least}; got {value!r}."
            )


def examples(function: str, batch: Any) -> tuple[int, Any]:
    """How many examples a tree of arrays holds, and the tree of batches of one: (n, 1, ...)."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else None for shape in shapes}
    number = lengths.pop() if len(lengths) == 1 else None
    if not number:
        raise ValueError(
            f"{function}: the first axis of every array of the batch counts the examples, at least "
            f"one and everywhere as many; got shapes {shapes}. Bind what is no batch, as in "
            "lambda params, x: loss(params, x, other)."
        )
    return number, jax.tree.map(lambda x: jnp.asarray(x)[:, None], batch)


def mean_over(fn: Callable[[Any], Any], xs: Any, chunk_size: int) -> Any:
    """The mean of ``fn(x)`` over the first axis of xs, in float32 at least, chunk by chunk."""
    number = len(jax.tree.leaves(xs)[0])
    whole = number - number % min(chunk_size, number)

    def add(total: Any, chunk: Any) -> tuple[Any, None]:
        values = jax.vmap(fn)(chunk)
        return jax.tree.map(lambda t, y: t + jnp.sum(widen(y), axis=0), total, values), None

    one = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], xs))
    zero = jax.tree.map(lambda y: jnp.zeros(y.shape, jnp.promote_types(y.dtype, jnp.float32)), one)
    chunks = jax.tree.map(
        lambda x: x[:whole].reshape(-1, min(chunk_size, number), *x.shape[1:]), xs
    )
    total, _ = jax.lax.scan(add, zero, chunks)
    if whole < number:
        total, _ = add(total, jax.tree.map(lambda x: x[whole:], xs))
    return jax.tree.map(lambda t: t / number, total)
