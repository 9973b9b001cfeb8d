"""Parity with torch.optim, whose results tools/torch_parity.py recorded.

For each of torch's optimizers, the function of its name here turns its arguments into ours, and so
says, where conventions differ, what torch's would be in ours. In all of torch's, `weight_decay` is
L2's, added to the gradient, unless it is called decoupled; and `maximize` turns the gradient before
that, so that decay still shrinks the parameters, which a negative learning rate would not do.
"""

import functools
import itertools
import json
import math
import os
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_optimizers as ours
from grad_core import (
    GradientTransformation,
    add_decayed_weights,
    apply_updates,
    chain,
    clip_by_block_rms,
    identity,
    scale,
    scale_by_learning_rate,
    scale_by_param_block_rms,
    scale_by_schedule,
    trace,
)

# `tools/torch_parity.py --check` names another one, written just now.
RECORDING = os.environ.get("TORCH_RECORDING") or Path(__file__).with_name("recorded") / "torch.npz"
with np.load(RECORDING) as recording:
    ARRAYS = dict(recording)
ABOUT = json.loads(str(ARRAYS["about"]))
TOLERANCE = {"float64": 1e-13, "float32": 2e-6}  # the parameters are of the size of 1


def at_each_step(make):
    """``make(t)`` at the t-th update: numbers that change, where the states stay alike.

    It is what `grad_schedules.inject_hyperparams` does with schedules for them.
    """

    def update(updates, state, params=None):
        t, inner = state
        updates, inner = make(t).update(updates, inner, params)
        return updates, (t + 1, inner)

    return GradientTransformation(lambda params: (1, make(1).init(params)), update)


def mixture(weights, *transformations):
    """The sum of what transformations make of the same updates, times ``weights(t)``."""

    def init(params):
        return 1, [tx.init(params) for tx in transformations]

    def update(updates, state, params=None):
        t, inner = state
        pairs = [
            tx.update(updates, s, params) for tx, s in zip(transformations, inner, strict=True)
        ]
        total = jax.tree.map(
            lambda *us: sum(w * u for w, u in zip(weights(t), us, strict=True)),
            *[u for u, _ in pairs],
        )
        return total, (t + 1, [s for _, s in pairs])

    return GradientTransformation(init, update)


def sgd(a):
    """The first sum is g in torch whatever the dampening, which then multiplies g by 1 - d."""
    dampened = scale_by_schedule(lambda count: jnp.where(count == 0, 1.0, 1 - a.dampening))
    return chain(
        add_decayed_weights(a.weight_decay),
        dampened if a.dampening else identity(),
        ours.sgd(a.lr, a.momentum or None, a.nesterov),
    )


def adam(a):
    return chain(add_decayed_weights(a.weight_decay), adam_without_decay(a))


def adam_without_decay(a):
    """torch's AMSGrad takes the maximum first, and corrects it then; ours as in `amsgrad`.

    With c = sqrt(1 - b2^t), m_hat / (sqrt(max v) / c + eps) = c m_hat / (sqrt(max v) + c eps).
    """
    if not a.amsgrad:
        return ours.adam(a.lr, *a.betas, a.eps)

    def amsgrad(t):
        c = math.sqrt(1 - a.betas[1] ** t)
        return ours.amsgrad(c * a.lr, *a.betas, c * a.eps, bias_correction_nu=False)

    return at_each_step(amsgrad)


def adamw(a):
    """The learning rate multiplies the decay, scheduled or not, in both."""
    if not a.amsgrad:
        return ours.adamw(a.lr, *a.betas, a.eps, weight_decay=a.weight_decay)
    return chain(adam_without_decay(a), add_decayed_weights(-a.lr * a.weight_decay))


