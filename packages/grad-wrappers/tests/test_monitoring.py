"""Measurements of updates, for logging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import GradientTransformationExtraArgs, chain, clip_by_global_norm, global_norm
from grad_core import tree as gt
from grad_wrappers import measure_with_ema, monitor, snapshot

PARAMS = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}


def test_norms_before_and_after_clipping():
    tx = chain(
        snapshot("before", global_norm), clip_by_global_norm(1.0), snapshot("after", global_norm)
    )
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    assert float(gt.get(state, "before")) == 5
    np.testing.assert_allclose(gt.get(state, "after"), 1, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 0.8, rtol=1e-6)


def test_snapshot_measures_the_parameters_first():
    assert float(snapshot("norm", global_norm).init(PARAMS).measurement["norm"]) == 5


def test_monitor_measures_everything():
    measures = {
        "norm": global_norm,
        "tree": lambda u: {"b": u["b"], "both": (u["a"].sum(), 1)},
        "slow": measure_with_ema(lambda u: u["b"], 0.5),
        "raw": measure_with_ema(lambda u: u["b"], 0.5, debias=False),
    }
    tx = monitor(measures)
    state = tx.init(PARAMS)
    assert not any(x.any() for x in jax.tree.leaves(state.measurements))
    for b in (4.0, 1.0):
        updates, state = tx.update({**PARAMS, "b": jnp.array(b)}, state, PARAMS)
    assert updates["b"] == 1
    found = state.measurements
    np.testing.assert_allclose(found["norm"], np.sqrt(10), rtol=1e-6)
    np.testing.assert_allclose(jax.tree.leaves(found["tree"]), [1, 3, 1])
    np.testing.assert_allclose(found["slow"], (0.25 * 4 + 0.5 * 1) / 0.75, rtol=1e-6)
    np.testing.assert_allclose(found["raw"], 0.25 * 4 + 0.5 * 1, rtol=1e-6)
    assert [type(s).__name__ for s in state.measure_states] == ["EmptyState"] * 2 + ["tuple"] * 2


@pytest.mark.parametrize("make", [lambda m: snapshot("m", m), lambda m: monitor({"m": m})])
def test_measures_are_called_with_concrete_values(make):
    """Outside jit they may do what Python can; inside, they are traced, and states are carries."""
    seen = []

    def concrete(updates):
        seen.append(float(updates["b"]))
        return len(seen)

    tx = make(concrete)
    _, state = tx.update(PARAMS, tx.init(PARAMS))
    assert seen[-1] == 4
    assert isinstance(jax.tree.leaves(state)[0], jax.Array)

    tx = make(lambda u: {"norm": global_norm(u), "weak": 1.0})
    state = tx.init(PARAMS)
    last = jax.lax.scan(lambda s, _: (tx.update(PARAMS, s)[1], None), state, length=3)[0]
    assert jax.tree.map(jax.typeof, last) == jax.tree.map(jax.typeof, state)
    gt.map_params(tx, lambda x: x, last)


def test_leaves_without_updates_are_none_to_measures():
    seen = []
    tx = monitor({"m": lambda u: seen.append(u["b"]) or u["a"].sum()})
    state = tx.init(PARAMS)
    gradients = {**PARAMS, "b": np.zeros((), jax.dtypes.float0)}
    updates, _ = tx.update(gradients, state, PARAMS)
    assert seen[-1] is None
    assert updates["b"] is gradients["b"]


def test_transformations_are_measures():
    """They get the parameters and extra arguments."""

    def update(updates, state, params=None, **extra_args):
        return extra_args.get("value", 0.0) + params["b"], state + 1

    tx = monitor({"m": GradientTransformationExtraArgs(lambda params: jnp.array(0), update)})
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=2.0)
    assert state.measurements["m"] == 6
    assert state.measure_states == (1,)


def test_the_average_has_its_dtype():
    tx = measure_with_ema(lambda u: u["b"], 0.9, accumulator_dtype=jnp.bfloat16)
    assert tx.init(PARAMS)[1].ema.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: snapshot("norm", 3), "snapshot: the measure 'norm' must be a function"),
        (lambda: monitor({"norm": 3}), "monitor: the measure 'norm' must be a function"),
        (lambda: monitor(global_norm), "monitor: measures must be a dict"),
        (lambda: measure_with_ema(3, 0.9), "measure_with_ema: the measure 'measure' must be a fu"),
    ],
)
def test_bad_measures_are_refused(make, text):
    with pytest.raises(TypeError, match=text):
        make()
