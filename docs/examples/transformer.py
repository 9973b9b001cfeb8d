"""Trains a small transformer to continue text, on one device or on many, and draws how it went.

The text is the reference of the language that ships inside Python, some 370,000 characters; any
other file will do (--text). The model is a decoder in plain JAX: rotary attention, norms without
parameters. The recipe is Muon for its matrices and AdamW for embedding and head, clipped, with
learning rates that warm up and then follow a cosine.

All arrays live on a mesh with the axes `data` and `model`, if only of one device. Batches are split
over `data`; parameters over `data`, by features (as in FSDP), and over `model`, by heads or hidden
units; and what the optimizer keeps for a parameter, like it, by `optax.state_sharding`.

Run it from the repository, with nothing but Python and pip; with `--devices 8`, on as many, which
a CPU can play:

    python -m pip install uv && python -m uv run --locked docs/examples/transformer.py
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from tqdm import trange

import optax
from optax.contrib import MuonDimensionNumbers

matplotlib.use("Agg")
import matplotlib.pyplot as plt

P = PartitionSpec
Params = dict[str, dict[str, jax.Array]]
Step = Callable[[Params, optax.OptState, Any], tuple[Params, optax.OptState, jax.Array]]

CHARACTERS = 256  # of text as bytes
CONTEXT = 64
BATCH = 32
SAMPLE = 300
WARMUP = 20

# How each parameter is split: by features over `data`, by heads or hidden units over `model`.
SPECS = {
    "embedding": P("model", "data"),
    "query": P("data", "model", None),
    "key": P("data", "model", None),
    "value": P("data", "model", None),
    "out": P("model", None, "data"),
    "up": P("data", "model"),
    "down": P("model", "data"),
    "kernel": P("data", "model"),
}
# What Muon takes for a matrix: its axes of inputs, and of outputs. The rest is AdamW's.
MATRICES = {
    "query": MuonDimensionNumbers(0, (1, 2)),
    "key": MuonDimensionNumbers(0, (1, 2)),
    "value": MuonDimensionNumbers(0, (1, 2)),
    "out": MuonDimensionNumbers((0, 1), 2),
    "up": MuonDimensionNumbers(0, 1),
    "down": MuonDimensionNumbers(0, 1),
}


def init_params(key: jax.Array, layers: int = 2, width: int = 128, heads: int = 4) -> Params:
    """Parameters by the layer and by name; each of variance 1 over its number of inputs."""
    size = width // heads
    projection, hidden = (width, heads, size), 4 * width
    shapes = {
        "query": (width, projection),
        "key": (width, projection),
        "value": (width, projection),
        "out": (width, (heads, size, width)),
        "up": (width, (width, hidden)),
        "down": (hidden, (hidden, width)),
    }
    model = {
        "tokens": {"embedding": (1, (CHARACTERS, width))},
        **{f"block{i}": shapes for i in range(layers)},
        "head": {"kernel": (width, (width, CHARACTERS))},
    }
    return {
        layer: {
            name: jax.random.normal(jax.random.fold_in(key, 100 * i + j), shape) / inputs**0.5
            for j, (name, (inputs, shape)) in enumerate(entries.items())
        }
        for i, (layer, entries) in enumerate(model.items())
    }


def by_name(table: dict[str, Any], params: Params) -> Any:
    """A tree like the parameters, of what a table has for their names; None where it has none."""
    return {layer: {name: table.get(name) for name in entries} for layer, entries in params.items()}


def split(*axes: str | None) -> PartitionSpec | None:
    """How a result is split, on meshes with explicit axes; on others, XLA decides.

    Parameters enter by products and look-ups that say so of their results. Thus the model does not
    care how the parameters themselves are split, or whether at all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Explicit not in mesh.axis_types:
        return None
    return P(*(axis if axis in mesh.axis_names else None for axis in axes))


