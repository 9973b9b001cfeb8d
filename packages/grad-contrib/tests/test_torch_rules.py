"""Parity with the authors' torch optimizers, whose results tools/torch_contrib.py recorded.

Prodigy, D-Adaptation and MoMo are their authors' own; the others are of pytorch-optimizer.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.ademamix import ademamix
from grad_contrib.adopt import adopt
from grad_contrib.dadapt import dadapt_adamw
from grad_contrib.madgrad import madgrad
from grad_contrib.momo import momo, momo_adam
from grad_contrib.prodigy import prodigy
from grad_core import apply_updates

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


def loss(params, t):
    targets = [jnp.asarray(leaf) for leaf in ABOUT["target"]]
    terms = [jnp.sum((p - x) ** 2) for p, x in zip(params, targets, strict=True)]
    return 3 + (1 + 0.5 * jnp.sin(t)) / 2 * sum(terms)


@pytest.mark.parametrize("name", ABOUT["cases"])
def test_parity(name):
    tx = optimizer_of(name, **ABOUT["cases"][name])

    def step(carry, t):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, t)
        extra = {"value": value} if name.startswith("momo") else {}
        updates, state = tx.update(grads, state, params, **extra)
        params = apply_updates(params, updates)
        return (params, state), jnp.concatenate([p.ravel() for p in params])

    expected = RECORDED[name]
    with jax.enable_x64(True):
        params = [jnp.asarray(leaf, jnp.float64) for leaf in ABOUT["start"]]
        steps = jnp.arange(1.0, len(expected) + 1)
        _, found = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), steps))(
            params
        )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
