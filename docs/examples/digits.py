"""Trains a small classifier on real handwritten digits, and draws how it went.

The data, 1,797 scanned digits of 8 x 8 pixels, ship inside scikit-learn. The recipe is the usual
one: a learning rate that warms up and then follows a cosine, gradients clipped by their global
norm, AdamW with weight decay on kernels and none on biases.

Run it from the repository, with nothing but Python and pip:

    python -m pip install uv && python -m uv run --locked docs/examples/digits.py
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import trange

import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Layer = dict[str, jax.Array]
Params = dict[str, Layer]

BATCH = 64
WARMUP = 100
PEAK = 3e-3


class Data(NamedTuple):
    """Images of shape (examples, 64), from 0 to 1, and their labels, from 0 to 9."""

    images: jax.Array
    labels: jax.Array


def digits() -> tuple[Data, Data]:
    """The training data, and a quarter held out for the test."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels)
    train_x, test_x, train_y, test_y = map(jnp.asarray, parts)
    return Data(train_x, train_y), Data(test_x, test_y)


def init_params(key: jax.Array, sizes: tuple[int, ...] = (64, 256, 10)) -> Params:
    """A network of dense layers; kernels by He's rule, biases zero."""
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        f"dense{i}": {
            "kernel": jax.random.normal(k, (n, m)) * jnp.sqrt(2 / n),
            "bias": jnp.zeros(m),
        }
        for i, (k, n, m) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    }


def predict(params: Params, images: jax.Array) -> jax.Array:
    """Logits of shape (examples, 10)."""
    *hidden, last = params.values()
    x = images
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def loss_fn(params: Params, batch: Data) -> jax.Array:
    logits = predict(params, batch.images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))


def accuracy(params: Params, data: Data) -> float:
    return float(jnp.mean(jnp.argmax(predict(params, data.images), axis=-1) == data.labels))


def train(
    train_data: Data, steps: int, progress: bool
) -> tuple[Params, list[float], optax.Schedule]:
    """Trains for `steps` steps; returns the parameters, the losses and the schedule."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=PEAK, warmup_steps=min(WARMUP, steps // 2), decay_steps=steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=0.1, mask=r".*/kernel"),
    )
    params = init_params(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def step(
        params: Params, state: optax.OptState, batch: Data
    ) -> tuple[Params, optax.OptState, jax.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    rng = np.random.default_rng(0)
    with trange(steps, desc="training", disable=not progress, file=sys.stdout) as bar:
        for i in bar:
            picked = rng.integers(len(train_data.labels), size=BATCH)
            params, state, loss = step(params, state, Data(*(x[picked] for x in train_data)))
            losses.append(float(loss))
            if i % 50 == 0:
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return params, losses, schedule


def draw(losses: list[float], schedule: optax.Schedule, path: Path) -> None:
    """Writes a picture of the loss and of the learning rate, step by step."""
    steps = np.arange(len(losses))
    fig, (top, bottom) = plt.subplots(2, sharex=True, figsize=(8, 6), layout="constrained")
    top.semilogy(steps, losses, color="tab:blue", alpha=0.3, label="loss of each batch")
    smooth = np.convolve(losses, np.ones(25) / 25, mode="valid")
    top.semilogy(steps[len(steps) - len(smooth) :], smooth, color="tab:blue", label="mean of 25")
    top.set_ylabel("cross-entropy, nats")
    top.legend()
    bottom.plot(steps, [float(schedule(int(step))) for step in steps], color="tab:orange")
    bottom.set(xlabel="step", ylabel="learning rate")
    fig.suptitle("Handwritten digits, clipped AdamW with warmup and cosine decay")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> float:
    """Trains, draws, prints; returns the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default: 1500)")
    parser.add_argument("--out", type=Path, default=Path("out/digits.png"), help="the picture")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    args = parser.parse_args(argv)
    if args.steps < 50:
        parser.error(f"--steps must be at least 50; got {args.steps}")

    train_data, test_data = digits()
    params, losses, schedule = train(train_data, args.steps, progress=not args.no_progress)
    draw(losses, schedule, args.out)
    result = accuracy(params, test_data)
    print(f"test accuracy: {result:.4f} on {len(test_data.labels)} digits never trained on")
    print(f"picture of loss and learning rate: {args.out}")
    return result


if __name__ == "__main__":
    main()
