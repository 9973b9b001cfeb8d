"""Contributed wrappers, and optimizers that need more than gradients."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import jax
import jax.numpy as jnp

from parity.cases import Bound, Case, Family, call, case, find
from parity.coverage import public
from parity.parts import NARROW, falling, matrices, warmed
from parity.problem import CURVATURE, descend

# Rows of docs/differences.md.
SCHEDULED = "`schedule_free` with a schedule that rises"

SGD = call("sgd", 0.1)
ADAM = call("adam", 0.1, eps=1e-3)
ASCENT = call("chain", call("contrib.normalize"), call("sgd", 0.5))
MOMENTUM = call("sgd", 0.1, momentum=0.5)

PREFIXES = (
    "differentially_private_aggregate",
    "dpsgd",
    "hutchinson_estimator_diag_hessian",
    "mechanize",
    "normalize",
    "reduce_on_plateau",
    "sam",
    "schedule_free",
    "sophia",
    "split_real_and_imaginary",
)


def names() -> Iterable[str]:
    """The names of these factories, below ``optax``."""
    import grad_contrib
    from grad_core import is_factory

    def suits(name: str, value: Any) -> bool:
        return is_factory(value) and name.startswith(PREFIXES)

    return public(grad_contrib, suits, "contrib.")


def of_examples(tx: Any) -> Any:
    """Makes gradients of three examples of each."""

    def update(g: Any, state: Any, params: Any = None, **_: Any) -> Any:
        three = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -0.2 * x]), g)
        return tx.update(three, state, params)

    return tx._replace(update=update)


def of_complex_numbers(tx: Any) -> Any:
    """Makes complex numbers of parameters and gradients, and real ones of updates."""

    def turned(tree: Any) -> Any:
        return jax.tree.map(lambda x: x * (0.6 - 0.8j), tree)

    def update(g: Any, state: Any, params: Any, **_: Any) -> Any:
        updates, state = tx.update(turned(g), state, turned(params))
        return jax.tree.map(lambda u: u.real - u.imag, updates), state

    return tx._replace(init=lambda params: tx.init(turned(params)), update=update)


def without_loss(tx: Any) -> Any:
    """Passes no extra arguments, which the released `sam` refuses."""

    def update(g: Any, state: Any, params: Any, **_: Any) -> Any:
        return tx.update(g, state, params)

    return tx._replace(update=update)


def with_loss(tx: Any) -> Any:
    """Passes a loss whose Hessian is neither constant nor diagonal."""

    def loss(params: Any) -> Any:
        leaves = jax.tree.leaves(params)
        squares = sum(jnp.sum(CURVATURE / 2 * p**2 + 1e-4 * p**4) for p in leaves)
        return squares + 1e-3 * sum(jnp.sum(p) for p in leaves) ** 2

    def update(g: Any, state: Any, params: Any, **_: Any) -> Any:
        return tx.update(g, state, params, obj_fn=loss)

    return tx._replace(update=update)


def with_gradient(tx: Any) -> Any:
    """Passes a gradient function, along a mapped axis of length 1."""

    def update(g: Any, state: Any, params: Any, **_: Any) -> Any:
        def grad_fn(p: Any, i: Any) -> Any:
            return jax.tree.map(lambda x, p, q: x + (1 + i) * CURVATURE * (q - p), g, params, p)

        def step() -> Any:
            return tx.update(g, state, params, grad_fn=grad_fn)

        found = jax.vmap(step, axis_name="batch", axis_size=1)()
        return jax.tree.map(lambda x: x[0], found)

    return tx._replace(update=update)


def evaluated(tx: Any) -> Any:
    """Gives the parameters to evaluate in place of updates."""

    def update(g: Any, state: Any, params: Any, **_: Any) -> Any:
        _, state = tx.update(g, state, params)
        return find("contrib.schedule_free_eval_params")(state, params), state

    return tx._replace(update=update)


def probe(
    bound: Bound, dtype: str, *, through: Callable[[Any], Any] = lambda tx: tx, **options: Any
) -> Any:
    """`descend` with a transformation that needs more than gradients."""
    return descend(lambda: through(bound()), dtype, **options)  # type: ignore[arg-type]


SCHEDULE_FREE: list[Case] = [
    case("contrib.schedule_free", SGD, 0.1),
    case("contrib.schedule_free", ADAM, 0.1, b1=0.5, weight_lr_power=0.5).using(through=evaluated),
    case("contrib.schedule_free", SGD, 0.1, b1=0.8, state_dtype=jnp.float32).differs(
        NARROW, float64=1e-4
    ),
    case("contrib.schedule_free", call("sgd", falling), falling),
    case("contrib.schedule_free_sgd"),
    case("contrib.schedule_free_sgd", 0.5, 7, 0.5, 0.1, 1.0).differs(
        SCHEDULED, float32=0.5, float64=0.5
    ),
    case("contrib.schedule_free_sgd", 0.2, weight_decay=0.1, state_dtype=jnp.float32).differs(
        NARROW, float64=1e-5
    ),
    case("contrib.schedule_free_adamw", 0.1),
    case("contrib.schedule_free_adamw", 0.1, 5, b1=0.8, b2=0.9, eps=1e-3).differs(
        SCHEDULED, float32=inf, float64=0.5
    ),
    case(
        "contrib.schedule_free_adamw",
        0.1,
        weight_decay=0.1,
        weight_lr_power=1.0,
        state_dtype=jnp.float32,
    ).differs(NARROW, float64=1e-5),
]

# Far from the default of 1e-6, as the distances gone in the first steps are lost in rounding then.
WRAPPED: list[Case] = [
    case("contrib.mechanize", SGD, s_init=0.1),
    case("contrib.mechanize", MOMENTUM, 0.1, 1e-4, 0.5, 3),
    case("contrib.mechanize", call("sgd", falling), weight_decay=0.0, s_init=0.1, num_betas=2),
    case("contrib.sam", SGD, ASCENT).using(through=without_loss),
    case("contrib.sam", ADAM, MOMENTUM, sync_period=3, reset_state=False).using(
        through=without_loss
    ),
    case(
        "contrib.sam", call("sgd", falling), ASCENT, 3, opaque_mode=True, batch_axis_name="batch"
    ).using(through=with_gradient),
    case("contrib.split_real_and_imaginary", ADAM).using(through=of_complex_numbers),
    case("contrib.split_real_and_imaginary", call("lion", 0.1)).using(through=of_complex_numbers),
    case("contrib.split_real_and_imaginary", MOMENTUM),
    case("contrib.normalize").using(factor=-1.0),
    *(
        case("chain", each, call("contrib.reduce_on_plateau", **arguments))
        for each, arguments in (
            (SGD, {"patience": 2, "rtol": 0.1}),
            (ADAM, {"factor": 0.7, "patience": 1, "atol": 50.0, "cooldown": 2}),
            (SGD, {"patience": 1, "rtol": 0.2, "accumulation_size": 3, "min_scale": 0.05}),
        )
    ),
]

NEEDING_MORE: list[Case] = [
    case("contrib.differentially_private_aggregate", 1.0, 0.5, seed=3).using(factor=-1.0),
    case("contrib.differentially_private_aggregate", 0.3, 0.2, key=4).using(factor=-1.0),
    case("contrib.differentially_private_aggregate", 1e3, 0.0, key=call(jax.random.key, 7)).using(
        factor=-0.1
    ),
    case("contrib.dpsgd", 0.1, 1.0, 0.5, seed=3),
    case("contrib.dpsgd", falling, 0.5, 1.0, seed=4, momentum=0.9),
    case("contrib.dpsgd", 0.1, 10.0, 0.0, seed=5, momentum=0.5, nesterov=True),
    case("contrib.hutchinson_estimator_diag_hessian").using(factor=-0.1),
    case("contrib.hutchinson_estimator_diag_hessian", call(jax.random.key, 3)).using(factor=-0.1),
    case("contrib.hutchinson_estimator_diag_hessian", call(jax.random.PRNGKey, 5)).using(
        factor=0.1
    ),
    case("contrib.sophia", 0.1),
    case(
        "contrib.sophia", falling, 0.5, 0.9, 1e-3, 0.1, matrices, 1e3, 5.0, 3, mu_dtype=jnp.float32
    ),
    case(
        "contrib.sophia",
        warmed,
        gamma=500.0,
        hessian_diagonal_fn=call(
            "contrib.hutchinson_estimator_diag_hessian", call(jax.random.key, 3)
        ),
        verbose=True,
        print_win_rate_every_n_steps=100,
    ),
]

THROUGH = {
    "differentially_private_aggregate": of_examples,
    "dpsgd": of_examples,
    "hutchinson_estimator_diag_hessian": with_loss,
    "sophia": with_loss,
}


def _completed(each: Case) -> Case:
    """The case with what it needs."""
    return each.using(through=THROUGH[each.call.name.removeprefix("contrib.")])


CASES = [*SCHEDULE_FREE, *WRAPPED, *map(_completed, NEEDING_MORE)]
FAMILY = Family(names, CASES, probe)
