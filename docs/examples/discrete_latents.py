"""Trains a model with binary latent variables on handwritten digits, with several estimators.

Each of 1,797 scanned digits of 8 x 8 black or white pixels (they ship inside scikit-learn) is
explained by 20 coins, which a network guesses from the image. Model and network maximize the
evidence lower bound, the mean over all images of

    E[log p(image | coins) + log p(coins)] + entropy of the guess.

No derivative passes through a coin, so the gradient of the expectation has to be estimated. All
estimators start alike, and may evaluate the model four times per image (REBAR does three times).
The picture shows how each of them fares, and the variances of their gradients, all at the same
places: on the way of the one that is trained with the leave-one-out baseline.

    python docs/examples/discrete_latents.py
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_digits

import grad_estimators as ge
import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Net = dict[str, jax.Array]

LATENTS, HIDDEN, PIXELS = 20, 64, 64
BATCH = 64


class Params(NamedTuple):
    """Of the network that guesses coins from images, and of the model of images from coins."""

    guess: Net
    model: Net


def digits() -> jax.Array:
    """Images of shape (1797, 64), of pixels 0 and 1."""
    images, _ = load_digits(return_X_y=True)
    return jnp.asarray(images > 7.5, jnp.float32)


def init_params(key: jax.Array, images: jax.Array) -> Params:
    keys = jax.random.split(key, 3)
    mean = jnp.clip(images.mean(0), 0.02, 0.98)
    guess = {
        "w1": jax.random.normal(keys[0], (PIXELS, HIDDEN)) / 8,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(keys[1], (HIDDEN, LATENTS)) / 8,
        "b2": jnp.zeros(LATENTS),
    }
    model = {
        "prior": jnp.zeros(LATENTS),
        "w": jax.random.normal(keys[2], (LATENTS, PIXELS)) / 8,
        "b": jnp.log(mean) - jnp.log1p(-mean),
    }
    return Params(guess, model)


def guess(net: Net, image: jax.Array):
    """The distribution of the coins, given the image."""
    import distrax  # takes seconds

    hidden = jnp.tanh((image - 0.5) @ net["w1"] + net["b1"])
    return distrax.Bernoulli(logits=hidden @ net["w2"] + net["b2"])


def log_bernoulli(x: jax.Array, logits: jax.Array) -> jax.Array:
    """Linear in x, so that x may be relaxed, too."""
    return jnp.sum(x * logits - jax.nn.softplus(logits))


def log_joint(net: Net, image: jax.Array, coins: jax.Array) -> jax.Array:
    """log p(image | coins) + log p(coins)."""
    log_prior = log_bernoulli(coins, net["prior"])
    return log_prior + log_bernoulli(image, (2 * coins - 1) @ net["w"] + net["b"])


ESTIMATORS = {
    "score function": partial(ge.score_function_surrogate, num_samples=4),
    "leave-one-out baseline": partial(ge.rloo_surrogate, num_samples=4),
    "ARM": partial(ge.arm_surrogate, num_samples=2),
    "DisARM": partial(ge.disarm_surrogate, num_samples=2),
    "REBAR": partial(ge.rebar_surrogate, num_samples=1),
    "straight-through (biased)": partial(ge.straight_through_surrogate, num_samples=4),
    "Gumbel-softmax (biased)": partial(ge.gumbel_softmax_surrogate, num_samples=4),
}


def bound(estimator, params: Params, images: jax.Array, key: jax.Array) -> jax.Array:
    """The mean bound over the images; its gradient is what the estimator makes of it."""

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        f = partial(log_joint, params.model, image)
        expected = estimator(f, [params.guess], partial(guess, image=image), key)
        return expected + jnp.sum(guess(params.guess, image).entropy())

    return jnp.mean(jax.vmap(one)(images, jax.random.split(key, len(images))))


@partial(jax.jit, static_argnames=("name", "num_steps", "num_places"))
def train(name: str, params: Params, images: jax.Array, num_steps: int, num_places: int) -> Params:
    """The parameters at places evenly spread over the training, from the first to the last."""
    optimizer = optax.adam(3e-3)

    def loss(params: Params, batch: jax.Array, key: jax.Array) -> jax.Array:
        return -bound(ESTIMATORS[name], params, batch, key)

    def step(carry, key):
        params, state = carry
        pick, key = jax.random.split(key)
        batch = images[jax.random.randint(pick, (BATCH,), 0, len(images))]
        updates, state = optimizer.update(jax.grad(loss)(params, batch, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    def stretch(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, carry[0]

    keys = jax.random.split(jax.random.key(1), (num_places, num_steps // num_places))
    _, places = jax.lax.scan(stretch, (params, optimizer.init(params)), keys)
    return jax.tree.map(lambda x, more: jnp.concatenate([x[None], more]), params, places)


@jax.jit
def bounds(places: Params, images: jax.Array) -> jax.Array:
    """The bound over all images, with samples that are discrete whatever it was trained with."""
    estimator = partial(ge.score_function_surrogate, num_samples=4)
    return jax.lax.map(lambda params: bound(estimator, params, images, jax.random.key(2)), places)


@partial(jax.jit, static_argnames=("name", "repeats"))
def variances(name: str, places: Params, images: jax.Array, repeats: int) -> jax.Array:
    """The variance of the gradient for one batch, summed over the weights of the guess."""

    def one(params: Params) -> jax.Array:
        def gradient(key: jax.Array) -> Net:
            return jax.grad(bound, 1)(ESTIMATORS[name], params, images[:BATCH], key).guess

        grads = jax.vmap(gradient)(jax.random.split(jax.random.key(3), repeats))
        return sum(jnp.sum(jnp.var(x, axis=0)) for x in grads.values())

    return jax.lax.map(one, places)


def draw(steps: np.ndarray, found: dict[str, tuple[jax.Array, jax.Array]], path: Path) -> None:
    """Writes a picture of the bounds and of the variances, step by step."""
    fig, (top, bottom) = plt.subplots(2, sharex=True, figsize=(8, 9), layout="constrained")
    for name, (reached, variance) in found.items():
        top.plot(steps, reached, marker=".", label=name)
        bottom.semilogy(steps, variance, marker=".", label=name)
    top.set(ylabel="ELBO, nats per image")
    top.legend()
    bottom.set(xlabel="step", ylabel="variance of the gradient")
    fig.suptitle(f"Handwritten digits explained by {LATENTS} coins")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Trains, compares, draws and prints; returns bounds and variances, by estimator."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--places", type=int, default=10, help="where to compare (default: 10)")
    parser.add_argument("--repeats", type=int, default=50, help="gradients for each variance")
    parser.add_argument("--out", type=Path, default=Path("out/discrete_latents.png"))
    args = parser.parse_args(argv)
    if args.places < 1 or args.steps < args.places or args.steps % args.places:
        parser.error(f"--steps must be a multiple of --places; got {args.steps}, {args.places}")

    images = digits()
    first = init_params(jax.random.key(0), images)
    trained = {name: train(name, first, images, args.steps, args.places) for name in ESTIMATORS}
    found = {
        name: (
            bounds(places, images),
            variances(name, trained["leave-one-out baseline"], images, args.repeats),
        )
        for name, places in trained.items()
    }
    draw(np.linspace(0, args.steps, args.places + 1), found, args.out)
    for name, (reached, variance) in found.items():
        print(f"{name}: ELBO {reached[-1]:.2f} nats, variance of the gradient {variance[-1]:.3g}")
    print(f"picture of bounds and variances: {args.out}")
    return found


if __name__ == "__main__":
    main()
