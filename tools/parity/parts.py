"""Arguments that cases of several families share."""

from typing import Any

import jax
import jax.numpy as jnp

from parity.cases import call

LINEAR = call("linear_schedule", 0.1, 0.02, 40)

# Rows of docs/differences.md.
DECAY = "the default decay of second moments in `adafactor` with x64 on"
NARROW = "statistics in a narrower dtype than the gradients"
SCHEDULED = "schedules of integer steps with x64 on"


def matrices(tree: Any) -> Any:
    """A mask of the leaves with two dimensions or more."""
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def vectors(tree: Any) -> Any:
    """A mask of the other leaves."""
    return jax.tree.map(lambda x: x.ndim < 2, tree)


def by_rank(tree: Any) -> Any:
    """A label for each leaf: "wide" with two dimensions or more, or "flat"."""
    return jax.tree.map(lambda x: "wide" if x.ndim > 1 else "flat", tree)


def falling(count: Any) -> Any:
    """A user's schedule: a line."""
    return 0.1 - 0.002 * jnp.minimum(count, 40)


def warmed(count: Any) -> Any:
    """A user's schedule: up for 10 steps, then slowly down."""
    return 0.1 * jnp.minimum((count + 1) / 10, (70 - count) / 60)


def tempered(step: Any, rate: Any) -> Any:
    """A decay of second moments that starts at 0, like Adafactor's own."""
    t = jnp.asarray(step, jnp.result_type(float)) + 1
    return 1 - t ** (-rate / 2)
