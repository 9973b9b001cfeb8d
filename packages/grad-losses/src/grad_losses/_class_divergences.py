r"""Divergences of two distributions p and q, class by class, with digits left where p is near q.

The terms of a Kullback-Leibler divergence are summed as

.. math::

    \mathrm{KL}(x, y) = \sum_k x_k d_k + y_k - x_k, \qquad d_k = \log x_k - \log y_k

As x and y sum to 1 that is the same, but no term is negative, and none much larger than the sum.
With a mixture :math:`m = \beta p + (1 - \beta) q` Jensen-Shannon's slopes are

.. math::

    \mathrm{JS}_\beta = \beta\, \mathrm{KL}(p, m) + (1 - \beta)\, \mathrm{KL}(q, m), \qquad
    \frac{\partial \mathrm{JS}_\beta}{\partial \log q_k} = (1 - \beta)\, q_k \log \frac{q_k}{m_k}

Only log q is differentiated; log p is a constant.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grad_losses._logits import product

_NEVER = -1000.0  # the logarithm of what is 0 in every dtype

# Those of p and q in a mixture of them: beta and 1 - beta, both with all their digits.
Shares = tuple[jax.Array, jax.Array]
# A function of log p and log q.
Divergence = Callable[[jax.Array, jax.Array, Shares], jax.Array]


def _with_slope(slope: Divergence) -> Callable[[Divergence], Divergence]:
    """Decorates a divergence with its derivative with respect to log q."""

    def decorate(terms: Divergence) -> Divergence:
        function = jax.custom_jvp(terms)

        @function.defjvp
        def _jvp(
            primals: tuple[jax.Array, jax.Array, Shares],
            tangents: tuple[jax.Array, jax.Array, Shares],
        ) -> tuple[jax.Array, jax.Array]:
            return function(*primals), slope(*primals) * tangents[1]

        return function

    return decorate


def _slope_of_forward_kl(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    return jnp.exp(log_q) - jnp.exp(log_p)


@_with_slope(_slope_of_forward_kl)
def forward_kl(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    """The terms of KL(p, q)."""
    return _relative_entropy(_log_ratio(log_p, log_q), jnp.exp(log_p), jnp.exp(log_q))


def _slope_of_reverse_kl(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    return product(jnp.exp(log_q), _log_ratio(log_q, log_p))


@_with_slope(_slope_of_reverse_kl)
def reverse_kl(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    """The terms of KL(q, p)."""
    return _relative_entropy(_log_ratio(log_q, log_p), jnp.exp(log_q), jnp.exp(log_p))


def _slope_of_jensen_shannon(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    _, of_q = _log_ratios_to_mixture(log_p, log_q, shares)
    return shares[1] * jnp.exp(log_q) * of_q


@_with_slope(_slope_of_jensen_shannon)
def jensen_shannon(log_p: jax.Array, log_q: jax.Array, shares: Shares) -> jax.Array:
    """The terms of beta * KL(p, m) + (1 - beta) * KL(q, m)."""
    beta, rest = shares
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    m = beta * p + rest * q
    of_p, of_q = _log_ratios_to_mixture(log_p, log_q, shares)
    return beta * _relative_entropy(of_p, p, m) + rest * _relative_entropy(of_q, q, m)


def _relative_entropy(log_ratio: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """``x * log_ratio + y - x``, which is >= 0."""
    difference = jnp.where(log_ratio > 0, x, -y) * jnp.expm1(-jnp.abs(log_ratio))
    return jnp.maximum(product(x, log_ratio) + difference, 0)


def _log_ratio(log_x: jax.Array, log_y: jax.Array) -> jax.Array:
    """``log(x / y)``, and 0 where both are 0."""
    both_zero = jnp.isneginf(log_x) & jnp.isneginf(log_y)
    return jnp.where(both_zero, 0, log_x - jnp.where(both_zero, 0, log_y))


def _log_ratios_to_mixture(
    log_p: jax.Array, log_q: jax.Array, shares: Shares
) -> tuple[jax.Array, jax.Array]:
    """``log(p / m)`` and ``log(q / m)``, finite, and exact for any shares."""
    log_beta, log_rest = _logarithm(*shares), _logarithm(*shares[::-1])
    ratio = jnp.maximum(log_p, _NEVER) - jnp.maximum(log_q, _NEVER)
    of_q = -jnp.logaddexp(log_rest, log_beta + ratio)
    return of_q + ratio, of_q


def _logarithm(share: jax.Array, rest: jax.Array) -> jax.Array:
    """``log(share)``, also where that is so near 1 that only the rest tells."""
    return jnp.where(rest < 0.5, jnp.log1p(-rest), jnp.log(share))
