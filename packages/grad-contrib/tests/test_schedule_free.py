"""Schedule-free learning against the algorithm, and its parameters for evaluation."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from grad_core import apply_updates, chain, clip, identity, masked, partition, scale
from grad_optimizers import sgd
from grad_schedules import inject_hyperparams
from grad_wrappers import MultiSteps, apply_if_finite, flatten

CURVATURE = np.array([0.5, 1.0, 2.0, 4.0])
START = np.array([1.0, -2.0, 3.0, 0.5])


def rising(count):
    return 0.3 * jnp.minimum(count + 1, 4) / 4


def paper(steps, rate, b1, r, direction):
    """Algorithm 1 in float64, with x and z kept; returns x and y of each step."""
    x = z = y = START
    total = largest = 0.0
    for t in range(steps):
        lr = float(rate(t)) if callable(rate) else rate
        z = z - lr * direction(t, y)
        largest = max(largest, abs(lr))
        total += largest**r
        c = largest**r / total if total else 0.0
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x
        yield x, y


def run(tx, steps, params=None):
    """Parameters of evaluation and of training after each step."""
    params = jnp.asarray(START, jnp.float32) if params is None else params
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jax.tree.map(lambda p: CURVATURE * p, params), state, params)
        params = apply_updates(params, updates)
        yield schedule_free_eval_params(state, params), params


@pytest.mark.parametrize("rate", [0.2, -0.02, rising])
@pytest.mark.parametrize(("b1", "power"), [(0.9, 2.0), (0.5, 0.0), (1.0, 1.0)])
def test_sgd_is_the_algorithm(rate, b1, power):
    expected = paper(12, rate, b1, power, lambda t, y: CURVATURE * y + 0.1 * y)
    tx = schedule_free_sgd(rate, b1=b1, weight_decay=0.1, weight_lr_power=power)
    for (x, y), (found_x, found_y) in zip(expected, run(tx, 12), strict=True):
        np.testing.assert_allclose(found_y, y, rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(found_x, x, rtol=5e-6, atol=5e-7)


def test_adamw_is_the_algorithm():
    v = np.zeros(4)

    def direction(t, y):
        nonlocal v
        v = 0.9 * v + 0.1 * (CURVATURE * y) ** 2
        return CURVATURE * y / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 1e-3) + 0.1 * y

    expected = paper(12, lambda t: 0.1 * min(t / 3, 1), 0.8, 2.0, direction)
    tx = schedule_free_adamw(0.1, 3, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.1)
    for (x, y), (found_x, found_y) in zip(expected, run(tx, 12), strict=True):
        np.testing.assert_allclose(found_y, y, rtol=2e-5)
        np.testing.assert_allclose(found_x, x, rtol=2e-5)


RECORDED = np.load(Path(__file__).with_name("recorded") / "torch-rules.npz")
ABOUT = json.loads(str(RECORDED["about"]))


def of_the_authors(name, *, lr, momentum=None, betas=None, warmup_steps=1, **arguments):
    """Our optimizer for the arguments of its authors' torch one, whose warm-up ends sooner."""
    if momentum is not None:
        arguments["b1"] = momentum
    if betas is not None:
        arguments["b1"], arguments["b2"] = betas

    def rate(count):
        return lr * jnp.minimum((count + 1.0) / warmup_steps, 1.0)

    is_sgd = name.startswith("schedule_free_sgd")
    return (schedule_free_sgd if is_sgd else schedule_free_adamw)(rate, **arguments)


@pytest.mark.parametrize("name", ABOUT["schedule_free"])
def test_parity_with_the_authors_torch_optimizers(name):
    """Both of trained parameters and of those to evaluate; tools/torch_contrib.py recorded them."""

    def step(carry, t):
        params, state = carry
        pairs = zip(params, ABOUT["target"], strict=True)
        grads = [(1 + 0.5 * jnp.sin(t)) * (p - jnp.asarray(x)) for p, x in pairs]
        updates, state = tx.update(grads, state, params)
        params = apply_updates(params, updates)
        both = [*params, *schedule_free_eval_params(state, params)]
        return (params, state), jnp.concatenate([p.ravel() for p in both])

    with jax.enable_x64(True):
        tx = of_the_authors(name, **ABOUT["schedule_free"][name])
        params = [jnp.asarray(leaf) for leaf in ABOUT["start"]]
        steps = jnp.arange(1.0, len(RECORDED[name]) + 1)
        _, found = jax.lax.scan(step, (params, tx.init(params)), steps)
    np.testing.assert_allclose(found, RECORDED[name], rtol=1e-12, atol=1e-13)


def test_the_first_update_uses_the_schedule_at_0():
    """With weights 1, 9 and 1, x is that mean of z, whose steps are of 1, 3 and 1 too."""
    rates = jnp.array([1.0, 3.0, 1.0])
    tx = schedule_free(scale(-1.0), lambda count: rates[count], b1=0.5, weight_lr_power=2.0)
    params = jnp.zeros([])
    state = tx.init(params)
    assert int(state.step_count) == 1  # as in checkpoints of the released library
    for expected in (-1.0, (-1 - 9 * 2) / 10, (-1 - 9 * 2 - 9 * 3) / 19):
        updates, state = tx.update(jnp.ones([]), state, params)
        params = apply_updates(params, updates)
        np.testing.assert_allclose(schedule_free_eval_params(state, params), expected, rtol=1e-6)
    assert float(state.weight_sum) == 19.0
    assert float(state.max_lr) == 3.0


