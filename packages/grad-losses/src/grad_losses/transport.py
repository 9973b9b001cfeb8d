r"""The Sinkhorn divergence: how much it costs to move one cloud of points onto another.

With costs C between points, weights a and b that sum to 1, and couplings :math:`\pi` of these
marginals, the regularized cost of transport and its dual are

.. math::

    \mathrm{OT}_\varepsilon(a, b)
    = \min_\pi \sum_{ij} \pi_{ij} C_{ij} + \varepsilon\, \mathrm{KL}(\pi \,|\, a b^\top)
    = \max_{f, g} \sum_i a_i f_i + \sum_j b_j g_j
      - \varepsilon \sum_{ij} a_i b_j (e^{(f_i + g_j - C_{ij}) / \varepsilon} - 1)

At the maximum each potential is a soft minimum given the other, and the conditional probabilities
of the coupling are its gradient by the costs:

.. math::

    f_i = -\varepsilon \log \sum_j b_j e^{(g_j - C_{ij}) / \varepsilon}, \qquad
    \pi_{ij} / a_i = b_j e^{(f_i + g_j - C_{ij}) / \varepsilon}

Sinkhorn's algorithm computes them in turn, at temperatures that fall to :math:`\varepsilon`. By the
envelope theorem, first derivatives leave the potentials constant; second ones, in which these move,
follow from the equation by the implicit function theorem. All is computed in units of
:math:`\varepsilon`.

The divergence :math:`\mathrm{OT}(a, b) - \frac12 \mathrm{OT}(a, a) - \frac12 \mathrm{OT}(b, b)` is
>= 0, and 0 for equal clouds only.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, floating, positive, real, widened

Cost = Callable[[jax.Array, jax.Array], jax.Array]


def _squared_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """The squared distance of two points."""
    return jnp.sum(jnp.square(x - y))


@promises(ranges={"epsilon": (1e-30, math.inf)})
@example(
    np.array([[[0.5, -1.0], [2.0, 0.3]], [[1.0, 0.7], [-0.4, 0.1]]], np.float32),
    np.array([[[0.2, 0.9], [-1.5, 0.6]], [[0.8, 0.1], [0.6, 1.3]]], np.float32),
    epsilon=0.5,
)
def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 0.05,
    cost: Cost = _squared_distance,
    max_iterations: int = 1000,
) -> jax.Array:
    """OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, of the regularized cost of transport OT.

    Args:
      x: Points, of shape [..., n, dimensions] and floating point dtype: one cloud for each place in
        the leading axes.
      y: Points, of shape [..., m, dimensions] and any real dtype, with leading axes that broadcast.
      x_weights: How much is at each point of x, >= 0 and not 0 everywhere, of shape [..., n] and
        any real dtype; it is divided by the sum. Equal weights with None.
      y_weights: The same for y, of shape [..., m].
      epsilon: The regularization, > 0, in units of the cost. Towards 0, the divergence is the exact
        cost of transport; towards infinity, half the squared maximum mean discrepancy of the kernel
        -cost.
      cost: What it costs to move from one point to another, a symmetric, differentiable function of
        two arrays of shape [dimensions] that returns a scalar. The squared distance by default.
      max_iterations: How many steps of Sinkhorn's algorithm to make at most, for each of the three
        terms; a small epsilon takes many. Any number gives finite results.

    Returns:
      The divergences, of the broadcast leading shape, in the dtype that points and weights promote
      to.

    Raises:
      TypeError: If `x` is not floating point, or another array not real.
      ValueError: If shapes do not fit, a cloud has no points or dimensions, or `epsilon` or
        `max_iterations` is a number <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import sinkhorn_divergence
      >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [4.0]])
      >>> sinkhorn_divergence(x, y, epsilon=0.01).round(3)  # all move by 3
      Array(9., dtype=float32)

    Reference:
      Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences,
      2019, https://arxiv.org/abs/1810.08278.
    """
    name = "sinkhorn_divergence"
    positive(name, epsilon=epsilon, max_iterations=max_iterations)
    x, y = floating(name, "x", x), real(name, "y", y)
    for cloud, points in (("x", x), ("y", y)):
        if points.ndim < 2 or 0 in points.shape[-2:]:
            raise ShapeError(
                f"{name}: {cloud} must hold points, of shape [..., points, dimensions] without "
                f"axes of size 0; got {points.shape}."
            )
    a, b = _weights("x", x_weights, x), _weights("y", y_weights, y)
    batch = _batch(x, y, a, b)
    dtype = jnp.result_type(x, y, a, b)
    x, y, a, b = widened(x, y, a, b)
    unit = jnp.asarray(epsilon, x.dtype)
    first, second = (
        _Cloud(
            jnp.broadcast_to(points, (*batch, *points.shape[-2:])),
            jnp.broadcast_to(w / jnp.sum(w, axis=-1, keepdims=True), (*batch, *w.shape[-1:])),
        )
        for points, w in ((x, a), (y, b))
    )

    def transport(cloud: _Cloud, other: _Cloud) -> jax.Array:
        pairs = cloud.points[..., :, None, :], other.points[..., None, :, :]
        costs = jnp.vectorize(cost, signature="(d),(d)->()")(*pairs) / unit
        top = jnp.finfo(costs.dtype).max / 1024  # type: ignore[no-untyped-call]
        problem = jnp.clip(costs, -top, top), cloud.weights, other.weights
        return _transport(*problem, cloud is other, max_iterations)

    alone = transport(first, first) + transport(second, second)
    return (unit * (transport(first, second) - alone / 2)).astype(dtype)


class _Cloud(NamedTuple):
    """Points [..., n, dimensions], and weights [..., n] that sum to 1."""

    points: jax.Array
    weights: jax.Array


def _weights(cloud: str, weights: ArrayLike | None, points: jax.Array) -> jax.Array:
    """The weights of a cloud."""
    if weights is None:
        return jnp.ones_like(points[..., 0])
    found = real("sinkhorn_divergence", f"{cloud}_weights", weights)
    if found.shape[-1:] != points.shape[-2:-1]:
        raise ShapeError(
            f"sinkhorn_divergence: {cloud}_weights of shape {found.shape} must have one weight for "
            f"each point of {cloud} of shape {points.shape}."
        )
    return found


def _batch(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> tuple[int, ...]:
    """The leading axes, after a check that clouds and weights fit."""
    try:
        if x.shape[-1] == y.shape[-1]:
            return jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], a.shape[:-1], b.shape[:-1])
    except ValueError:
        pass
    raise ShapeError(
        f"sinkhorn_divergence: x of shape {x.shape}, y of shape {y.shape}, x_weights of shape "
        f"{a.shape} and y_weights of shape {b.shape} must have points of the same dimensions, and "
        "leading axes that broadcast."
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _transport(
    costs: jax.Array, a: jax.Array, b: jax.Array, is_self: bool, max_iterations: int
) -> jax.Array:
    """The cost of transport, [...]; from a cloud to itself, b is a."""
    g = _potential(costs, a, b, is_self, max_iterations)
    f, _ = _soft_minimum(costs, b, g)
    return jnp.sum(a * f, axis=-1) + jnp.sum(b * g, axis=-1)


@_transport.defjvp
def _transport_jvp(
    is_self: bool,
    max_iterations: int,
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The envelope theorem."""
    (costs, a, b), (d_costs, d_a, d_b) = primals, tangents
    g = _potential(costs, a, b, is_self, max_iterations)
    f, conditional = _soft_minimum(costs, b, g)
    moved = jnp.sum(conditional * d_costs, axis=-1)
    value = jnp.sum(a * f, axis=-1) + jnp.sum(b * g, axis=-1)
    return value, jnp.sum(a * moved + f * d_a, axis=-1) + jnp.sum(g * d_b, axis=-1)


