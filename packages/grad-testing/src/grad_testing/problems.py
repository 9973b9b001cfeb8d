"""Small deterministic problems to minimise."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import GradientTransformation, apply_updates

__all__ = ["Problem", "minimise", "quadratic", "stochastic_least_squares", "valley"]


class Problem(NamedTuple):
    """Something to minimise.

    Attributes:
      name: What to call it.
      start: The parameters to start from.
      loss: ``loss(params, step)``; it depends on the step only if it is stochastic.
      full_loss: ``full_loss(params)``, which is to decrease; the mean of `loss` over all data.
      steps: How many steps show a decrease at a learning rate of 0.01.
    """

    name: str
    start: Any
    loss: Callable[[Any, jax.Array], jax.Array]
    full_loss: Callable[[Any], jax.Array]
    steps: int = 60


def quadratic() -> Problem:
    """A convex quadratic with curvatures from 0.5 to 4, and its minimum away from the origin."""
    curvature = jnp.asarray(np.linspace(0.5, 4.0, 6).reshape(2, 3), jnp.float32)
    target = {"w": jnp.full((2, 3), 1.5), "b": jnp.asarray([0.5, 2.0, 1.0])}

    def loss(params: Any) -> jax.Array:
        w, b = params["w"] - target["w"], params["b"] - target["b"]
        value: jax.Array = 0.5 * jnp.sum(curvature * w**2) + 0.5 * jnp.sum(b**2)
        return value

    start = {"w": jnp.full((2, 3), 3.0), "b": jnp.full(3, 3.5)}
    return Problem("quadratic", start, lambda params, step: loss(params), loss)


def valley() -> Problem:
    """A curved valley in the manner of Rosenbrock's, but of curvatures below 15 where it starts.

    It is (1 - x)^2 + (y - x^2)^2, with its minimum, 0, at (1, 1); it is not convex.
    """

    def loss(params: Any) -> jax.Array:
        x, y = params["x"], params["y"]
        value: jax.Array = jnp.sum((1 - x) ** 2 + (y - x**2) ** 2)
        return value

    start = {"x": jnp.asarray([2.0, 1.8]), "y": jnp.asarray([0.4, 0.3])}
    return Problem("valley", start, lambda params, step: loss(params), loss)


def stochastic_least_squares() -> Problem:
    """Linear regression on 32 noisy examples, 8 of them at each step."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(32, 4)).astype(np.float32)
    outputs = inputs @ np.array([2.0, 1.0, -1.5, 0.5], np.float32) + 3.0
    outputs += 0.1 * rng.normal(size=32).astype(np.float32)
    x, y = jnp.asarray(inputs), jnp.asarray(outputs)

    def mean_squares(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        value: jax.Array = 0.5 * jnp.mean((x @ params["w"] + params["b"] - y) ** 2)
        return value

    def loss(params: Any, step: jax.Array) -> jax.Array:
        batch = [jax.lax.dynamic_slice_in_dim(z, (8 * step) % 32, 8) for z in (x, y)]
        return mean_squares(params, batch[0], batch[1])

    start = {"w": jnp.full(4, 0.2), "b": jnp.asarray(0.5)}
    return Problem("stochastic least squares", start, loss, lambda p: mean_squares(p, x, y))


def minimise(
    problem: Problem, tx: GradientTransformation, extra_names: Sequence[str] = ()
) -> tuple[float, float]:
    """The loss of a problem before and after its steps.

    Args:
      problem: The problem.
      tx: A transformation that turns gradients into steps.
      extra_names: The extra arguments that its ``update`` needs, of ``value``, ``grad`` and
        ``value_fn``: the loss at this step, its gradient, and the loss as a function.

    Returns:
      The loss over all data, first and last.

    Example:
      >>> import grad_core
      >>> from grad_testing.problems import minimise, quadratic
      >>> before, after = minimise(quadratic(), grad_core.scale(-0.1))
      >>> after < 0.01 * before
      True
    """

    def step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        params, state = carry

        def value_fn(params: Any) -> jax.Array:
            return problem.loss(params, i)

        value, gradients = jax.value_and_grad(value_fn)(params)
        known = {"value": value, "grad": gradients, "value_fn": value_fn}
        extra_args = {name: known[name] for name in extra_names}
        update: Any = tx.update
        updates, state = update(gradients, state, params, **extra_args)
        return (apply_updates(params, updates), state), None

    @jax.jit
    def run(params: Any) -> Any:
        carry = params, tx.init(params)
        (params, _), _ = jax.lax.scan(step, carry, jnp.arange(problem.steps))
        return params

    before = problem.full_loss(problem.start)
    return float(before), float(problem.full_loss(run(problem.start)))
