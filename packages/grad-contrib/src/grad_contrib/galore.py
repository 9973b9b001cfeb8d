r"""GaLore: an optimizer that sees gradients of matrices in a subspace of low rank.

Of the gradient :math:`G` of a matrix, of shape (m, n), a base optimizer is shown r rows, or r
columns, and what it makes of them is brought back. If the rows are projected, as with the default
``side`` where :math:`m \ge n`:

.. math::

    P &= \text{the first } r \text{ left singular vectors of } G,
        \text{ at every } T\text{-th update} \\
    R &= P^* G \\
    U &= \alpha P \, \mathrm{base}(R)

and :math:`R = G P`, :math:`U = \alpha \, \mathrm{base}(R) P^*` with right singular vectors where
the columns are. What is no matrix the base optimizer updates as it is, without :math:`\alpha`.

State, beside that of what is no matrix: the projector, :math:`r \max(m, n)` numbers, and of the
base optimizer :math:`r \min(m, n)` for each that it keeps for a parameter, two for Adam. The paper
projects the shorter side, for :math:`r \min(m, n) + 2 r \max(m, n)`, which loses less of later
gradients; that is ``side="shorter"``. Where r exceeds a side, it is that side.

Singular vectors have free signs. So that a new one does not turn over the moments of the one it
replaces, it gets the sign with which it points the same way. Where a projector is due, but the
gradient is zero or not finite, the last one stays; the first comes with the first gradient that is
not zero.

Pitfalls. Moments are not turned with the projector otherwise. From one singular value decomposition
to the next, gradients outside of the subspace are lost. Derivatives through updates take the
projector for constant. For a TPU, large decompositions take minutes to compile.

References:
  Zhao et al., GaLore: memory-efficient LLM training by gradient low-rank projection, 2024
  (arXiv 2403.03507), algorithms 1 and 2.
"""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_contrib._matrices import MuonDimensionNumbers, numbers_of_leaves
from grad_contrib._subspaces import Matrix, Side, Subspace
from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskedNode,
    MaskOrFn,
    OptState,
    Params,
    PyTree,
    Real,
    TreeRule,
    Updates,
    add_decayed_weights,
    chain,
    example,
    exempt,
    rule,
    safe_increment,
    scale_by_learning_rate,
    transformation,
)
from grad_optimizers import scale_by_adam

_SVD = "a singular value decomposition keeps many copies, and takes minutes to compile for a TPU"


class GaLoreDimensionNumbers(MuonDimensionNumbers):
    """The axes of an array that are those of a matrix, all of them.

    Attributes:
      reduction_axis: The axis or axes of its rows.
      output_axis: The axis or axes of its columns.
    """


Numbers: TypeAlias = GaLoreDimensionNumbers | PyTree | Callable[[Params], PyTree]


