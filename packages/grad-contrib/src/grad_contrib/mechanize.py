r"""Mechanic: learns by what to multiply the steps of any optimizer.

A base optimizer makes steps :math:`u_t`, whose sum since the start is :math:`\Delta_t`. The
parameters are :math:`\theta_t = \theta_0 + S_t \Delta_t`. Their scale :math:`S_t = \sum_i s_{t,i}`
is the sum of n bets on whether it pays to go on, each with a memory
:math:`\beta_i = 1 - 10^{-i}` of its own:

.. math::

    h_t &= \Bigl\langle \Delta_t,\; g_t + \lambda S_t \frac{\|g_t\|}{\|\theta_t\| + \varepsilon}
        \theta_t \Bigr\rangle \\
    \hat h_t &= \mathrm{clip}(h_t, -m_{t-1}, m_{t-1}) \\
    m_t &= \max(\beta m_{t-1}, |h_t| + \varepsilon) \\
    v_t &= \beta^2 v_{t-1} + h_t^2 \\
    r_t &= \beta r_{t-1} - s_t \hat h_t \\
    s_{t+1} &= \frac{s_\mathrm{init} \, m_t / n + \max(r_t, 0)}{\sqrt{v_t} + \varepsilon} \\
    \theta_{t+1} &= \theta_0 + S_{t+1} \Bigl(
        \frac{\theta_t - \theta_0}{S_t + \varepsilon} + u_t \Bigr)

As in the released library, but not in the paper, h is clipped, and r may be negative.

The inner products and norms are over the whole tree. The state costs a copy of the parameters,
:math:`\theta_0`, beside that of the base optimizer.

Pitfalls. The base optimizer should have its learning rate, or the peak of its schedule, at 1, and
not normalize its steps by norms of the parameters. Nothing may scale or clip the updates
afterwards, or they no longer add up to what the bets are on. First steps are tiny; 16-bit
parameters lose them, unless float32 masters are kept.

References:
  Cutkosky, Defazio and Mehta, Mechanic: a learning rate tuner, 2023 (arXiv 2306.00144),
  algorithm 1.
"""

from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_contrib._sums import dot, rows, total
from grad_core import (
    GradientTransformation,
    LeafRule,
    NonNegative,
    OptState,
    Params,
    Real,
    TreeRule,
    Updates,
    copy_of,
    example,
    global_norm,
    means_no_update,
    rule,
    safe_divide,
    safe_increment,
    safe_sqrt,
    scalar_dtype,
)
from grad_optimizers import sgd


class MechanicState(NamedTuple):
    """The state of the base optimizer, that of the bets, and where it all started.

    Attributes:
      base_optimizer_state: The state of the base optimizer.
      count: The number of updates.
      r: The reward of each bet so far; this and the next three of shape (n,).
      m: The largest |h| so far.
      v: The sum of the squares of h.
      s: The scale that each bet contributes.
      x0: The first parameters.
    """

    base_optimizer_state: OptState
    count: jax.Array  # type: ignore[assignment]  # tuple.count
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params


