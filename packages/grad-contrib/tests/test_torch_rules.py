"""Parity with torch's and the authors' optimizers, whose results tools/torch_contrib.py recorded.

Prodigy, D-Adaptation and MoMo are their authors' own, Muon is torch's; the others are of
pytorch-optimizer.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import MuonDimensionNumbers
from grad_contrib.ademamix import ademamix
from grad_contrib.adopt import adopt
from grad_contrib.dadapt import dadapt_adamw
from grad_contrib.madgrad import madgrad
from grad_contrib.momo import momo, momo_adam
from grad_contrib.muon import muon
from grad_contrib.prodigy import prodigy
from grad_core import apply_updates, tree

RECORDED = np.load(Path(__file__).with_name("recorded") / "torch-rules.npz")
ABOUT = json.loads(str(RECORDED["about"]))
OURS = {
    "lr": "learning_rate",
    "d0": "estim_lr0",
    "d_coef": "estim_lr_coef",
    "lb": "lower_bound",
    "use_fstar": "adapt_lower_bound",
}


def optimizer_of(name, *, lr=None, betas=None, weight_decouple=True, **arguments):
    """Our optimizer for torch's arguments."""
    families = (prodigy, dadapt_adamw, momo, momo_adam, ademamix, adopt, madgrad)
    family = name.partition("-")[0]
    factory = {each.__name__: each for each in families}[family]
    assert weight_decouple
    kwargs = {OURS.get(key, key): value for key, value in arguments.items()}
    if lr is not None:
        kwargs["learning_rate"] = lr
    if betas is not None and factory in (prodigy, dadapt_adamw):
        kwargs["betas"] = tuple(betas)
    elif betas is not None:
        kwargs |= {f"b{i}": b for i, b in enumerate(betas, start=1)}
    if factory is adopt:  # pytorch-optimizer counts the first gradient, which makes no step
        kwargs["clip_value_fn"] = lambda step: (step + 1.0) ** 0.25
    return factory(**kwargs)


def muon_of(
    *, lr, momentum=0.95, weight_decay=0.1, ns_coefficients=None, adjust_lr_fn=None, **arguments
):
    """Muon for torch's arguments, and torch's matrices, which map the second axis to the first."""
    if ns_coefficients is not None:
        arguments["ns_coeffs"] = tuple(ns_coefficients)
    return muon(
        lr,
        beta=momentum,
        eps=0.0,  # torch's counts for smaller norms only
        weight_decay=weight_decay,
        consistent_rms=0.2 if adjust_lr_fn == "match_rms_adamw" else None,
        muon_weight_dimension_numbers=MuonDimensionNumbers(1, 0),
        **arguments,
    )


def steps_of(tx, start, target, count, with_loss=False, updates_before=0):
    """The parameters after each of so many steps, in float64."""

    def loss(params, t):
        terms = [jnp.sum((p - x) ** 2) for p, x in zip(params, target, strict=True)]
        return 3 + (1 + 0.5 * jnp.sin(t)) / 2 * sum(terms)

    def step(carry, t):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, t)
        extra = {"value": value} if with_loss else {}
        updates, state = tx.update(grads, state, params, **extra)
        params = apply_updates(params, updates)
        return (params, state), jnp.concatenate([p.ravel() for p in params])

    with jax.enable_x64(True):
        target = [jnp.asarray(leaf, jnp.float64) for leaf in target]
        params = [jnp.asarray(leaf, jnp.float64) for leaf in start]
        state = tx.init(params)
        if updates_before:
            state = tree.set(state, count=jnp.asarray(updates_before, jnp.int32))
        steps = jnp.arange(1.0, count + 1)
        found = jax.jit(lambda *carry: jax.lax.scan(step, carry, steps)[1])(params, state)
    return np.asarray(found)


@pytest.mark.parametrize("name", ABOUT["cases"])
def test_parity(name):
    tx = optimizer_of(name, **ABOUT["cases"][name])
    expected = RECORDED[name]
    found = steps_of(
        tx, ABOUT["start"], ABOUT["target"], len(expected), with_loss=name.startswith("momo")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", ABOUT["muon"])
def test_muon(name, dtype):
    """torch does not correct the momentum for its start; after very many updates nor do we."""
    arguments = ABOUT["muon"][name]
    expected = RECORDED[name if dtype is None else f"{name}-{dtype}"]
    tx = muon_of(**arguments, ns_dtype=dtype)
    start, target = ABOUT["muon_start"], ABOUT["muon_target"]
    found = steps_of(tx, start, target, len(expected), updates_before=2**30)
    if dtype is None:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        return
    # Some twenty roundings a step, times what the most oblong matrix is multiplied by.
    bound = 20 * 2**-8 * 1.3 * arguments["lr"] * np.arange(1, len(expected) + 1)
    assert np.all(np.abs(found - expected).max(axis=1) < bound)