def rmsprop(a):
    """eps is outside the root in torch, the moments begin at 0, as by default in ours.

    torch's momentum sums directions, which today's learning rate multiplies; ours sums steps, each
    with the rate of its own time. That is the same until the rate changes.
    """
    numbers = {"decay": a.alpha, "eps": a.eps, "eps_in_sqrt": False}
    l2 = add_decayed_weights(a.weight_decay)
    if not callable(a.lr):
        momentum = a.momentum or None
        return chain(l2, ours.rmsprop(a.lr, **numbers, centered=a.centered, momentum=momentum))
    scaling = ours.scale_by_stddev if a.centered else ours.scale_by_rms
    return chain(l2, scaling(**numbers), trace(a.momentum), scale_by_learning_rate(a.lr))


def adagrad(a):
    """eps is outside the root in torch: g / (sqrt(s) + eps) = (g / sqrt(s)) / (1 + eps / sqrt(s)).

    Its sum begins at 0 by default, ours at 0.1. `lr_decay` is a schedule in ours.
    """
    directions = ours.scale_by_rss(a.initial_accumulator_value, eps=0.0)

    def update(updates, state, params=None):
        updates, state = directions.update(updates, state, params)
        roots = jax.tree.map(jnp.sqrt, state.sum_of_squares)
        return jax.tree.map(lambda u, r: u / (1 + a.eps / r), updates, roots), state

    rate = (lambda count: a.lr / (1 + a.lr_decay * count)) if a.lr_decay else a.lr
    l2 = add_decayed_weights(a.weight_decay)
    if a.eps == 0:
        return chain(l2, ours.adagrad(rate, a.initial_accumulator_value, eps=0.0))
    return chain(l2, GradientTransformation(directions.init, update), scale_by_learning_rate(rate))


def adadelta(a):
    return ours.adadelta(a.lr, a.rho, a.eps, a.weight_decay)


def adamax(a):
    return chain(add_decayed_weights(a.weight_decay), ours.adamax(a.lr, *a.betas, a.eps))


def nadam(a):
    """torch's momentum rises to b1: mu_t = b1 (1 - 0.96^(psi t) / 2), psi its `momentum_decay`.

    Ours is b1 from the first step on, as torch's with a large psi. Otherwise, with the products
    P_t = mu_1 ... mu_t in the place of b1^t, torch's direction is

        mu_{t+1} m_t / (1 - P_{t+1}) + (1 - mu_t) g_t / (1 - P_t),

    over Adam's root, and each of the terms is Adam's direction, the second one without momentum.
    """
    (b1, b2), psi = a.betas, a.momentum_decay
    l2 = add_decayed_weights(0.0 if a.decoupled_weight_decay else a.weight_decay)
    decay = a.weight_decay if a.decoupled_weight_decay else 0.0
    if psi == 1e5:
        return chain(l2, ours.nadamw(a.lr, b1, b2, a.eps, weight_decay=decay))

    def mu(t):
        return b1 * (1 - 0.96 ** (psi * t) / 2)

    def weights(t):
        *_, product, following = itertools.accumulate(map(mu, range(1, t + 2)), float.__mul__)
        return mu(t + 1) * (1 - b1**t) / (1 - following), (1 - mu(t)) / (1 - product)

    return chain(
        l2,
        mixture(weights, ours.scale_by_adam(b1, b2, a.eps), ours.scale_by_adam(0.0, b2, a.eps)),
        add_decayed_weights(decay),
        scale_by_learning_rate(a.lr),
    )


def radam(a):
    """torch corrects sqrt(v) + eps, not v: its eps is eps / sqrt(1 - b2^t) in ours.

    torch trusts the second moment where rho > 5, ours where rho >= 5; none is 5 here.
    """
    l2 = add_decayed_weights(0.0 if a.decoupled_weight_decay else a.weight_decay)
    decay = a.weight_decay if a.decoupled_weight_decay else 0.0
    return chain(
        l2,
        at_each_step(
            lambda t: ours.scale_by_radam(*a.betas, a.eps / math.sqrt(1 - a.betas[1] ** t))
        ),
        add_decayed_weights(decay),
        scale_by_learning_rate(a.lr),
    )


