r"""Adafactor: second moments in the memory of rows and columns.

For the gradient G_t of a matrix, with the means R and C of rows and columns:

.. math::

    \beta_t &= 1 - (t - t_0)^{-c} \\
    R_t &= \beta_t R_{t-1} + (1 - \beta_t) \, \mathrm{rows}(|G_t|^2 + \varepsilon) \\
    C_t &= \beta_t C_{t-1} + (1 - \beta_t) \, \mathrm{columns}(|G_t|^2 + \varepsilon) \\
    U_t &= G_t / \sqrt{R_t C_t / \mathrm{mean}(R_t)}

An array of more axes is so factored along its two longest; a short one keeps its whole second
moment, :math:`V_t = \beta_t V_{t-1} + (1 - \beta_t) (|G_t|^2 + \varepsilon)`, and
:math:`U_t = G_t / \sqrt{V_t}`. With :math:`\mathrm{rms}(X)^2 = \mathrm{mean} |X|^2`, Adafactor then
steps by

.. math::

    \theta_{t+1} = \theta_t - \alpha \max(\mathrm{rms}(\theta_t), 10^{-3}) \,
        U_t / \max(1, \mathrm{rms}(U_t) / d)

References:
  Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018
  (arXiv 1804.04235).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Numeric,
    Real,
    Updates,
    abs_sq,
    add_decayed_weights,
    chain,
    clip_by_block_rms,
    ema,
    example,
    rule,
    safe_divide,
    safe_sqrt,
    scale,
    scale_by_learning_rate,
    scale_by_param_block_rms,
    second_moment,
    transformation,
)
from grad_core.hyperparameters import PreciseDecay


class FactoredState(NamedTuple):
    """The number of updates; for each leaf the means of rows and columns, or the second moment.

    What a leaf does not keep has the shape (1,).
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    v_row: Updates
    v_col: Updates
    v: Updates


def _decay_rate_pow(count: Numeric, exponent: Numeric) -> Any:
    """The decay 1 - (count + 1)^-exponent, which knows 1 minus itself to the last digit."""
    weight = (jnp.asarray(count, jnp.result_type(float)) + 1) ** -jnp.asarray(exponent)
    return PreciseDecay(1 - weight, weight, None)


