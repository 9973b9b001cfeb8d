"""Leaves that do not move: `freeze`, `selective_transform`."""

from collections.abc import Callable
from typing import Any

import jax

from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    Params,
    PyTree,
    example,
    exempt,
    masked,
    partition,
    scale_by_learning_rate,
    set_to_zero,
    structure,
    transformation,
)

_STAYS = "parameters that do not move do not descend"


@exempt("decreases_convex_loss", reason=_STAYS)
@exempt("decreases_nonconvex_loss", reason=_STAYS)
@exempt("decreases_stochastic_loss", reason=_STAYS)
@exempt("integer_leaves_are_refused", reason="zero is an update of any dtype")
@example(r".*")
@transformation
def freeze(mask: MaskOrFn) -> GradientTransformationExtraArgs:
    """Sets the updates of some leaves to zero, so that they stay as they are.

    Costs nothing itself; but what comes before it in a chain keeps its state for frozen leaves, and
    counts them in its norms. `selective_transform` does not.

    Args:
      mask: Where leaves are frozen: a tree of bools, a prefix of the parameters'; a function that
        makes one of them; or a regular expression for paths, as in `masked`.

    Returns:
      A transformation whose state is a `MaskedState` without arrays.

    Raises:
      TreeMismatchError: By ``init`` and ``update``, if the mask is no prefix of the tree.

    Example:
      >>> from grad_core import chain, scale
      >>> from grad_wrappers import freeze
      >>> params = {"encoder": 1.0, "head": 1.0}
      >>> tx = chain(scale(-0.5), freeze({"encoder": True, "head": False}))
      >>> updates, state = tx.update(params, tx.init(params))
      >>> float(updates["encoder"]), float(updates["head"])
      (0.0, -0.5)
    """
    return masked(set_to_zero(), mask)


@example(scale_by_learning_rate(0.1), freeze_mask=False)
@transformation
def selective_transform(
    optimizer: GradientTransformation, *, freeze_mask: MaskOrFn
) -> GradientTransformationExtraArgs:
    """Optimizes some leaves and freezes the others, which it costs nothing to keep.

    For frozen leaves the optimizer has no state, and its norms leave them out.

    Args:
      optimizer: The transformation for leaves that are not frozen.
      freeze_mask: Where leaves are frozen: a tree of bools, a prefix of the parameters'; a function
        that makes one of them; or a regular expression for paths, as in `masked`.

    Returns:
      A transformation whose state is a `PartitionState` with the labels ``train`` and ``freeze``.

    Raises:
      TreeMismatchError: By ``init`` and ``update``, if the mask is no prefix of the tree.

    Example:
      >>> from grad_core import trace
      >>> from grad_wrappers import selective_transform
      >>> params = {"encoder": 1.0, "head": 1.0}
      >>> tx = selective_transform(trace(0.9), freeze_mask="encoder")
      >>> tx.init(params).inner_states["train"].inner_state.trace
      {'encoder': MaskedNode(), 'head': Array(0., dtype=float32)}
    """
    is_computed = isinstance(freeze_mask, str) or structure.is_function(freeze_mask)
    mask: Any = freeze_mask
    labels: Any = _labelling(mask) if is_computed else _labels(mask)
    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)


def _labelling(mask: str | Callable[[Params], PyTree]) -> Callable[[Params], PyTree]:
    def labels(tree: Params) -> PyTree:
        return _labels(structure.matches(mask, tree) if isinstance(mask, str) else mask(tree))

    return labels


def _labels(mask: PyTree) -> PyTree:
    return jax.tree.map(lambda frozen: "freeze" if frozen else "train", mask)
