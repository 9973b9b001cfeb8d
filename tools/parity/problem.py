r"""What transformations run on: trees of many shapes, and a noisy quadratic that moves them.

.. math::

    f_t(\theta) = \frac{h}{2} |\theta - \theta^*|^2 + \varepsilon_t \cdot \theta + c

It is made such that a difference is the rule's and not chance's. The minimum is far away, on the
side of 0 where the parameter starts, so that neither parameters nor mean gradients pass 0; where
one number is a leaf's all, the noise cannot turn its sign, since near 0 a relative difference says
nothing. Elsewhere signs do turn. Every constant is a float32, so that all dtypes meet the same
problem.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.cases import Bound, find

STEPS = 50
SHOWN = (1, 2, 10, 50)  # the steps whose updates are compared
CURVATURE = 0.03
LEAST = 10.0
SHAPES: dict[str, Any] = {
    "nested": {"scale": (), "dense": {"w": (3, 2), "b": (2,)}, "rest": [((2, 2, 2),)]},
    "matrix": (4, 3),
    "list": [(5,)],
    "vectors": [(3,), {"v": (2,)}],
}
TREES = ("nested", "matrix", "list")
WITHOUT_SCALARS = ("matrix", "vectors")  # for what the released library can do without them only


def of_shapes(make: Callable[[tuple[int, ...]], Any], shapes: Any) -> Any:
    """A tree of ``make(shape)``."""

    def is_shape(x: object) -> bool:
        return isinstance(x, tuple) and all(isinstance(n, int) for n in x)

    return jax.tree.map(make, shapes, is_leaf=is_shape)


class Problem:
    """The start, the minimum and the noise of a tree, in NumPy arrays."""

    def __init__(self, name: str, dtype: str) -> None:
        rng = np.random.default_rng(list(name.encode()))
        shapes = SHAPES[name]

        def cast(x: Any) -> np.ndarray[Any, Any]:
            return np.asarray(x, np.float32).astype(dtype)

        def noise(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
            if np.prod(shape) == 1:
                return cast(rng.uniform(-0.6, 0.6, (STEPS, *shape)))
            return cast(rng.standard_normal((STEPS, *shape)))

        sides = of_shapes(lambda shape: rng.choice([-1.0, 1.0], shape), shapes)
        self.start = jax.tree.map(lambda s: cast(s * rng.uniform(0.5, 1.5, s.shape)), sides)
        self.minimum = jax.tree.map(lambda s: cast(s * rng.uniform(30, 60, s.shape)), sides)
        self.noise = of_shapes(noise, shapes)

    def loss(self, params: Any, noise: Any) -> jax.Array:
        """The loss of one step."""

        def of_leaf(p: jax.Array, x: jax.Array, e: jax.Array) -> jax.Array:
            return jnp.sum(CURVATURE / 2 * (p - x) ** 2 + e * p)

        terms = jax.tree.map(of_leaf, params, self.minimum, noise)
        return jnp.sum(jnp.stack(jax.tree.leaves(terms))) + LEAST


@functools.cache
def compiled_quickly() -> dict[str, Any]:
    """Options of XLA that halve its time and do not touch the arithmetic, if it has them."""
    wanted = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}
    found = {}
    for name, value in wanted.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(jnp.negative, compiler_options={name: value})(1.0)
            found[name] = value
    return found


def descend(
    bound: Bound, dtype: str, *, factor: float = 1.0, trees: Iterable[str] = TREES
) -> dict[str, Any]:
    """Runs a transformation: updates of some steps, and the parameters after the last.

    Args:
      bound: The call that makes the transformation.
      dtype: The dtype of parameters and gradients.
      factor: What updates are multiplied by before they are applied; for a direction, which
        descends when subtracted, it is negative.
      trees: The names of the trees.
    """
    tx = find("with_extra_args_support")(bound())  # those who need no loss ignore it
    problems = {name: Problem(name, dtype) for name in trees}

    def step(carry: Any, noises: Any) -> tuple[Any, Any]:
        moved, shown = {}, {}
        for name, (params, state) in carry.items():
            noise = noises[name]
            value, grads = jax.value_and_grad(problems[name].loss)(params, noise)
            updates, state = tx.update(grads, state, params, value=value)
            scaled = jax.tree.map(lambda u: factor * u, updates)
            moved[name] = find("apply_updates")(params, scaled), state
            shown[name] = updates
        return moved, shown

    # All of it at once, as compiling takes longest.
    @functools.partial(jax.jit, compiler_options=compiled_quickly())
    def run(starts: Any, noises: Any) -> tuple[Any, Any]:
        carry = {name: (start, tx.init(start)) for name, start in starts.items()}
        return jax.lax.scan(step, carry, noises)

    starts = {name: each.start for name, each in problems.items()}
    last, updates = run(starts, {name: each.noise for name, each in problems.items()})
    shown = {f"update {t}": jax.tree.map(lambda u: u[t - 1], updates) for t in SHOWN}  # noqa: B023
    return {**shown, "params": {name: params for name, (params, _) in last.items()}}
