"""Parameters in bfloat16 or float16 that do not lose small updates.

A bfloat16 number has 8 significant bits, so 1 - 0.001 is rounded back to 1: an optimizer may run
for a thousand steps, and the parameter stay where it was. Three wrappers prevent it. All compute
p + u in float32 and differ in what becomes of the digits that the parameter cannot hold:

    master_weights         are kept in the state, in a float32 copy of the parameter,
    kahan_summation        are kept in the state, in an array of the parameter's dtype,
    stochastic_rounding    decide with what probability to round up or down.

**Updates are float32.** `apply_updates` adds an update to a parameter in the wider dtype of the
two, and rounds once. So the wrappers return the float32 number t - p, where t is the number of the
parameter's dtype that p is to become: in bfloat16, t - p is not always a number. One limit remains:
if |t| < 2^-16 |p|, t - p may not be a float32 number either; then p ends within 2^-24 |p| of t, and
the next update mends it. Leave the updates in float32 until they are applied: a wrapper should be
the last transformation of a chain, and the outermost wrapper. Some wrappers around it, such as
`apply_if_finite` and `MultiSteps`, return updates in the gradients' dtype. Then a step is still
exact if p' is between p / 2 and 2 p, as nearly all are; a larger one is rounded by up to 2^-8 of
itself in bfloat16, 2^-11 in float16.

Parameters of 32 bits and more pass as if the wrapper were not there, at no cost in memory.
"""

from collections.abc import Hashable
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    OptState,
    Params,
    TreeRule,
    Updates,
    copy_of,
    example,
    exempt,
    rule,
    scale_by_learning_rate,
    transformation,
    zeros_like,
)
from grad_core.adding import RandomKey
from grad_core.errors import shown
from grad_core.hyperparameters import Range
from grad_core.rules import in_compute_precision
from grad_wrappers._leaves import is_low, map_rows, rounded

_Seed: TypeAlias = Annotated[RandomKey, Range()]


class MasterWeightsState(NamedTuple):
    """Float32 copies of low-precision parameters, and the inner state.

    `master` has a `MaskedNode` for each parameter of 32 bits or more.
    """

    master: Params
    inner_state: OptState


class KahanSummationState(NamedTuple):
    """What low-precision parameters could not hold so far, and the inner state.

    `compensation` has a `MaskedNode` for each parameter of 32 bits or more.
    """

    compensation: Params
    inner_state: OptState


class StochasticRoundingState(NamedTuple):
    """The random key from which the next rounding is drawn, and the inner state."""

    rng_key: jax.Array
    inner_state: OptState


_WIDE = "updates of low-precision parameters are float32"


@exempt("works_in_dtype[bfloat16]", reason=_WIDE)
@exempt("works_in_dtype[float16]", reason=_WIDE)
@exempt("state_is_a_carry", reason=_WIDE)
@example(scale_by_learning_rate(0.1))
@rule
def master_weights(inner: GradientTransformation) -> TreeRule:
    """Keeps float32 copies m of low-precision parameters: m' = m + u, and p' = m' rounded.

    The inner transformation sees the copies as its parameters, and gradients in float32; its own
    statistics are those of float32 parameters. The update is p' - p, in float32: after
    `apply_updates` the parameter is the rounded copy. A parameter that something else has moved,
    so that it is not its rounded copy, is copied anew. Wrappers that skip or accumulate belong
    inside: around this one, some round its largest steps, as the module's docstring tells.

    Costs 4 bytes a bfloat16 or float16 parameter, and what the inner transformation keeps more for
    float32 parameters than for those (Adam's first moment: 2 bytes; `mu_dtype` chooses).

    Args:
      inner: The transformation to wrap, such as ``adamw(1e-3)``; it makes the whole step.

    Returns:
      A transformation whose state is a `MasterWeightsState`. Its ``update`` needs the parameters.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import master_weights
      >>> params = jnp.ones((), jnp.bfloat16)
      >>> tx = master_weights(scale(-1e-3))
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
      ...     params = apply_updates(params, updates)
      >>> params, state.master.round(4)
      (Array(0.898438, dtype=bfloat16), Array(0.9, dtype=float32))

    Reference:
      Micikevicius et al., Mixed precision training, 2017, section 3.1.
    """

    def init(params: Params) -> MasterWeightsState:
        master = jax.tree.map(lambda p: _for_low(copy_of, p, jnp.float32), params)
        return MasterWeightsState(master, inner.init(_choose(master, params)))

    def update(
        updates: Updates, state: MasterWeightsState, params: Params, **extra_args: object
    ) -> tuple[Updates, MasterWeightsState]:
        wide, master = map_rows(
            _follow, updates, params, {"state.master": state.master}, where=is_low
        )
        steps, inner_state = inner.update(
            wide, state.inner_state, _choose(master, params), **extra_args
        )
        new, master = map_rows(_to_master, steps, params, {"state.master": master}, where=is_low)
        return new, MasterWeightsState(master, inner_state)

    return TreeRule(update, init, needs_params=True)


