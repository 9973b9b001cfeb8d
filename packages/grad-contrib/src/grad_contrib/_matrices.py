"""Which axes of an array are those of a matrix."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import PyTree


class MuonDimensionNumbers(NamedTuple):
    """The axes of an array that are those of a matrix; the others count matrices.

    Attributes:
      reduction_axis: The axis or axes of inputs, which a product with the matrix sums over.
      output_axis: The axis or axes of outputs.
    """

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


DimensionNumbers: TypeAlias = MuonDimensionNumbers | PyTree
Axes: TypeAlias = tuple[int, ...]


def numbers_of_leaves(
    name: str, numbers: Any, tree: PyTree, check: bool = True
) -> list[MuonDimensionNumbers | None]:
    """The numbers of each leaf, from those for all, from a prefix tree, or from a function.

    Args:
      name: Whose argument they are, for errors.
      numbers: The argument; None means that all leaves are matrices.
      tree: The tree they are of.
      check: Whether to require that each leaf is a matrix by its numbers.

    Returns:
      A list like the leaves of the tree.

    Raises:
      ValueError: If `numbers` is no prefix of the tree, or a leaf is no matrix.
    """
    given = numbers(tree) if callable(numbers) else numbers
    given = MuonDimensionNumbers() if given is None else given

    def below(number: Any, branch: PyTree) -> PyTree:
        return jax.tree.map(lambda _: _Held(number), branch)

    try:
        held = jax.tree.map(below, given, tree, is_leaf=_is_one)
    except ValueError as error:
        raise ValueError(
            f"{name}: the dimension numbers are no prefix of the tree: {error}"
        ) from error
    found: list[Any] = [each.number for each in jax.tree.leaves(held)]
    if check:
        paths = jax.tree_util.tree_flatten_with_path(tree)[0]
        for (path, x), number in zip(paths, found, strict=True):
            if number is not None:
                _check(f"{name}: {jax.tree_util.keystr(path)}", jnp.shape(x), number)
    return found


def matrices_alone(tree: PyTree) -> PyTree:
    """Dimension numbers for what has two axes, and None for the rest."""
    return jax.tree.map(lambda x: MuonDimensionNumbers() if jnp.ndim(x) == 2 else None, tree)


def is_users(numbers: Any) -> bool:
    """Whether the numbers are a function that users wrote, which may not run compiled."""
    return callable(numbers) and numbers is not matrices_alone


class _Held:
    """A number as a leaf: by itself it is a tuple, or None."""

    def __init__(self, number: MuonDimensionNumbers | None) -> None:
        self.number = number


def _is_one(x: object) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)


def _check(where: str, shape: tuple[int, ...], number: Any) -> None:
    if len(shape) < 2:
        raise ValueError(
            f"{where} has shape {shape}, which is no matrix: give it to another optimizer, by "
            "`partition`, `masked`, or None among the dimension numbers."
        )
    if number == MuonDimensionNumbers() and len(shape) != 2:
        raise ValueError(
            f"{where} has shape {shape}: say by MuonDimensionNumbers(reduction_axis, output_axis) "
            "which axes are those of a matrix."
        )
    axes = [*_tuple(number.reduction_axis), *_tuple(number.output_axis)]
    known = {axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)}
    if len(known) != len(axes):
        raise ValueError(f"{where} has shape {shape}, of which {number} are not distinct axes.")


def _tuple(axes: Sequence[int] | int) -> Axes:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def axes_of(ndim: int, number: MuonDimensionNumbers) -> tuple[Axes, Axes, Axes]:
    """The axes that count matrices, those of inputs, and those of outputs."""
    inputs, outputs = (tuple(a % ndim for a in _tuple(axes)) for axes in number)
    return tuple(a for a in range(ndim) if a not in inputs + outputs), inputs, outputs


def shape_of_matrix(x: Any, number: MuonDimensionNumbers) -> tuple[int, int]:
    """The numbers of inputs and of outputs."""
    shape = jnp.shape(x)
    _, inputs, outputs = axes_of(len(shape), number)
    return math.prod(shape[a] for a in inputs), math.prod(shape[a] for a in outputs)


class AsMatrices(NamedTuple):
    """An array as a stack of matrices that are no taller than wide, there and back.

    Attributes:
      axes: The axes of the array in the order that they have in the stack.
      moved: Its shape in that order.
      shape: The shape of the stack: a number of matrices, of rows, of columns.
    """

    axes: Axes
    moved: tuple[int, ...]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], number: MuonDimensionNumbers) -> "AsMatrices":
        """That of an array of this shape."""
        batch, inputs, outputs = axes_of(len(shape), number)
        count, rows, columns = (
            math.prod(shape[a] for a in axes) for axes in (batch, inputs, outputs)
        )
        rest = inputs + outputs if rows <= columns else outputs + inputs
        moved = tuple(shape[a] for a in batch + rest)
        return cls(batch + rest, moved, (count, min(rows, columns), max(rows, columns)))

    def there(self, x: jax.Array) -> jax.Array:
        """The stack."""
        return x.transpose(self.axes).reshape(self.shape)

    def back(self, stack: jax.Array) -> jax.Array:
        """The array of a stack."""
        order = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return stack.reshape(self.moved).transpose(order)
