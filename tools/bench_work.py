"""What `bench.py` measures, in a process and an environment of its own: ours or the released one.

Usage: ``python bench_work.py WORK``; prints one JSON object, from metric to its list of samples.
Only names that both libraries have are used here, but by the works that run on our side alone.
"""

import functools
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Samples = dict[str, list[float]]
COMPARED = ("adamw", "nadamw", "lamb", "adabelief")  # outside jit, with the released library's


def gpt_shapes(blocks: int, width: int, vocabulary: int) -> dict[str, Any]:
    """The shapes of a GPT-like model's parameters: 4 leaves, and 12 more a block."""

    def block() -> dict[str, tuple[int, ...]]:
        return {
            "norm1/scale": (width,),
            "norm1/bias": (width,),
            "qkv/kernel": (width, 3 * width),
            "qkv/bias": (3 * width,),
            "out/kernel": (width, width),
            "out/bias": (width,),
            "norm2/scale": (width,),
            "norm2/bias": (width,),
            "up/kernel": (width, 4 * width),
            "up/bias": (4 * width,),
            "down/kernel": (4 * width, width),
            "down/bias": (width,),
        }

    return {
        "wte": (vocabulary, width),
        "wpe": (64, width),
        "norm": {"scale": (width,), "bias": (width,)},
        **{f"block{i}": block() for i in range(blocks)},
    }


def map_shapes(make: Callable[[tuple[int, ...]], Any], shapes: Any) -> Any:
    """`make(shape)` at every shape of a tree of dicts."""
    if isinstance(shapes, dict):
        return {name: map_shapes(make, below) for name, below in shapes.items()}
    return make(shapes)


def random_tree(shapes: Any, seed: int) -> Any:
    """A tree of normal float32 arrays."""
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(seed)
    return map_shapes(lambda shape: jnp.asarray(rng.standard_normal(shape, np.float32)), shapes)


def abstract_tree(shapes: Any, sharding: Any = None) -> Any:
    """A tree of float32 arrays that are but shapes."""
    import jax

    make = functools.partial(jax.ShapeDtypeStruct, dtype="float32", sharding=sharding)
    return map_shapes(make, shapes)


def recipe() -> Any:
    """The usual recipe: a global norm's clip, AdamW, warm-up and cosine."""
    import optax

    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))


