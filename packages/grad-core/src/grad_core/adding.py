"""Adding to updates: decayed weights, noise."""

import warnings
from collections.abc import Hashable
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import structure
from grad_core.conformance import example, exempt
from grad_core.errors import shown
from grad_core.hyperparameters import LearningRate, NonNegative, Range, Real
from grad_core.masking import MaskOrFn, masked
from grad_core.numerics import real_dtype, safe_increment, safe_sqrt, widen
from grad_core.rules import LeafRule, TreeRule
from grad_core.transformations import rule, transformation
from grad_core.tree import random_like
from grad_core.types import EmptyState, GradientTransformation, Params, Updates

AddDecayedWeightsState = AdditiveWeightDecayState = EmptyState


class WeightDecaySchedule(NamedTuple):
    """The number of updates so far, for a scheduled weight decay."""

    count: jax.Array  # type: ignore[assignment]  # the field hides tuple.count


class AddNoiseState(NamedTuple):
    """The number of updates so far, and the random key from which the next noise is drawn."""

    count: jax.Array  # type: ignore[assignment]  # the field hides tuple.count
    rng_key: jax.Array


RandomKey: TypeAlias = jax.Array | np.ndarray[Any, np.dtype[Any]] | np.integer[Any] | int
_Seed: TypeAlias = Annotated[RandomKey, Range()]


@transformation
def add_decayed_weights(
    weight_decay: LearningRate = 0.0, mask: MaskOrFn | None = None
) -> GradientTransformation:
    """Adds a multiple of the parameters: u = g + weight_decay * p.

    After a preconditioner and before the learning rate, this is decoupled weight decay; before the
    preconditioner, it is L2 regularisation.

    Args:
      weight_decay: The multiple; a number, an array of shape (), or a schedule.
      mask: Which leaves to decay, as in `masked`; all with None. Biases and norms are often left
        out.

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


additive_weight_decay = add_decayed_weights
"""The name of `add_decayed_weights` in the first releases."""


@rule
def add_weights(weight_decay: LearningRate) -> LeafRule:
    """`add_decayed_weights` on all leaves."""
    if not callable(weight_decay):
        return LeafRule(lambda g, p: g + weight_decay * p)

    def once(count: jax.Array) -> dict[str, Any]:
        return {"decay": weight_decay(count)}

    return LeafRule(lambda g, p, decay: g + decay * p, WeightDecaySchedule, once=once)


@exempt("agrees_with_float32", reason="in each dtype the generator gives other numbers")
@example(0.01, 0.55, key=0)
@transformation
def add_noise(
    eta: NonNegative,
    gamma: Real,
    key: RandomKey | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    """Adds Gaussian noise that fades: u_t = g_t + sqrt(eta / t^gamma) * n_t, with n_t ~ N(0, 1).

    t is 1 for the first update. Noise is drawn in the dtype of the update; for complex updates it
    is complex, with E |n_t|^2 = 1.

    Args:
      eta: The variance of the first noise; 0 adds none.
      gamma: The exponent of its decay.
      key: A random key, of either kind that JAX has, or an integer seed. With None the noise is
        that of the seed 0, and a warning says so.
      seed: The old name of `key`, deprecated.

    Returns:
      A transformation whose state is an `AddNoiseState`.

    Raises:
      ValueError: If both `key` and `seed` are given.
      TypeError: If `key` is neither a random key nor an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import add_noise
      >>> tx = add_noise(eta=1.0, gamma=0.55, key=0)
      >>> noise, state = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
      >>> print(f"{jnp.std(noise):.1f}")
      1.0

    Reference:
      Neelakantan et al., Adding gradient noise improves learning for very deep networks, 2015.
    """
    chosen = _chosen_key(key, seed)
    if _is_key(chosen):
        return _add_noise(eta, gamma, jax.random.key_data(chosen), jax.random.key_impl(chosen))
    return _add_noise(eta, gamma, chosen)


def _chosen_key(key: RandomKey | None, seed: int | None) -> RandomKey:
    if seed is not None:
        if key is not None:
            raise ValueError("add_noise: give key or seed, not both; seed is the old name of key.")
        _warn("add_noise: seed is deprecated; call it key.", DeprecationWarning)
        key = seed
    if key is None:
        _warn("add_noise: without a key, the noise is that of key=0, always.", UserWarning)
        key = 0
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return np.int64(key)  # as an operand, a Python int beyond 32 bits would overflow
    if not _is_key(key) and not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jnp.integer)):
        raise TypeError(f"add_noise: key must be a random key or an integer; got {shown(key)}.")
    return key


def _warn(message: str, category: type[Warning]) -> None:
    # From here up: _chosen_key, the body of add_noise, and what calls it, to the user's line.
    warnings.warn(message, category, stacklevel=7)


def _is_key(key: object) -> TypeGuard[jax.Array]:
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


@rule
def _add_noise(
    eta: NonNegative, gamma: Real, seed: _Seed, impl: Hashable | None = None
) -> TreeRule:
    """`add_noise` with a seed, or with the integers that make a key of the generator `impl`."""

    def init(params: Params) -> AddNoiseState:
        structure.check_inexact(params, "params")
        if impl is not None or jnp.ndim(seed):
            rng_key = jax.random.wrap_key_data(jnp.asarray(seed), impl=impl)
        else:
            rng_key = jax.random.key(seed)
        return AddNoiseState(count=jnp.zeros([], jnp.int32), rng_key=rng_key)

    def update(
        updates: Updates, state: AddNoiseState, params: Params | None
    ) -> tuple[Updates, AddNoiseState]:
        structure.check_inexact(updates, "updates")
        next_key, sample_key = jax.random.split(state.rng_key)
        count = safe_increment(state.count)
        deviation = safe_sqrt(jnp.asarray(eta / count**gamma))

        def add(g: jax.Array, n: jax.Array | None) -> jax.Array:
            if n is None:
                return g
            wide = widen(g)
            noise = widen(n) * deviation.astype(real_dtype(wide))
            return (wide + noise).astype(g.dtype)

        there = jax.tree.map(lambda g: None if structure.means_no_update(g) else g, updates)
        noisy = jax.tree.map(add, updates, random_like(sample_key, there))
        return noisy, AddNoiseState(count=count, rng_key=next_key)

    return TreeRule(update, init)