@rule
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: Real = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: NonNegative = 1e-30,
    decay_rate_fn: Callable[[Any, Any], Any] = _decay_rate_pow,
    *,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Divides by the root of a factored second moment; see the module for the equations.

    Args:
      factored: Whether to factor at all.
      decay_rate: The exponent c of the decays.
      step_offset: The number t_0 of updates to leave out of count, those of an earlier run; before
        so many, each update counts as the first.
      min_dim_size_to_factor: An array is factored if its two longest axes have at least this size.
      epsilon: Added to squares.
      decay_rate_fn: From the number of updates before this one and the exponent to the decay,
        written in `jax.numpy`.
      nu_dtype: The dtype of second moments; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `FactoredState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_factored_rms
      >>> tx = scale_by_factored_rms(min_dim_size_to_factor=2)
      >>> params = jnp.zeros((2, 3))
      >>> state = tx.init(params)
      >>> tx.update(jnp.array([[3.0, 6.0, 9.0], [-1.0, -2.0, -3.0]]), state)[0].round(3)
      Array([[ 1.,  1.,  1.],
             [-1., -1., -1.]], dtype=float32)
    """
    zeros = second_moment(nu_dtype)

    def axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The second longest and the longest axis, if they are to be factored."""
        if not factored or len(shape) < 2:
            return None
        *_, second, longest = np.argsort(shape, kind="stable").tolist()
        return (second, longest) if shape[second] >= min_dim_size_to_factor else None

    def without(which: int) -> Callable[[jax.Array], jax.Array]:
        def first(p: jax.Array) -> jax.Array:
            pair = axes(jnp.shape(p))
            return jnp.sum(zeros(p), pair[which]) if pair else _nothing(zeros(p))

        return first

    def first_v(p: jax.Array) -> jax.Array:
        return _nothing(zeros(p)) if axes(jnp.shape(p)) else zeros(p)

    def once(count: jax.Array) -> dict[str, Any]:
        decay = decay_rate_fn(jnp.maximum(count - step_offset, 0), decay_rate)
        return {"decay": jnp.asarray(decay), "weight": 1 - decay}

    def step(
        g: jax.Array,
        v_row: jax.Array,
        v_col: jax.Array,
        v: jax.Array,
        decay: jax.Array,
        weight: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        square = abs_sq(g) + epsilon
        pair = axes(g.shape)
        if pair is None:
            v = decay * v + weight * square
            return safe_divide(g, safe_sqrt(v)), v_row, v_col, v
        second, longest = pair
        v_row = _bounded(decay * v_row + weight * jnp.mean(square, longest))
        v_col = _bounded(decay * v_col + weight * jnp.mean(square, second))
        share = _over_mean(v_row, second - (longest < second))
        u = g * jnp.expand_dims(_inverse_root(share), longest)
        return u * jnp.expand_dims(_inverse_root(v_col), second), v_row, v_col, v

    return LeafRule(step, FactoredState, once=once, v_row=without(1), v_col=without(0), v=first_v)


def _nothing(zeros: jax.Array) -> jax.Array:
    return jnp.zeros(1, zeros.dtype)


def _over_mean(x: jax.Array, axis: int) -> jax.Array:
    """Divides by the mean, where the sum may overflow; the largest, which cancels, is constant."""
    largest = jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=0.0))
    x = safe_divide(x, largest)
    x = safe_divide(x, jnp.mean(x, axis, keepdims=True))
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)  # type: ignore[no-untyped-call]


def _bounded(x: jax.Array) -> jax.Array:
    # A sixteenth, so that its inverse is a normal number.
    return jnp.minimum(x, jnp.finfo(x.dtype).max / 16)  # type: ignore[no-untyped-call]


def _inverse_root(x: jax.Array) -> jax.Array:
    return safe_divide(jnp.ones_like(x), safe_sqrt(x))


@example(1e-2)
@transformation
def adafactor(
    learning_rate: LearningRate | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: Real = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: NonNegative | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: DType = jnp.float32,
    weight_decay_rate: LearningRate | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOrFn | None = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adafactor: descent scaled by factored second moments, in steps relative to the parameters.

    State: for a matrix of m rows and n columns m + n numbers of 4 bytes, 4 (1 / m + 1 / n) bytes a
    parameter; for small and short arrays 4 bytes a parameter. With momentum 4 bytes more.

    Args:
      learning_rate: A number, an array of shape () or a schedule; None for 1.
      min_dim_size_to_factor: As for `scale_by_factored_rms`.
      decay_rate: The exponent of the decays.
      decay_offset: The number of updates of an earlier run, `step_offset` there.
      multiply_by_parameter_scale: Whether steps are relative to the parameters' root mean square,
        of at least 1e-3.
      clipping_threshold: The largest root mean square d of a leaf's direction; None for any.
      momentum: The decay of an average of the steps, in [0, 1]; None for none.
      dtype_momentum: The dtype of that average.
      weight_decay_rate: The multiple of the parameters that is taken off at each step, whatever
        the learning rate; None for none.
      eps: Added to squares.
      factored: Whether to factor at all.
      weight_decay_mask: Which leaves to decay, as in `masked`; all with None.
      nu_dtype: The dtype of second moments; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is the tuple of a `FactoredState` and the states of those of
      the clipping, the rate, the parameter scale, the momentum and the decay that there are, and
      the sign's.

    Raises:
      MissingArgumentError: By ``update``, without parameters, where they are needed.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adafactor
      >>> optimizer = adafactor(0.1)
      >>> params = jnp.array([2.0, -2.0])
      >>> updates, _ = optimizer.update(jnp.array([3.0, 5.0]), optimizer.init(params), params)
      >>> print(jnp.array_str(updates, precision=4))
      [-0.2 -0.2]
    """
    scaling = scale_by_factored_rms(
        factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, nu_dtype=nu_dtype
    )
    parts: list[Any] = [scaling]
    if clipping_threshold is not None:
        parts.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_block_rms())
    if momentum is not None:
        parts.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        parts.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*parts, scale(-1.0))