def normalized(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def rotated(x: jax.Array) -> jax.Array:
    """Features of shape (batch, time, heads, size), turned in pairs by angles that grow in time."""
    _, time, _, size = x.shape
    frequencies = 1e-3 ** jnp.linspace(0, 1, size // 2)
    angles = (jnp.arange(time)[:, None] * frequencies)[:, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attention(block: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """What each place gathers from itself and those before it."""
    by_heads = split("data", None, "model", None)
    query, key, value = (
        jnp.einsum("btd,dhk->bthk", x, block[name], out_sharding=by_heads)
        for name in ("query", "key", "value")
    )
    query, key = rotated(normalized(query)), rotated(normalized(key))
    scores = jnp.einsum(
        "bqhk,bthk->bhqt", query, key, out_sharding=split("data", "model", None, None)
    )
    earlier = jnp.tri(x.shape[1], dtype=bool)
    weights = jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhqt,bthk->bqhk", weights, value, out_sharding=by_heads)
    return jnp.einsum("bqhk,hkd->bqd", mixed, block["out"], out_sharding=split("data", None, None))


def feed_forward(block: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    up = jnp.einsum("btd,df->btf", x, block["up"], out_sharding=split("data", None, "model"))
    hidden = jnp.square(jax.nn.relu(up))
    return jnp.einsum("btf,fd->btd", hidden, block["down"], out_sharding=split("data", None, None))


def predict(params: Params, tokens: jax.Array) -> jax.Array:
    """Logits of the next character at each place, of shape (batch, time, CHARACTERS)."""
    table = params["tokens"]["embedding"]
    x = normalized(table.at[tokens].get(out_sharding=split("data", None, None)))
    for i in range(len(params) - 2):
        block = params[f"block{i}"]
        x = x + attention(block, normalized(x))
        x = x + feed_forward(block, normalized(x))
    kernel = params["head"]["kernel"]
    return jnp.einsum(
        "btd,dc->btc", normalized(x), kernel, out_sharding=split("data", None, "model")
    )


def loss_fn(params: Params, tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy in nats of all characters but the first of each row of `tokens`."""
    logits = predict(params, tokens[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


def train_step(optimizer: optax.GradientTransformation) -> Step:
    """A step of training, from parameters, state and batch to those that follow, and the loss."""

    def step(
        params: Params, state: optax.OptState, tokens: jax.Array
    ) -> tuple[Params, optax.OptState, jax.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def recipe(steps: int) -> optax.GradientTransformation:
    def schedule(peak: float) -> optax.Schedule:
        warmup = min(WARMUP, steps // 2)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            schedule(0.05),
            adam_learning_rate=schedule(0.02),
            muon_weight_dimension_numbers=lambda params: by_name(MATRICES, params),
        ),
    )


def read(path: Path | None) -> np.ndarray:
    """The characters of a file; or of the reference of Python, each paragraph once."""
    if path is not None:
        text = path.read_bytes()
    else:
        paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
        text = "\n\n".join(dict.fromkeys(paragraphs)).encode()
    return np.frombuffer(text, np.uint8).astype(np.int32)


def make_mesh(devices: int, explicit: bool) -> jax.sharding.Mesh:
    """A mesh of so many devices, two of them along `model` if there are several."""
    kind = AxisType.Explicit if explicit else AxisType.Auto
    grid = np.array(jax.devices()[:devices]).reshape(-1, min(devices, 2))
    return jax.sharding.Mesh(grid, ("data", "model"), axis_types=(kind, kind))


def train(text: np.ndarray, steps: int, progress: bool) -> tuple[Params, list[float]]:
    """Trains for `steps` steps, on the mesh of `jax.set_mesh`; returns parameters and losses."""
    optimizer = recipe(steps)
    key = jax.random.key(0)
    shapes = jax.eval_shape(init_params, key)
    specs = by_name(SPECS, shapes)
    of_state = optax.state_sharding(optimizer, shapes, specs)

    params = jax.jit(init_params, out_shardings=specs)(key)
    state = jax.jit(optimizer.init, out_shardings=of_state)(params)
    step = jax.jit(
        train_step(optimizer), donate_argnums=(0, 1), out_shardings=(specs, of_state, P())
    )

    losses = []
    rng = np.random.default_rng(0)
    with trange(steps, desc="training", disable=not progress, file=sys.stdout) as bar:
        for i in bar:
            starts = rng.integers(len(text) - CONTEXT, size=BATCH)
            batch = text[starts[:, None] + np.arange(CONTEXT + 1)]
            params, state, loss = step(params, state, jax.device_put(batch, P("data")))
            losses.append(float(loss))
            if i % 10 == 0:
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return params, losses


def windows(text: np.ndarray) -> np.ndarray:
    """Pieces of the text one after another, each with the character that follows it."""
    count = (len(text) - 1) // CONTEXT
    return text[np.arange(count)[:, None] * CONTEXT + np.arange(CONTEXT + 1)]


@jax.jit
def bits(params: Params, pieces: jax.Array) -> jax.Array:
    """Bits per character of pieces of text."""
    losses = jax.lax.map(lambda piece: loss_fn(params, piece[None]), pieces, batch_size=BATCH)
    return jnp.mean(losses) / jnp.log(2)


def bigram_bits(text: np.ndarray, pieces: np.ndarray) -> float:
    """Bits per character of pieces, by how often one character followed another in a text."""
    counts = np.full((CHARACTERS, CHARACTERS), 0.01)
    np.add.at(counts, (text[:-1], text[1:]), 1)
    chances = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(chances[pieces[:, :-1], pieces[:, 1:]]).mean())


@jax.jit
def continued(params: Params, start: jax.Array, key: jax.Array) -> jax.Array:
    """SAMPLE characters, drawn one after another from the model, after CONTEXT that are given."""

    def extend(i: jax.Array, text: jax.Array) -> jax.Array:
        seen = jax.lax.dynamic_slice(text, (i,), (CONTEXT,))
        logits = predict(params, seen[None])[0, -1]
        drawn = jax.random.categorical(jax.random.fold_in(key, i), logits / 0.7)
        return text.at[i + CONTEXT].set(drawn)

    text = jnp.concatenate([start, jnp.zeros(SAMPLE, start.dtype)])
    return jax.lax.fori_loop(0, SAMPLE, extend, text)[CONTEXT:]


def draw(losses: list[float], bigram: float, reached: float, path: Path) -> None:
    """Writes a picture of the loss, step by step."""
    in_bits = np.array(losses) / np.log(2)
    fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    ax.plot(in_bits, color="tab:blue", label="each batch")
    ax.axhline(bigram, color="tab:gray", linestyle="--", label="pairs counted, held-out text")
    ax.axhline(reached, color="tab:orange", label="transformer at last, held-out text")
    ax.set(xlabel="step", ylabel="bits per character")
    ax.legend()
    ax.set_title("A small transformer, Muon for matrices and AdamW for the rest")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Trains, draws, prints; returns bits per held-out character, and those of counted pairs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument("--text", type=Path, help="a file to learn (default: Python's reference)")
    parser.add_argument("--devices", type=int, default=1, help="how many to train on (default: 1)")
    parser.add_argument("--explicit", action="store_true", help="shardings as part of types")
    parser.add_argument("--out", type=Path, default=Path("out/transformer.png"), help="the picture")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    args = parser.parse_args(argv)
    if args.steps < 10:
        parser.error(f"--steps must be at least 10; got {args.steps}")
    if args.devices not in (1, 2, 4, 8, 16, 32, 64):
        parser.error(f"--devices must be a power of two, 64 at most; got {args.devices}")
    try:
        text = read(args.text)
    except OSError as error:
        parser.error(f"--text cannot be read: {error}")
    if len(text) < 30 * CONTEXT:
        parser.error(f"--text must have at least {30 * CONTEXT} characters; got {len(text)}")
    if args.devices > 1:
        with contextlib.suppress(RuntimeError):  # too late once JAX runs
            jax.config.update("jax_num_cpu_devices", args.devices)
    if len(jax.devices()) < args.devices:
        parser.error(f"--devices {args.devices} are more than the {len(jax.devices())} there are")

    text, held_out = np.split(text, [9 * len(text) // 10])
    pieces = windows(held_out)
    with jax.set_mesh(make_mesh(args.devices, args.explicit)):
        params, losses = train(text, args.steps, progress=not args.no_progress)
    params = jax.device_get(params)
    reached, bigram = float(bits(params, pieces)), bigram_bits(text, pieces)
    draw(losses, bigram, reached, args.out)
    sample = continued(params, pieces[1, :CONTEXT], jax.random.key(1))
    print(f"held-out text: {reached:.3f} bits per character; by counted pairs: {bigram:.3f}")
    print(f"what it writes:\n{bytes(np.array(sample, np.uint8)).decode(errors='replace')}")
    print(f"picture of the loss: {args.out}")
    return reached, bigram


if __name__ == "__main__":
    main()