@example(sgd(1.0), s_init=0.01)
@rule
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: Real = 1e-2,
    eps: NonNegative = 1e-8,
    s_init: NonNegative = 1e-6,
    num_betas: int = 6,
) -> TreeRule:
    """Multiplies the steps of an optimizer by a scale S that it learns; see the module.

    Args:
      base_optimizer: What makes the steps, with a learning rate of 1, scheduled or not.
      weight_decay: The weight of the parameters in h, which draws S to where they are small; it
        is not the decay of the base optimizer.
      eps: Added to denominators, and to |h|.
      s_init: The first scale of each bet.
      num_betas: The number n of bets.

    Returns:
      A transformation whose state is a `MechanicState`. Its ``update`` needs the parameters; those
      of the first call are where it starts.

    Raises:
      ValueError: If `num_betas` is not positive.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_contrib import mechanize
      >>> from grad_core import apply_updates
      >>> from grad_optimizers import sgd
      >>> optimizer = mechanize(sgd(1.0))
      >>> params = jnp.array([3.0, -4.0])
      >>> state, update = optimizer.init(params), jax.jit(optimizer.update)
      >>> for _ in range(100):
      ...     updates, state = update(2 * params, state, params)
      ...     params = apply_updates(params, updates)
      >>> bool(jnp.all(jnp.abs(params) < 0.1)), bool(jnp.sum(state.s) > 0.01)
      (True, True)

    Reference:
      Cutkosky, Defazio and Mehta, Mechanic: a learning rate tuner, 2023, algorithm 1.
    """
    if num_betas < 1:
        raise ValueError(f"mechanize: num_betas must be at least 1; got {num_betas}.")
    betas = 1 - 0.1 ** np.arange(1.0, num_betas + 1)
    starting: Any = start()
    moving: Any = movement()

    def init(params: Params) -> MechanicState:
        dtype = scalar_dtype(params)
        zeros = jnp.zeros(num_betas, dtype)
        return MechanicState(
            base_optimizer_state=base_optimizer.init(params),
            count=jnp.zeros([], jnp.int32),
            r=zeros,
            m=jnp.zeros_like(zeros),
            v=jnp.zeros_like(zeros),
            s=jnp.full_like(zeros, s_init),
            x0=starting.init(params).x0,
        )

    def bet(h: jax.Array, state: MechanicState) -> dict[str, jax.Array]:
        b = jnp.asarray(betas, state.s.dtype)
        m = jnp.maximum(b * state.m, jnp.abs(h) + eps)
        v = b**2 * state.v + h**2
        r = b * state.r - state.s * jnp.clip(h, -state.m, state.m)
        wealth = s_init / num_betas * m + jnp.maximum(r, 0)
        divisor = safe_sqrt(v) + eps
        s = jnp.where(divisor == 0, s_init / num_betas, safe_divide(wealth, divisor))
        return {"r": r, "m": m, "v": v, "s": s}

    def update(
        updates: Updates, state: MechanicState, params: Params, **extra_args: Any
    ) -> tuple[Updates, MechanicState]:
        is_first: Any = state.count == 0
        new: Any
        _, new = starting.update(updates, _Start(state.x0), params, is_first=is_first)
        u, base_state = base_optimizer.update(
            updates, state.base_optimizer_state, params, **extra_args
        )
        scale = jnp.sum(state.s)
        g, moved = _present(updates), list(rows(_present(updates), params, new.x0))
        decay = weight_decay * scale * global_norm(g) / (global_norm(params) + eps)
        along = total([dot(x - x0, g + decay.astype(g.real.dtype) * x) for g, x, x0 in moved])
        h = safe_divide(along, scale + eps).astype(state.s.dtype)
        bets = {k: x.astype(state.s.dtype) for k, x in bet(h, state).items()}
        scales: Any = {"scale": scale + eps, "new_scale": jnp.sum(bets["s"])}
        u, _ = moving.update(u, _Start(new.x0), params, **scales)
        count = safe_increment(state.count)
        return u, MechanicState(base_state, count, **bets, x0=new.x0)

    inner_state = attrgetter("base_optimizer_state")
    return TreeRule(update, init, needs_params=True, inner_state=inner_state)


class _Start(NamedTuple):
    x0: Params


@rule
def start() -> LeafRule:
    """Keeps the parameters of the first update in its state."""

    def once(is_first: jax.Array) -> dict[str, Any]:
        return {"is_first": is_first}

    def step(
        g: jax.Array, p: jax.Array, x0: jax.Array, is_first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return g, jnp.where(is_first, p, x0)

    return LeafRule(step, _Start, once=once, x0=copy_of)


@rule
def movement() -> LeafRule:
    """The update from x0 + scale * delta to x0 + new_scale * (delta + g)."""

    def once(scale: jax.Array, new_scale: jax.Array) -> dict[str, Any]:
        return {"new_scale": new_scale, "growth": safe_divide(new_scale, scale) - 1}

    def step(
        g: jax.Array, p: jax.Array, x0: jax.Array, new_scale: jax.Array, growth: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return new_scale * g + growth * (p - x0), x0

    return LeafRule(step, _Start, once=once, x0=copy_of)


def _present(updates: Updates) -> Updates:
    """The updates, with None where there is none."""
    return jax.tree.map(
        lambda g: None if means_no_update(g) else g, updates, is_leaf=means_no_update
    )