_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""g, the temperature, the last change of g and the number of steps."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _potential(
    costs: jax.Array, a: jax.Array, b: jax.Array, is_self: bool, max_iterations: int
) -> jax.Array:
    """The potential g, by Sinkhorn's algorithm.

    Of a cloud with itself both potentials are the same. Then half a step at a time converges fast,
    as the derivative of a whole one is -P, whose eigenvalues are between -1 and 0.
    """

    def step(carry: _Carry) -> _Carry:
        g, temperature, _, count = carry
        t = temperature[..., None, None]
        f, _ = _soft_minimum(costs, b, g, t)
        new = (f + g) / 2 if is_self else _soft_minimum(_transposed(costs), a, f, t)[0]
        change = jnp.where(temperature > 1, jnp.inf, jnp.max(jnp.abs(new - g), axis=-1))
        return new, jnp.maximum(0.9 * temperature, 1), change, count + 1

    def goes_on(carry: _Carry) -> jax.Array:
        _, _, change, count = carry
        return jnp.any(change > tolerance) & (count < max_iterations)

    largest = jnp.maximum(jnp.max(jnp.abs(costs), axis=(-2, -1)), 1)
    tolerance = 16 * jnp.finfo(costs.dtype).eps * largest  # type: ignore[no-untyped-call]
    start = jnp.zeros_like(b), largest, jnp.full_like(largest, jnp.inf), jnp.int32(0)
    return jax.lax.while_loop(goes_on, step, start)[0]


