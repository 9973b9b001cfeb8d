"""L-BFGS and line searches: the first steps of minimisations."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from parity.cases import Bound, Family, call, case, find
from parity.coverage import public
from parity.problem import compiled_quickly

STEPS = 6
STARTS = {0.0: (-1.2, 1.0, -0.5, 0.8), 1.0: (2.0, -1.0, 0.5, 3.0)}


def names() -> Iterable[str]:
    """The transformations of grad-second-order, and what looks into their states."""
    import grad_second_order
    from grad_core import is_factory

    return public(
        grad_second_order, lambda name, x: is_factory(x) or name == "value_and_grad_from_state"
    )


def value(params: Any, share: Any = 0.0) -> jax.Array:
    """A chain of Rosenbrock's functions, of which a convex function of fourth degree has a share.

    As an extra argument of ``update`` the share must be an array.
    """
    x = jnp.concatenate([params["a"], params["b"][0][None], params["b"][1]])
    banana = jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    quartic = jnp.sum((x - 1) ** 4) + 0.5 * jnp.sum(jnp.arange(1, 5, dtype=x.dtype) * x**2)
    total: jax.Array = banana + share * (quartic - banana)
    return total


def minimise(bound: Bound, dtype: str) -> dict[str, Any]:
    """Runs a transformation: the updates of some steps, and what its state knows after the last.

    Line searches alone follow the gradient, a direction alone gets a line search.

    Args:
      bound: The call that makes the transformation, or of `value_and_grad_from_state`.
      dtype: The dtype of parameters and gradients.
    """
    label = bound.function.__name__
    value_and_grad = find("value_and_grad_from_state")(value)
    if label == "value_and_grad_from_state":
        value_and_grad, tx = bound(), find("lbfgs")()
    elif "linesearch" in label:
        tx = find("chain")(find("scale")(-1.0), bound())
    elif label == "scale_by_lbfgs":
        tx = find("chain")(bound(), find("scale")(-1.0), find("scale_by_zoom_linesearch")(20))
    else:
        tx = bound()
    searches = find("tree.get")(tx.init(jnp.zeros(2)), "grad") is not None

    def step(carry: Any, _: None, share: float) -> tuple[Any, Any]:
        params, state = carry
        known = functools.partial(value_and_grad, state=state)
        evaluate = known if searches else jax.value_and_grad(value)
        f, g = evaluate(params, share=share)
        updates, state = find("with_extra_args_support")(tx).update(
            g, state, params, value=f, grad=g, value_fn=value, share=share
        )
        rate = find("tree.get")(state, "info", jnp.zeros([]))
        return (find("apply_updates")(params, updates), state), (updates, f, rate)

    @functools.partial(jax.jit, compiler_options=compiled_quickly())
    def run(starts: Any) -> Any:
        return {
            share: jax.lax.scan(
                functools.partial(step, share=share), (start, tx.init(start)), length=STEPS
            )[1]
            for share, start in starts.items()
        }

    starts = {share: jnp.asarray(x, dtype) for share, x in STARTS.items()}
    trees = {share: {"a": x[:2], "b": [x[2], x[3:]]} for share, x in starts.items()}
    return run(trees)  # type: ignore[no-any-return]


def zoom(*args: object, **kwargs: object) -> Any:
    """A line search by zooming, as an argument."""
    return call("scale_by_zoom_linesearch", *args, **kwargs)


CASES = [
    case("scale_by_lbfgs"),
    case("scale_by_lbfgs", 2),
    case("scale_by_lbfgs", 3, scale_init_precond=False),
    case("lbfgs"),
    case("lbfgs", memory_size=2, scale_init_precond=False),
    case("lbfgs", 0.5, 3, linesearch=zoom(9, max_learning_rate=5.0, increase_factor=3.0)),
    case("lbfgs", 0.01, linesearch=None),
    case("scale_by_zoom_linesearch", 20),
    case(
        "scale_by_zoom_linesearch",
        25,
        max_learning_rate=0.01,
        increase_factor=4.0,
        approx_dec_rtol=None,
        initial_guess_strategy="one",
    ),
    case("scale_by_zoom_linesearch", 25, tol=1e-3, slope_rtol=1e-3, curv_rtol=0.2, verbose=True),
    case("scale_by_zoom_linesearch", 12, stepsize_precision=1e-2),
    case("scale_by_backtracking_linesearch", 60, store_grad=True),
    case(
        "scale_by_backtracking_linesearch",
        40,
        slope_rtol=0.3,
        decrease_factor=0.5,
        increase_factor=1.0,
        verbose=True,
    ),
    case("scale_by_backtracking_linesearch", 40, max_learning_rate=0.1, atol=0.1, rtol=0.01),
    case("value_and_grad_from_state", value),
]

FAMILY = Family(
    names,
    CASES,
    minimise,
    settings=1,
)
