"""Adding to updates: decayed weights, noise."""

from typing import Any, NamedTuple

import jax

from grad_core.conformance import example
from grad_core.hyperparameters import LearningRate
from grad_core.masking import MaskOrFn, masked
from grad_core.rules import LeafRule
from grad_core.transformations import rule, transformation
from grad_core.types import EmptyState, GradientTransformation

AddDecayedWeightsState = EmptyState


class WeightDecaySchedule(NamedTuple):
    """The number of updates so far, for a scheduled weight decay."""

    count: jax.Array


@transformation
def add_decayed_weights(
    weight_decay: LearningRate = 0.0, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Adds a multiple of the parameters: u = g + weight_decay * p.

    After a preconditioner and before the learning rate, this is decoupled weight decay; before the
    preconditioner, it is L2 regularisation.

    Args:
      weight_decay: The multiple; a number, an array of shape (), or a schedule.
      mask: Which leaves to decay, as in `masked`; all with None. Biases and norms are often left out.

    Returns:
      A transformation without state, or for a schedule one that counts updates.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_core import add_decayed_weights
      >>> tx = add_decayed_weights(0.1)
      >>> tx.update({"w": 1.0}, tx.init({"w": 2.0}), {"w": 2.0})[0]
      {'w': Array(1.2, dtype=float32)}

    Reference:
      Loshchilov and Hutter, Decoupled weight decay regularization, 2017.
    """
    decay = add_weights(weight_decay)
    return decay if mask is None else masked(decay, mask)


@rule
def add_weights(weight_decay: LearningRate) -> LeafRule:
    """`add_decayed_weights` on all leaves."""
    if not callable(weight_decay):
        return LeafRule(lambda g, p: g + weight_decay * p)

    def once(count: jax.Array) -> dict[str, Any]:
        return {"decay": weight_decay(count)}

    return LeafRule(lambda g, p, decay: g + decay * p, WeightDecaySchedule, once=once)