def test_rising_b1_leaves_the_mean_alone():
    """The y that was made with one b1 gives the right x when the next is made with another."""
    schedules = {"b1": lambda count: 0.2 + 0.1 * count}
    tx = inject_hyperparams(lambda b1: schedule_free(scale(-1.0), 1.0, b1))(**schedules)
    params = jnp.zeros([])
    state = tx.init(params)
    for t in range(1, 6):
        updates, state = tx.update(jnp.ones([]), state, params)
        params = apply_updates(params, updates)
        x = -(t + 1) / 2  # the mean of -1, -2, ..., -t
        np.testing.assert_allclose(schedule_free_eval_params(state, params), x, rtol=1e-5)
        b1 = 0.2 + 0.1 * (t - 1)
        np.testing.assert_allclose(params, (1 - b1) * -t + b1 * x, rtol=1e-5)


def test_without_b1_it_is_the_base_optimizer():
    base, params = sgd(0.1), jnp.asarray(START, jnp.float32)
    plain = params
    for x, y in run(schedule_free(base, 0.1, b1=0.0), 3):
        plain = plain - 0.1 * CURVATURE * plain
        np.testing.assert_allclose(y, plain, rtol=1e-6)
        np.testing.assert_allclose(x, plain, rtol=1e-6)


WRAPPERS = {
    "chain": lambda tx: chain(clip(100.0), chain(tx, identity())),
    "MultiSteps": lambda tx: MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: apply_if_finite(tx, 3),
    "partition": lambda tx: partition({"a": tx, "b": tx}, {"a": "a", "b": "b"}),
    "masked": lambda tx: chain(
        masked(tx, {"a": True, "b": False}), masked(tx, {"a": False, "b": True})
    ),
    "flatten": flatten,
    "injection": lambda tx: inject_hyperparams(schedule_free_sgd)(0.1),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_eval_params_are_found_in_any_wrapper(wrapper):
    params = {"a": jnp.asarray(START, jnp.float32), "b": jnp.asarray(2 * START, jnp.float32)}
    tx = schedule_free_sgd(0.1)
    expected, found = (list(run(each, 3, params))[-1] for each in (tx, WRAPPERS[wrapper](tx)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_accumulated_steps_count_once():
    params = jnp.asarray(START, jnp.float32)
    twice = list(run(MultiSteps(schedule_free_sgd(0.1), 2), 6, params))[1::2]
    for found, expected in zip(twice, run(schedule_free_sgd(0.1), 3, params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_eval_params_where_nothing_is_averaged_are_the_parameters():
    params = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16), "c": None}
    tx = masked(schedule_free_sgd(0.1), {"a": True, "b": False, "c": False})
    updates, state = tx.update(params, tx.init(params), params)
    params = apply_updates(params, updates)
    evaluated = jax.jit(schedule_free_eval_params)(state, params)
    assert jax.tree.structure(evaluated) == jax.tree.structure(params)
    assert evaluated["b"].dtype == jnp.bfloat16
    assert (evaluated["a"] < 1).all()
    assert (evaluated["b"] == params["b"]).all()


def test_the_state_is_upstreams():
    params = {"w": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    state = schedule_free_adamw(0.1, state_dtype=jnp.float32).init(params)
    assert type(state) is ScheduleFreeState
    assert state._fields == (
        *("b1", "weight_sum", "step_count", "max_lr", "base_optimizer_state", "z"),
    )
    assert (state.z["w"].dtype, state.z["c"].dtype) == (jnp.float32, jnp.complex64)
    assert schedule_free_sgd().init(params).z["w"].dtype == jnp.bfloat16
    assert state.b1.dtype == state.weight_sum.dtype == jnp.float32
    assert len(state.base_optimizer_state) == 3


def test_a_float32_z_keeps_small_steps():
    params = jnp.ones(1, jnp.bfloat16)
    tx = schedule_free(scale(-1e-3), 1e-3, state_dtype=jnp.float32)
    step = jax.jit(lambda carry, _: (tx.update(jnp.ones(1, jnp.bfloat16), carry, params)[1], None))
    state, _ = jax.lax.scan(step, tx.init(params), length=500)
    np.testing.assert_allclose(state.z, 0.5, rtol=3e-3)  # a step is rounded to bfloat16


def test_bad_input():
    tx = schedule_free_sgd(0.1)
    state = tx.init({"w": jnp.ones(2)})
    texts = {
        "this state holds none of schedule_free": (sgd(0.1).init(1.0), 1.0),
        "params must have the structure": (state, {"v": jnp.ones(2)}),
        "there are 2 schedule-free states for params['w']": ((state, state), {"w": jnp.ones(2)}),
    }
    for text, args in texts.items():
        with pytest.raises(ValueError, match=f"^schedule_free_eval_params: {re.escape(text)}"):
            schedule_free_eval_params(*args)
    for factory in (schedule_free_sgd, schedule_free_adamw):
        with pytest.raises(ValueError, match=rf"^{factory.__name__}: warmup_steps must be None"):
            factory(rising, warmup_steps=3)
        with pytest.raises(TypeError, match=rf"^{factory.__name__}: warmup_steps must be an integ"):
            factory(0.1, warmup_steps=0.5)
    with pytest.raises(ValueError, match=r"^schedule_free: b1 must be in \[0, 1\]; got 1\.5"):
        schedule_free(sgd(0.1), 0.1, b1=1.5)
    with pytest.raises(ValueError, match=r"^schedule_free: weight_lr_power must be >= 0; got -1"):
        schedule_free(sgd(0.1), 0.1, weight_lr_power=-1)
    with pytest.raises(ValueError, match=r"params\['w'\] has shape \(3,\)"):
        tx.update({"w": jnp.ones(2)}, state, {"w": jnp.ones(3)})