@_potential.defjvp
def _potential_jvp(
    is_self: bool,
    max_iterations: int,
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The implicit function theorem, for g = soft minimum of f(g), or of g itself."""
    (costs, a, b), (d_costs, d_a, d_b) = primals, tangents
    g = _potential(costs, a, b, is_self, max_iterations)
    (f, p), (d_f, _) = jax.jvp(lambda c, b: _soft_minimum(c, b, g), (costs, b), (d_costs, d_b))
    identity = jnp.eye(g.shape[-1], dtype=g.dtype)
    if is_self:
        return g, _solve(identity + p, d_f)
    (_, q), (d_g, _) = jax.jvp(
        lambda c, a: _soft_minimum(_transposed(c), a, f), (costs, a), (d_costs, d_a)
    )
    # A constant may be added to g, and in each part if the coupling falls apart, so that I - QP is
    # singular. It does not matter which; a small number chooses, and keeps the solution finite.
    small = 16 * jnp.finfo(g.dtype).eps  # type: ignore[no-untyped-call]
    matrix = (1 + small) * identity - jnp.matmul(q, p, precision="highest")
    return g, _solve(matrix, d_g - jnp.sum(q * d_f[..., None, :], axis=-1))


def _solve(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    found: jax.Array = jnp.linalg.solve(matrix, vector[..., None])
    return found[..., 0]


def _transposed(costs: jax.Array) -> jax.Array:
    return jnp.swapaxes(costs, -1, -2)


def _soft_minimum(
    costs: jax.Array, weights: jax.Array, potential: jax.Array, temperature: jax.Array | float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """The potential of the other points, and the conditional probabilities; over the last axis."""
    # Scores are huge for a small epsilon. Scaled before the largest is subtracted, they could be
    # rounded differently in it and in the difference, by more than 1, and no share be left.
    score = potential[..., None, :] - costs
    weights = weights[..., None, :]
    largest = jnp.max(jnp.where(weights > 0, score, -jnp.inf), axis=-1, keepdims=True)
    largest = jax.lax.stop_gradient(largest)
    # Without weight a point may have a larger score, whose share must not overflow.
    share = weights * jnp.exp(jnp.minimum((score - largest) / temperature, 60))
    total = jnp.sum(share, axis=-1, keepdims=True)
    return -(temperature * jnp.log(total) + largest)[..., 0], share / total