class GaLoreState(NamedTuple):
    """The number of updates, the state of the base optimizer, and the projectors.

    Attributes:
      count: The number of updates.
      base_optimizer_state: The state of the base optimizer.
      projector: For each matrix its singular vectors, as columns; for what is none, an array of
        shape (0, 0).
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    base_optimizer_state: OptState
    projector: PyTree


@exempt("compiles_for_tpu", reason=_SVD, run=False)
@exempt("needs_little_memory_on_tpu", reason=_SVD, run=False)
@transformation
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Real = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: Numbers | None = None,
    *,
    side: Side = "longer",
) -> GradientTransformation:
    r"""Lets an optimizer see matrices in a subspace of low rank; see the module.

    Args:
      rank: The dimension r of the subspace.
      update_proj_gap: The number T of updates from one singular value decomposition to the next.
      scale: The factor :math:`\alpha` of updates of matrices; the paper's default is 0.25.
      base_optimizer: What makes updates in the subspace, of gradients alone: decay belongs after
        it. Adam's direction with None.
      weight_dimension_numbers: Which arrays are matrices: None for those of two axes; a tree of
        `GaLoreDimensionNumbers`, or None, for each leaf, or a prefix of it; a function of a tree
        like the parameters that returns one; or one for all leaves with two axes or more.
      side: Which side of a matrix is projected.

    Returns:
      A transformation whose state is a `GaLoreState`.

    Raises:
      ValueError: If `rank` or `update_proj_gap` is not positive, or if dimension numbers do not
        tell all axes of their array, each once.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_galore
      >>> tx = scale_by_galore(rank=2)
      >>> state = tx.init({"w": jnp.ones((6, 4))})
      >>> state.projector["w"].shape, state.base_optimizer_state.mu["w"].shape
      ((6, 2), (2, 4))

    Reference:
      Zhao et al., GaLore, 2024, algorithm 2.
    """
    for name, value in (("rank", rank), ("update_proj_gap", update_proj_gap)):
        if value < 1:
            raise ValueError(f"scale_by_galore: {name} must be at least 1; got {value}.")
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    return _in_subspaces(rank, update_proj_gap, scale, base, weight_dimension_numbers, side)


@example(0.05)
@exempt("compiles_for_tpu", reason=_SVD, run=False)
@exempt("needs_little_memory_on_tpu", reason=_SVD, run=False)
@transformation
def galore(
    learning_rate: LearningRate,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Real = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    weight_dimension_numbers: Numbers | None = None,
    *,
    side: Side = "longer",
) -> GradientTransformationExtraArgs:
    """AdamW in subspaces of low rank; see the module.

    Args:
      learning_rate: A number, an array of shape () or a schedule.
      rank: As for `scale_by_galore`, and so are the next three.
      update_proj_gap: The number of updates between singular value decompositions.
      scale: The factor of updates of matrices.
      base_optimizer: What makes directions in the subspace, such as `scale_by_lion`, without a
        learning rate of its own; Adam's with None.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      weight_dimension_numbers: As for `scale_by_galore`, and so is `side`.
      side: Which side of a matrix is projected.

    Returns:
      A transformation that needs the parameters.

    Raises:
      ValueError: If `rank` or `update_proj_gap` is not positive, or if dimension numbers do not
        tell all axes of their array, each once.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import galore
      >>> optimizer = galore(0.1, rank=1)
      >>> params = jnp.ones((2, 2))
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 4.0]])
      >>> optimizer.update(grads, optimizer.init(params), params)[0].round(3) + 0
      Array([[ 0. ,  0. ],
             [ 0. , -0.1]], dtype=float32)

    Reference:
      Zhao et al., GaLore, 2024, algorithm 1.
    """
    return chain(
        scale_by_galore(
            rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, side=side
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@rule
def _in_subspaces(
    rank: int,
    update_proj_gap: int,
    scale: Real,
    base_optimizer: GradientTransformation,
    weight_dimension_numbers: Numbers | None,
    side: Side,
) -> TreeRule:
    projection: Any = _projection(rank, side)

    def begin(tree: PyTree) -> tuple[list[Any], list[Matrix | None], Any]:
        """The leaves, how they are matrices, and the structure of the tree."""
        leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_absent)
        numbers = _numbers(weight_dimension_numbers, tree)
        matrices = [
            number and Matrix(x.shape, number, rank, side)
            for x, number in zip(leaves, numbers, strict=True)
        ]
        return leaves, matrices, treedef

    def init(params: Params) -> GaLoreState:
        leaves, matrices, treedef = begin(params)
        rows = list(zip(leaves, matrices, strict=True))
        state = projection.init(treedef.unflatten([matrix and matrix.of(p) for p, matrix in rows]))
        seen = [matrix.first_seen(p) if matrix else p for p, matrix in rows]
        return GaLoreState(
            count=jnp.zeros([], jnp.int32),
            base_optimizer_state=base_optimizer.init(treedef.unflatten(seen)),
            projector=treedef.unflatten(
                map(_or_nothing, treedef.flatten_up_to(state.projector), leaves)
            ),
        )

    def update(
        updates: Updates, state: GaLoreState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, GaLoreState]:
        del params  # they are not in the subspace
        leaves, matrices, treedef = begin(updates)
        _, new = projection.update(
            treedef.unflatten(
                [matrix and matrix.of(g) for g, matrix in zip(leaves, matrices, strict=True)]
            ),
            _ProjectionState(state.projector),
            is_due=state.count % update_proj_gap == 0,
        )
        rows = list(zip(leaves, matrices, treedef.flatten_up_to(new.projector), strict=True))
        seen = [matrix.project(g, projector) if matrix else g for g, matrix, projector in rows]
        moved, base_state = _without_params(
            base_optimizer, treedef.unflatten(seen), state.base_optimizer_state, extra_args
        )
        made = [
            matrix.lift(u, projector, scale, g) if matrix else u
            for (g, matrix, projector), u in zip(rows, treedef.flatten_up_to(moved), strict=True)
        ]
        count = safe_increment(state.count)
        return treedef.unflatten(made), GaLoreState(count, base_state, new.projector)

    compiled = not callable(weight_dimension_numbers)
    inner_state = attrgetter("base_optimizer_state")
    return TreeRule(update, init, compiled=compiled, inner_state=inner_state)


class _ProjectionState(NamedTuple):
    projector: PyTree


@rule
def _projection(rank: int, side: Side) -> LeafRule:
    """Keeps the projectors of matrices, and leaves updates as they are."""

    def once(is_due: jax.Array) -> dict[str, Any]:
        return {"is_due": is_due}

    def step(g: jax.Array, projector: jax.Array, is_due: jax.Array) -> tuple[jax.Array, jax.Array]:
        space, x = Subspace(g.shape, rank, side), jax.lax.stop_gradient(g)
        is_first = ~jnp.any(projector)  # until a gradient is not zero
        is_due = jax.lax.cond(is_first, lambda: jnp.any(x), lambda: is_due)
        return g, jax.lax.cond(is_due, lambda: space.projector(x, projector), lambda: projector)

    def first(p: Any) -> jax.Array:
        return Subspace(p.shape, rank, side).first_projector(p)

    return LeafRule(step, _ProjectionState, once=once, projector=first)


def _without_params(
    base: GradientTransformation, updates: Updates, state: OptState, extra_args: dict[str, Any]
) -> tuple[Updates, OptState]:
    """An update of the base optimizer, with its state in the dtypes that it had."""

    def as_before(new: Any, old: Any) -> Any:
        dtype = jnp.result_type(old)
        return new if jnp.result_type(new) == dtype else new.astype(dtype)

    try:
        updates, new_state = base.update(updates, state, **extra_args)
    except ValueError as error:
        error.add_note("scale_by_galore passes its base optimizer no parameters: decay follows it.")
        raise
    return updates, jax.tree.map(as_before, new_state, state)


def _numbers(numbers: Numbers | None, tree: PyTree) -> list[MuonDimensionNumbers | None]:
    """Those of each leaf; None if it is no matrix, is absent or has no elements."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_absent)[0]
    leaves = [x for _, x in paths if not _is_absent(x)]
    known: list[MuonDimensionNumbers | None]
    if numbers is None or isinstance(numbers, GaLoreDimensionNumbers):
        one, most = numbers or GaLoreDimensionNumbers(), 2 if numbers is None else math.inf
        known = [one if 2 <= jnp.ndim(x) <= most else None for x in leaves]
    else:
        given = numbers(tree) if callable(numbers) else numbers
        known = [None] * len(leaves)
        if given is not None:
            known = numbers_of_leaves("scale_by_galore", given, tree, check=False)
    found = iter(known)
    return [None if _is_absent(x) else _checked(path, x, next(found)) for path, x in paths]


