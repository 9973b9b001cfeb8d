"""What all optimizers with second moments keep, beyond what the conformance suite asks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_optimizers as ours

GRADS = np.random.default_rng(0).normal(size=(3, 5))


class Family(NamedTuple):
    """A family's direction and alias, its state, and settings to try it at.

    Attributes:
      direction: The ``scale_by_*``.
      alias: The optimizer.
      parts: How many states the alias chains.
      fields: The fields of the state.
      second_moments: Those of them that are second moments.
      end_points: Settings at which zero gradients give zero.
      at: Numbers to differentiate by, at a gradient of zero.
      turned: Settings at which updates turn with complex gradients.
    """

    direction: Callable[..., Any]
    alias: Callable[..., Any]
    state: str
    fields: Sequence[str]
    end_points: Sequence[Mapping[str, float]]
    second_moments: Sequence[str] = ("nu",)
    parts: int = 2
    at: Mapping[str, float] = {"b1": 0.9, "b2": 0.99, "eps": 1e-3}
    turned: Mapping[str, float] = {}


BETAS = ({"b1": 0.0, "b2": 0.0}, {"b1": 1.0, "b2": 1.0})
MOMENTS = ("count", "mu", "nu")
FAMILIES = [
    Family(
        ours.scale_by_belief,
        ours.adabelief,
        "ScaleByBeliefState",
        MOMENTS,
        [{}, {"eps": 0.0, "eps_root": 0.0}, {"b1": 0.0, "eps": 0.1}, {"b1": 1.0, "b2": 1.0}],
    ),
    Family(
        ours.scale_by_adadelta,
        ours.adadelta,
        "ScaleByAdaDeltaState",
        ("e_g", "e_x"),
        [{}, {"eps": 0.0}, {"rho": 0.0}, {"rho": 1.0}],
        second_moments=("e_g", "e_x"),
        parts=3,
        at={"rho": 0.9, "eps": 1e-3},
    ),
    Family(
        ours.scale_by_rss,
        ours.adagrad,
        "ScaleByRssState",
        ("sum_of_squares",),
        [{}, {"eps": 0.0}, {"eps": 0.0, "initial_accumulator_value": 0.0}],
        second_moments=("sum_of_squares",),
        at={"initial_accumulator_value": 0.0, "eps": 1e-3},
    ),
    Family(
        ours.scale_by_adamax,
        ours.adamax,
        "ScaleByAdamState",
        MOMENTS,
        [{}, {"eps": 0.0}, *BETAS],
    ),
    Family(
        ours.scale_by_adan,
        ours.adan,
        "ScaleByAdanState",
        ("m", "v", "n", "g", "t"),
        [{}, {"eps": 0.0, "eps_root": 0.0}, *({**betas, "b3": betas["b1"]} for betas in BETAS)],
        second_moments=("n",),
        parts=3,
    ),
    Family(
        ours.scale_by_amsgrad,
        ours.amsgrad,
        "ScaleByAmsgradState",
        (*MOMENTS, "nu_max"),
        [{}, {"eps": 0.0}, *BETAS],
        second_moments=("nu", "nu_max"),
    ),
    Family(
        ours.scale_by_novograd,
        ours.novograd,
        "ScaleByNovogradState",
        MOMENTS,
        [{}, {"eps": 0.0}, BETAS[0], {**BETAS[1], "eps": 0.1}],
    ),
    Family(
        ours.scale_by_radam, ours.radam, "ScaleByAdamState", MOMENTS, [{}, {"eps": 0.0}, *BETAS]
    ),
    Family(
        ours.scale_by_yogi,
        ours.yogi,
        "ScaleByAdamState",
        MOMENTS,
        [
            {"initial_accumulator_value": 0.0, "b1": b, "b2": b, "eps": e}
            for b in (0.9, 0.0, 1.0)
            for e in (1e-3, 0.0)
        ],
        turned={"initial_accumulator_value": 0.0},
    ),
]
over_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.alias.__name__)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        pytest.param(family, settings, id=f"{family.alias.__name__}-{i}")
        for family in FAMILIES
        for i, settings in enumerate(family.end_points)
    ],
)
def test_zero_gradients_give_zero(family, settings, dtype):
    zeros = jnp.zeros(3, dtype)
    tx = family.direction(**settings)
    state = tx.init(zeros)
    for _ in range(2):
        updates, state = tx.update(zeros, state, zeros)
        assert updates.dtype == dtype
        assert (updates == 0).all()
        assert jnp.isfinite(tx.update(zeros + 1, state, zeros)[0]).all()


@over_families
def test_the_state_is_the_released_ones(family):
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    state = family.direction().init(params)
    assert type(state).__name__ == family.state
    assert state._fields == tuple(family.fields)
    narrow = family.direction(nu_dtype=jnp.bfloat16).init(params)
    for field in family.second_moments:
        assert {x.dtype for x in jax.tree.leaves(getattr(state, field))} == {np.dtype("float32")}
        assert getattr(narrow, field)["w"].dtype == jnp.bfloat16
    assert len(family.alias(0.1).init(params)) == family.parts


@over_families
def test_complex_gradients_turn_like_real_ones(family):
    g, turn = jnp.asarray(GRADS, jnp.float32), np.complex64(0.6 + 0.8j)
    tx = family.direction(**family.turned)
    params = jnp.zeros(5)
    real, turned = tx.init(params), tx.init(params.astype(jnp.complex64))
    for row in g:
        u, real = tx.update(row, real, params)
        v, turned = tx.update(row * turn, turned, params.astype(jnp.complex64))
        np.testing.assert_allclose(v, u * turn, rtol=2e-5, atol=1e-6)


@over_families
def test_gradients_with_respect_to_numbers_are_finite_at_zero(family):
    def total(numbers):
        tx = family.direction(**numbers)
        zeros = jnp.zeros(2)
        state = tx.init(zeros)
        for _ in range(2):
            updates, state = tx.update(zeros, state, zeros)
        return jnp.sum(updates)

    for value in jax.grad(total)(dict(family.at)).values():
        assert jnp.isfinite(value)
