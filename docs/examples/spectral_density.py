"""Draws the density of the eigenvalues of a network's Hessian, before and after some training.

The network has 50,860 parameters, so that its Hessian has 2.6 billion entries. None is ever
computed: 32 products with random vectors, by Lanczos's method, tell where the eigenvalues are.
Nearly all are close to zero; about as many as there are classes stand apart.

    python docs/examples/spectral_density.py
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_digits

from grad_second_order import SpectralDensity, hessian_operator, spectral_density

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Params = dict[str, jax.Array]

HIDDEN = 678  # (64 + 1) * 678 + (678 + 1) * 10 = 50,860 parameters


def init_params(key: jax.Array) -> Params:
    keys = jax.random.split(key)
    return {
        "w1": jax.random.normal(keys[0], (64, HIDDEN)) / 8,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(keys[1], (HIDDEN, 10)) / jnp.sqrt(HIDDEN),
        "b2": jnp.zeros(10),
    }


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = jnp.tanh(images @ params["w1"] + params["b1"])
    log_p = jax.nn.log_softmax(hidden @ params["w2"] + params["b2"])
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


@jax.jit
def train(params: Params, images: jax.Array, labels: jax.Array) -> Params:
    """A hundred steps of gradient descent."""

    def step(params: Params, _: None) -> tuple[Params, None]:
        grads = jax.grad(loss_fn)(params, images, labels)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), None

    return jax.lax.scan(step, params, length=100)[0]


@jax.jit
def hessian_density(params: Params, images: jax.Array, labels: jax.Array) -> SpectralDensity:
    product = hessian_operator(loss_fn, params, images, labels)
    return spectral_density(product, params, jax.random.key(1), num_steps=16, num_probes=2)


def draw(densities: dict[str, SpectralDensity], path: Path) -> None:
    fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    for label, found in densities.items():
        ax.semilogy(found.grid, np.maximum(found.density, 1e-12), label=label)
    ax.set(xlabel="eigenvalue", ylabel="density", ylim=(1e-7, None))
    ax.set_title("Eigenvalues of the Hessian of a network on handwritten digits")
    ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> dict[str, SpectralDensity]:
    """Trains, finds the densities, draws and prints; returns the densities."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/spectral_density.png"))
    args = parser.parse_args(argv)

    images, labels = load_digits(return_X_y=True)
    batch = jnp.asarray(images[:256] / 16, jnp.float32), jnp.asarray(labels[:256])
    before = init_params(jax.random.key(0))
    densities = {
        "before training": hessian_density(before, *batch),
        "after 100 steps": hessian_density(train(before, *batch), *batch),
    }
    draw(densities, args.out)
    size = sum(x.size for x in before.values())
    for label, found in densities.items():
        low, high = float(jnp.min(found.nodes)), float(jnp.max(found.nodes))
        print(f"{label}: {size:,} eigenvalues from {low:.3f} to {high:.3f}")
    print(f"picture of their density: {args.out}")
    return densities


if __name__ == "__main__":
    main()