def _checked(path: Any, x: Any, number: Any) -> MuonDimensionNumbers | None:
    shape = jnp.shape(x)
    if number is None or not math.prod(shape) or x.dtype == jax.dtypes.float0:
        return None
    if not isinstance(number, MuonDimensionNumbers):
        raise TypeError(
            f"scale_by_galore: the dimension numbers of {jax.tree_util.keystr(path)} must be "
            f"GaLoreDimensionNumbers(reduction_axis, output_axis) or None; got {number!r}."
        )
    axes = np.concatenate([*map(np.atleast_1d, number)]).astype(int)
    every = [*range(len(shape))]
    if len(shape) < 2 or sorted(np.where(axes < 0, axes + len(shape), axes)) != every:
        raise ValueError(
            f"scale_by_galore: {jax.tree_util.keystr(path)} has shape {shape}, of which {number} "
            "should tell all axes, two at least: each must be one of rows or of columns, once."
        )
    return number


def _is_absent(x: object) -> bool:
    return x is None or isinstance(x, MaskedNode)


def _or_nothing(projector: Any, p: Any) -> Any:
    """The projector; for what is no matrix, an array without elements; nothing for nothing."""
    if _is_absent(p):
        return p
    return jnp.zeros((0, 0), jnp.result_type(p)) if projector is None else projector
