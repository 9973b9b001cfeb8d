r"""A learning rate that falls when a metric no longer does.

For the mean :math:`a` of the last n values of the metric, with the best mean so far :math:`b`:

.. math::

    \text{improved} \iff a < b - (\tau_r |b| + \tau_a)

After `patience` means in a row without improvement the scale of the updates, 1 at first, is
multiplied by a factor, :math:`s \leftarrow \max(\kappa s, s_\min)`. For as many means as `cooldown`
says nothing is counted then.

It costs six numbers, whatever the size of the parameters. Put it last in a chain, or wherever
updates are steps: Adam, for one, is blind to the scale of what it gets.

References:
  Torch's ``ReduceLROnPlateau``; there `patience` is one less.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import Fraction, LeafRule, NonNegative, Numeric, needs_extra_args, rule


class ReduceLROnPlateauState(NamedTuple):
    """Where the metric stands; all of shape ().

    Attributes:
      scale: What updates are multiplied by.
      best_value: The least mean so far.
      plateau_count: The number of means since, but for those of the cooldown.
      cooldown_count: The number of means left of the cooldown.
      count: The number of values in the mean to come.
      avg_value: The mean of these.
    """

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuple.count
    avg_value: jax.Array


@needs_extra_args(value=2.0)
@rule
def reduce_on_plateau(
    factor: Fraction = 0.1,
    patience: int = 10,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: NonNegative = 0.0,
) -> LeafRule:
    """Multiplies updates by a scale, and that by `factor` when ``value`` no longer falls: u = s g.

    ``update`` needs the extra argument ``value``, the metric: a number of any sign, or an array of
    shape (). For one that should rise, pass its negative.

    Args:
      factor: What the scale is multiplied by, in [0, 1].
      patience: The number of means in a row without improvement that reduce the scale.
      rtol: By which part of its modulus the best mean must be undercut, in [0, 1].
      atol: And by how much beside.
      cooldown: For how many means after a reduction no plateau is counted.
      accumulation_size: Of how many values to take the mean; more than one for the loss of small
        batches.
      min_scale: The least scale that a reduction leaves.

    Returns:
      A transformation whose state is a `ReduceLROnPlateauState`.

    Raises:
      ValueError: If `patience` or `accumulation_size` is not positive, or `cooldown` is negative.
      MissingArgumentError: By ``update``, without ``value``.

    Example:
      >>> from grad_contrib import reduce_on_plateau
      >>> from grad_core import chain
      >>> from grad_optimizers import sgd
      >>> optimizer = chain(sgd(0.1), reduce_on_plateau(factor=0.5, patience=2))
      >>> state = optimizer.init(0.0)
      >>> for reward in [5.0, 7.0, 7.0, 7.0]:
      ...     updates, state = optimizer.update(1.0, state, value=-reward)
      >>> updates
      Array(-0.05, dtype=float32)
    """
    least = {"patience": (patience, 1), "cooldown": (cooldown, 0)}
    for name, (value, low) in {**least, "accumulation_size": (accumulation_size, 1)}.items():
        if value < low:
            raise ValueError(f"reduce_on_plateau: {name} must be at least {low}; got {value}.")

    def once(
        value: Numeric,
        scale: jax.Array,
        best_value: jax.Array,
        plateau_count: jax.Array,
        cooldown_count: jax.Array,
        last_count: jax.Array,
        avg_value: jax.Array,
    ) -> dict[str, Any]:
        count = last_count + 1
        mean = avg_value + (value - avg_value) / count
        is_due = count >= accumulation_size
        margin = rtol * jnp.abs(jnp.where(jnp.isfinite(best_value), best_value, 0)) + atol
        has_improved = mean < best_value - margin
        is_cooling = cooldown_count > 0
        waited = jnp.where(has_improved | is_cooling, 0, plateau_count + 1)
        reduces = waited >= patience
        before = ReduceLROnPlateauState(
            scale, best_value, plateau_count, cooldown_count, count, mean
        )
        after = ReduceLROnPlateauState(
            scale=jnp.where(reduces, jnp.maximum(factor * scale, min_scale), scale),
            best_value=jnp.where(has_improved, mean, best_value),
            plateau_count=jnp.where(reduces, 0, waited),
            cooldown_count=jnp.where(reduces, cooldown, cooldown_count - is_cooling),
            count=jnp.zeros_like(count),
            avg_value=jnp.zeros_like(mean),
        )
        new = jax.tree.map(lambda x, y: jnp.where(is_due, x, y), after, before)
        return dict(new._asdict())

    number: Any = jnp.result_type(float).type
    return LeafRule(
        lambda g, scale: scale * g,
        ReduceLROnPlateauState,
        once=once,
        scale=number(1),
        best_value=number(np.inf),
        plateau_count=np.int32(0),
        cooldown_count=np.int32(0),
        count=np.int32(0),
        avg_value=number(0),
    )