def rprop(a):
    """torch clips the first step size too, ours only those that change. Both are iRprop-:

    where the sign changes, the number stays, and the next gradient counts as the first.
    """
    least, most = a.step_sizes
    return ours.rprop(min(max(a.lr, least), most), *a.etas, least, most)


def adafactor(a):
    """torch's step is of the size min(lr, 1 / sqrt(t)), a schedule in ours.

    Its decay is decoupled and a multiple of lr itself; ours is not. Its first
    eps is a floor of estimates, where ours is added to squares: neither matters here, where
    squares are far above both. Its second one is the parameters' least root mean square, 1e-3 in
    our alias. It factors every matrix, ours those of at least `min_dim_size_to_factor`; in arrays
    of more axes it factors the last two, ours the two longest: see the test below.
    """

    def rate(count):
        return jnp.minimum(a.lr, 1 / jnp.sqrt(count + 1.0))

    numbers = {"min_dim_size_to_factor": 1, "decay_rate": -a.beta2_decay}
    if a.eps[1] == 1e-3:
        return ours.adafactor(
            rate, **numbers, clipping_threshold=a.d, weight_decay_rate=a.lr * a.weight_decay
        )
    return chain(
        ours.scale_by_factored_rms(**numbers),
        clip_by_block_rms(a.d),
        scale_by_learning_rate(rate),
        scale_by_param_block_rms(min_scale=a.eps[1]),
    )


TRANSLATIONS = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Rprop": rprop,
    "Adafactor": adafactor,
}


def translated(name):
    """A recorded case in ours."""
    case = ABOUT["cases"][name]
    a = types.SimpleNamespace(**case["arguments"])
    if case["gamma"] != 1:
        first = a.lr
        a.lr = lambda count: first * case["gamma"] ** count
    return chain(scale(-1.0 if a.maximize else 1.0), TRANSLATIONS[case["optimizer"]](a))


def leaves(numbers, dtype):
    """The leaves that were flattened for the recording."""
    sizes = [math.prod(shape) for shape in ABOUT["shapes"]]
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return [
        jnp.asarray(part.reshape(shape), dtype)
        for part, shape in zip(parts, ABOUT["shapes"], strict=True)
    ]


def trajectory(tx, params, gradients):
    """The parameters after each of the updates."""
    state = tx.init(params)
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        params = apply_updates(params, updates)
        yield params


@functools.cache
def problem(dtype):
    """The first parameters, and the gradients of every step."""
    return leaves(ARRAYS["params"], dtype), [leaves(row, dtype) for row in ARRAYS["gradients"]]


def recorded(name, dtype):
    """torch's parameters, by step."""
    i = list(ABOUT["cases"]).index(name)
    return dict(zip(ABOUT["steps"], ARRAYS[dtype][i], strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ABOUT["cases"])
def test_parameters_are_torchs(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        steps = list(trajectory(translated(name), *problem(dtype)))
        assert len(steps) >= 20
        for t, theirs in recorded(name, dtype).items():
            found = np.concatenate([np.ravel(leaf) for leaf in steps[t - 1]])
            assert found.dtype == theirs.dtype == dtype
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(found, theirs, rtol=tolerance, atol=tolerance)


def test_every_optimizer_is_recorded():
    assert {case["optimizer"] for case in ABOUT["cases"].values()} == set(TRANSLATIONS)


def test_adafactor_factors_the_longest_axes():
    """Of shape (4, 3, 2), ours are the first two: torch's of shape (2, 3, 4), transposed."""
    name, dtype = "adafactor-relative", "float64"
    with jax.enable_x64(True):
        params, gradients = problem(dtype)
        transposed = (params[-1].T, [grads[-1].T for grads in gradients])
        *_, last = trajectory(translated(name), *transposed)
        theirs = leaves(recorded(name, dtype)[len(gradients)], dtype)
        np.testing.assert_allclose(last, theirs[-1].T, rtol=1e-13, atol=1e-13)