@exempt("works_in_dtype[bfloat16]", reason=_WIDE)
@exempt("works_in_dtype[float16]", reason=_WIDE)
@exempt("state_is_a_carry", reason=_WIDE)
@example(scale_by_learning_rate(0.1))
@rule
def kahan_summation(inner: GradientTransformation) -> TreeRule:
    """Adds to each update what rounding took from those before: p' + c' = p + c + u.

    Here p' is p + c + u rounded to the parameter's dtype, and c', also of that dtype, is the rest.
    So the pair holds nearly twice the parameter's digits. The inner transformation sees the
    parameters as they are, and gradients in float32. The update is p' - p, in float32.

    Costs 2 bytes a bfloat16 or float16 parameter.

    Args:
      inner: The transformation to wrap, such as ``adamw(1e-3)``; it makes the whole step.

    Returns:
      A transformation whose state is a `KahanSummationState`. Its ``update`` needs the parameters.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import kahan_summation
      >>> params = jnp.ones((), jnp.bfloat16)
      >>> tx = kahan_summation(scale(-1e-3))
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
      ...     params = apply_updates(params, updates)
      >>> params
      Array(0.898438, dtype=bfloat16)

    Reference:
      Kahan, Further remarks on reducing truncation errors, 1965; Zamirai et al., Revisiting
      bfloat16 training, 2020 (arXiv 2010.06192), algorithm 3.
    """

    def init(params: Params) -> KahanSummationState:
        compensation = jax.tree.map(lambda p: _for_low(zeros_like, p), params)
        return KahanSummationState(compensation, inner.init(params))

    def update(
        updates: Updates, state: KahanSummationState, params: Params, **extra_args: object
    ) -> tuple[Updates, KahanSummationState]:
        steps, inner_state = _wide_steps(inner, updates, state.inner_state, params, extra_args)
        trees = {"state.compensation": state.compensation}
        new, compensation = map_rows(_compensated, steps, params, trees, where=is_low)
        return new, KahanSummationState(compensation, inner_state)

    return TreeRule(update, init, needs_params=True)


@exempt("works_in_dtype[bfloat16]", reason=_WIDE)
@exempt("works_in_dtype[float16]", reason=_WIDE)
@exempt("state_is_a_carry", reason=_WIDE)
@exempt("agrees_with_float32", reason="it rounds at random, by up to a unit of the last place")
@example(scale_by_learning_rate(0.1), key=0)
@transformation
def stochastic_rounding(
    inner: GradientTransformation, key: RandomKey
) -> GradientTransformationExtraArgs:
    """Rounds p + u to one of its two neighbours at random, so that the mean is p + u.

    With a <= x <= b the neighbours of x = p + u in the parameter's dtype, p' is b with probability
    (x - a) / (b - a), else a: E[p'] = x. Numbers that are not finite, and those beyond the largest
    of the dtype, are rounded to the nearest. The inner transformation sees the parameters as they
    are, and gradients in float32. The update is p' - p, in float32.

    Costs a random key in the state, and a random number of 16 bits a parameter at each update.

    Args:
      inner: The transformation to wrap, such as ``adamw(1e-3)``; it makes the whole step.
      key: A random key, of either kind that JAX has, or an integer seed.

    Returns:
      A transformation whose state is a `StochasticRoundingState`. Its ``update`` needs the
      parameters.

    Raises:
      TypeError: If `key` is neither a random key nor an integer.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import stochastic_rounding
      >>> params = jnp.ones(100_000, jnp.bfloat16)
      >>> tx = stochastic_rounding(scale(-1e-3), key=0)
      >>> updates, state = tx.update(jnp.ones_like(params), tx.init(params), params)
      >>> print(f"{apply_updates(params, updates).mean(dtype=jnp.float32):.4f}")
      0.9990

    Reference:
      Zamirai et al., Revisiting bfloat16 training, 2020 (arXiv 2010.06192), section 3.
    """
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data, impl = jax.random.key_data(key), jax.random.key_impl(key)
        return _stochastic_rounding(inner, data, impl)  # type: ignore[return-value]
    if isinstance(key, bool) or not jnp.issubdtype(jnp.result_type(key), jnp.integer):
        raise TypeError(
            f"stochastic_rounding: key must be a random key or an integer; got {shown(key)}."
        )
    # As an operand of compiled code, a Python int beyond 32 bits would overflow.
    seed = np.int64(key) if isinstance(key, int | np.integer) else key
    return _stochastic_rounding(inner, seed)  # type: ignore[return-value]


