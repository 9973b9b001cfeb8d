"""What `bench.py` measures of a thousand small leaves, and of large ones; see `bench_work.py`."""

import time
from typing import Any

from bench_work import Samples, gpt_shapes, random_tree, step_of, time_call


def clipped_adamw() -> Any:
    """AdamW after a clip by the global norm."""
    import optax

    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def thousand_leaves(is_grouped: bool, repeats: int = 60) -> Samples:
    """Clipped AdamW on 1,000 leaves of 8x8: trace and compile, in s, and a step, in ms."""
    import jax

    params = random_tree({f"leaf{i:03}": (8, 8) for i in range(1000)}, 0)
    tx = _grouped(clipped_adamw()) if is_grouped else clipped_adamw()
    state = jax.block_until_ready(jax.jit(tx.init)(params))  # type: ignore[no-untyped-call]
    start = time.perf_counter()
    compiled = jax.jit(step_of(tx)).trace(params, state, params).lower().compile()
    seconds = time.perf_counter() - start
    donated = jax.jit(step_of(tx), donate_argnums=(0, 1)).trace(params, state, params)
    samples: Samples = {"1000 leaves, trace + compile s": [seconds]}
    samples["1000 leaves, step ms"] = _times(compiled, params, state, params, repeats)
    in_place = donated.lower().compile()
    samples["1000 leaves, donated step ms"] = _times(in_place, params, state, params, repeats)
    return samples


def _grouped(tx: Any) -> Any:
    from grad_wrappers import grouped

    return grouped(tx)


def _times(compiled: Any, params: Any, state: Any, grads: Any, repeats: int) -> list[float]:
    import jax

    carry = jax.tree.map(lambda x: x.copy(), (params, state))
    times = []
    for _ in range(repeats):
        seconds, carry = time_call(compiled, *carry, grads)
        times.append(1e3 * seconds)
    return times[5:]  # those before warm up


def large_leaves(repeats: int = 20) -> Samples:
    """A step of clipped AdamW on 27M parameters, in ms: plain and grouped, by turns."""
    import jax

    shapes = gpt_shapes(blocks=8, width=512, vocabulary=4096)
    grads = random_tree(shapes, 1)
    running: dict[str, Any] = {}
    for name, tx in {
        "27M ms": clipped_adamw(),
        "27M grouped ms": _grouped(clipped_adamw()),
    }.items():
        params = random_tree(shapes, 0)
        compiled = jax.jit(step_of(tx), donate_argnums=(0, 1))
        running[name] = (compiled, compiled(params, tx.init(params), grads))
    samples: Samples = {name: [] for name in running}
    for _ in range(repeats):
        for name, (compiled, carry) in running.items():
            seconds, carry = time_call(compiled, *carry, grads)
            running[name] = (compiled, carry)
            samples[name].append(1e3 * seconds)
    ratio = min(samples["27M grouped ms"]) / min(samples["27M ms"])
    return {**samples, "27M grouped / plain": [ratio]}