def step_of(tx: Any, **extra: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """``step(params, state, grads)``: update and apply."""
    import optax

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


def time_call(call: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Seconds until the result is there, and the result."""
    import jax

    start = time.perf_counter()
    result = jax.block_until_ready(call(*args))  # type: ignore[no-untyped-call]
    return time.perf_counter() - start, result


def count_compilations(call: Callable[[], Any]) -> int:
    """The number of executables that XLA makes during a call."""
    import jax

    counted: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    call()
    return len(counted)


def small_problem() -> tuple[Any, Any]:
    """Parameters and gradients of 52 small leaves."""
    shapes = gpt_shapes(blocks=4, width=32, vocabulary=1000)
    return random_tree(shapes, 0), random_tree(shapes, 1)


def eager(repeats: int = 60) -> Samples:
    """AdamW outside `jit` on 52 small leaves, in ms; compilations of a second one."""
    import optax

    params, grads = small_problem()

    def both(tx: Any, state: Any) -> Any:
        return step_of(tx)(params, state, grads)

    tx = optax.adamw(1e-3)
    state = tx.init(params)
    samples: Samples = {"init ms": [], "update ms": [], "update + apply ms": []}
    for i in range(repeats + 5):
        times = [
            time_call(tx.init, params)[0],
            time_call(tx.update, grads, state, params)[0],
            time_call(both, tx, state)[0],
        ]
        if i >= 5:  # those before warm up
            for name, seconds in zip(samples, times, strict=True):
                samples[name].append(1e3 * seconds)

    def second() -> None:
        other = optax.adamw(3e-4)
        time_call(both, other, other.init(params))

    return {**samples, "compilations of a second adamw": [count_compilations(second)]}


def lower(repeats: int = 3) -> Samples:
    """Tracing and lowering the recipe's step on 580 leaves, in s, with nothing cached."""
    import jax

    params = abstract_tree(gpt_shapes(blocks=48, width=32, vocabulary=1000))
    state = jax.eval_shape(recipe().init, params)
    times = []
    for _ in range(repeats + 1):
        jax.clear_caches()  # type: ignore[no-untyped-call]
        gc.collect()
        step = step_of(recipe())
        start = time.perf_counter()
        jax.jit(step).trace(params, state, params).lower()
        times.append(time.perf_counter() - start)
    return {"trace + lower s": times[1:]}


def step(repeats: int = 20) -> Samples:
    """The compiled step on 27M parameters, in ms: plain AdamW and the recipe, by turns."""
    import jax

    import optax

    shapes = gpt_shapes(blocks=8, width=512, vocabulary=4096)
    grads = random_tree(shapes, 1)
    running: dict[str, Any] = {}
    for name, tx in {"adamw ms": optax.adamw(1e-3), "recipe ms": recipe()}.items():
        params = random_tree(shapes, 0)
        compiled = jax.jit(step_of(tx), donate_argnums=(0, 1))
        running[name] = (compiled, compiled(params, tx.init(params), grads))
    samples: Samples = {name: [] for name in running}
    for _ in range(repeats):
        for name, (compiled, carry) in running.items():
            seconds, carry = time_call(compiled, *carry, grads)
            running[name] = (compiled, carry)
            samples[name].append(1e3 * seconds)
    ratio = min(samples["recipe ms"]) / min(samples["adamw ms"])  # the least disturbed of each
    return {**samples, "recipe / adamw": [ratio]}


def import_of(package: str) -> Samples:
    """The import of a package after that of jax, in ms."""
    importlib.import_module("jax.numpy")
    start = time.perf_counter()
    importlib.import_module(package)
    return {f"import {package} ms": [1e3 * (time.perf_counter() - start)]}


def aliases() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Our optimizers, as their modules say to call them: name, transformation, extra arguments."""
    import grad_optimizers
    from grad_core import conformance_of, is_factory

    for name in grad_optimizers.__all__:
        factory = getattr(grad_optimizers, name)
        if is_factory(factory) and not name.startswith("scale_by_"):
            known = conformance_of(factory)
            yield name, factory(*known.args, **known.kwargs), dict(known.extra_args)


def optimizers(repeats: int = 40) -> Samples:
    """Every optimizer outside `jit` on 52 small leaves, in ms, and over its own `jit(update)`."""
    import jax

    params, grads = small_problem()
    samples: Samples = {}
    for name, tx, extra in aliases():
        state = tx.init(params)
        update = functools.partial(tx.update, **extra)
        calls: dict[str, Callable[..., Any]] = {"eager": update, "jitted": jax.jit(update)}
        times: Samples = {kind: [] for kind in calls}
        for i in range(repeats + 5):
            for kind, call in calls.items():
                seconds, _ = time_call(call, grads, state, params)
                if i >= 5:  # those before warm up
                    times[kind].append(1e3 * seconds)
        samples[f"{name} update ms"] = times["eager"]
        samples[f"{name} update / jitted"] = [min(times["eager"]) / min(times["jitted"])]
    return samples


def released_optimizers(repeats: int = 40) -> Samples:
    """The same of some of the released library's optimizers, outside `jit` only."""
    import optax

    params, grads = small_problem()
    samples: Samples = {}
    for name in COMPARED:
        tx = getattr(optax, name)(1e-2)
        state = tx.init(params)
        times = [time_call(tx.update, grads, state, params)[0] for _ in range(repeats + 5)]
        samples[f"{name} update ms"] = [1e3 * seconds for seconds in times[5:]]
    return samples


def lower_for_tpu(tx: Any, **extra: Any) -> tuple[Any, int]:
    """An optimizer's step on 27M parameters, lowered for a TPU; the fewest bytes it can move.

    Those are reads of parameters, gradients and statistics, writes of parameters and statistics.
    """
    import jax
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
    shapes = gpt_shapes(blocks=8, width=512, vocabulary=4096)
    params = abstract_tree(shapes, sharding)
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    state = jax.eval_shape(tx.init, abstract_tree(shapes))
    state = jax.tree.map(lambda x: placed(x.shape, x.dtype), state)
    step = step_of(tx, **extra)
    lowered = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, params).lower()
    return lowered, 3 * bytes_of(params) + 2 * bytes_of(state)


def bytes_of(tree: Any) -> int:
    """The bytes of a tree's arrays."""
    import jax

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


# XLA counts twice what it prefetches into the memory on the chip.
WITHOUT_PREFETCHING = {"xla_vf_vmem_memory_space_assignment": "false"}


def cost_on_tpu(lowered: Any, options: dict[str, str] | None) -> tuple[float, int]:
    """The bytes that a lowered step moves, and those of its temporary buffers."""
    compiled = lowered.compile(compiler_options=options)
    moved: float = compiled.cost_analysis()["bytes accessed"]
    return moved, compiled.memory_analysis().temp_size_in_bytes


def tpu() -> Samples:
    """AdamW's step on 27M parameters compiled for a TPU: traffic over the least, temporaries."""
    import optax

    lowered, least = lower_for_tpu(optax.adamw(1e-3))
    samples: Samples = {}
    for suffix, options in {"": WITHOUT_PREFETCHING, ", prefetching": None}.items():
        moved, temporary = cost_on_tpu(lowered, options)
        samples[f"bytes accessed / least{suffix}"] = [moved / least]
        samples[f"temporary bytes{suffix}"] = [temporary]
    return samples


def tpu_optimizers() -> Samples:
    """The same of every optimizer. One that reduces over leaves has to read them more than once."""
    samples: Samples = {}
    for name, tx, extra in aliases():
        lowered, least = lower_for_tpu(tx, **extra)
        moved, temporary = cost_on_tpu(lowered, WITHOUT_PREFETCHING)
        samples[f"{name} bytes accessed / least"] = [moved / least]
        samples[f"{name} temporary MB"] = [temporary / 1e6]
    return samples


WORKS: dict[str, Callable[[], Samples]] = {
    "eager": eager,
    "lower": lower,
    "step": step,
    "import-optax": functools.partial(import_of, "optax"),
    "import-losses": functools.partial(import_of, "grad_losses"),
    "tpu": tpu,
    "optimizers": optimizers,
    "released-optimizers": released_optimizers,
    "tpu-optimizers": tpu_optimizers,
    "grouped": lambda: _beside("bench_grouping").thousand_leaves(True),
    "ungrouped": lambda: _beside("bench_grouping").thousand_leaves(False),
    "large-leaves": lambda: _beside("bench_grouping").large_leaves(),
    "hessian-diag": lambda: _beside("bench_second_order").hessian_diagonals(True),
    "released-hessian-diag": lambda: _beside("bench_second_order").hessian_diagonals(False),
    "estimators": lambda: _beside("bench_estimators").estimators(True),
    "first-estimators": lambda: _beside("bench_estimators").estimators(False),
    "losses": lambda: _beside("bench_losses").losses(True),
    "released-losses": lambda: _beside("bench_losses").losses(False),
    "linear-heads": lambda: _beside("bench_losses").linear_heads(True),
    "released-linear-heads": lambda: _beside("bench_losses").linear_heads(False),
    "large-heads": lambda: _beside("bench_losses").large_linear_heads(True),
    "released-large-heads": lambda: _beside("bench_losses").large_linear_heads(False),
    "muon": lambda: _beside("bench_muon").muon_step(True),
    "released-muon": lambda: _beside("bench_muon").muon_step(False),
}


def _beside(name: str) -> Any:
    """A module beside this one, which imports from it."""
    sys.modules.setdefault("bench_work", sys.modules[__name__])
    return importlib.import_module(name)


if __name__ == "__main__":
    print(json.dumps(WORKS[sys.argv[1]]()))