@rule
def _stochastic_rounding(
    inner: GradientTransformation, seed: _Seed, impl: Hashable | None = None
) -> TreeRule:
    """`stochastic_rounding` with a seed, or with the integers of a key of the generator `impl`."""

    def init(params: Params) -> StochasticRoundingState:
        if impl is not None or jnp.ndim(seed):
            rng_key = jax.random.wrap_key_data(jnp.asarray(seed), impl=impl)
        else:
            rng_key = jax.random.key(seed)
        return StochasticRoundingState(rng_key, inner.init(params))

    def update(
        updates: Updates, state: StochasticRoundingState, params: Params, **extra_args: object
    ) -> tuple[Updates, StochasticRoundingState]:
        steps, inner_state = _wide_steps(inner, updates, state.inner_state, params, extra_args)
        next_key, sample_key = jax.random.split(state.rng_key)
        counter = iter(range(len(jax.tree.leaves(steps))))

        def rounded(u: jax.Array, p: jax.Array) -> tuple[jax.Array]:
            return (_to_neighbour(u, p, jax.random.fold_in(sample_key, next(counter))),)

        (new,) = map_rows(rounded, steps, params, {}, where=is_low)
        return new, StochasticRoundingState(next_key, inner_state)

    return TreeRule(update, init, needs_params=True)


def _for_low(first: Any, p: Any, *args: Any) -> Any:
    return first(p, *args) if is_low(p) else MaskedNode()


def _choose(master: Params, params: Params) -> Params:
    """The copies, and the parameters that need none."""
    return jax.tree.map(
        lambda m, p: p if isinstance(m, MaskedNode) else m,
        master,
        params,
        is_leaf=lambda x: isinstance(x, MaskedNode),
    )


def _wide_steps(
    inner: GradientTransformation,
    updates: Updates,
    state: OptState,
    params: Params,
    extra_args: dict[str, Any],
) -> tuple[Updates, OptState]:
    """The inner update of gradients in float32."""
    (wide,) = map_rows(lambda g, p: (in_compute_precision(g),), updates, params, {}, where=is_low)
    return inner.update(wide, state, params, **extra_args)


@jax.jit
def _follow(g: jax.Array, p: jax.Array, master: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradient in float32, and the copy, made anew where the parameter was moved."""
    wide = p.astype(jnp.float32)
    in_step = rounded(master, p.dtype) == wide
    return in_compute_precision(g), jnp.where(in_step, master, wide)


@jax.jit
def _to_master(u: jax.Array, p: jax.Array, master: jax.Array) -> tuple[jax.Array, jax.Array]:
    master = master + u.astype(jnp.float32)
    return _step(p.astype(jnp.float32), rounded(master, p.dtype)), master


@jax.jit
def _compensated(u: jax.Array, p: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = p.astype(jnp.float32)
    exact = wide + (c.astype(jnp.float32) + u.astype(jnp.float32))
    target = rounded(exact, p.dtype)
    rest = jnp.where(jnp.isfinite(target), exact - target, 0)
    return _step(wide, target), rest.astype(c.dtype)


@jax.jit
def _to_neighbour(u: jax.Array, p: jax.Array, key: jax.Array) -> jax.Array:
    wide = p.astype(jnp.float32)
    return _step(wide, _stochastically_rounded(wide + u.astype(jnp.float32), p.dtype, key))


def _step(start: jax.Array, target: jax.Array) -> jax.Array:
    """The update from one number to another; 0 from infinity to infinity."""
    return jnp.where(start == target, 0, target - start)


def _stochastically_rounded(x: jax.Array, dtype: Any, key: jax.Array) -> jax.Array:
    """One of the neighbours of x in `dtype`, at random, in float32.

    Added to the bits of |x|, a random number below one unit of the last place to keep carries into
    it with the right probability; what is below is cut off. Below the smallest normal number those
    units are too small, but between it and its double they are right: x is shifted there and back.
    """
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    surplus = 23 - info.nmant
    size = jnp.abs(x)
    shift = jnp.where(size < float(info.tiny), float(info.tiny), 0.0)
    bits = jax.lax.bitcast_convert_type(size + shift, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16) >> (16 - surplus)
    bits = (bits + noise) & jnp.uint32(2**32 - 2**surplus)
    largest = float(info.max)
    magnitude = jnp.minimum(jax.lax.bitcast_convert_type(bits, jnp.float32), largest) - shift
    return jnp.where(size <= largest, jnp.copysign(magnitude, x), x)
