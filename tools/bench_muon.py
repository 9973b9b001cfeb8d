"""What `bench.py` measures of Muon; see `bench_work.py`."""

import time
from typing import Any

from bench_work import Samples, random_tree, step_of, time_call

MATRICES, SIZE = 48, 256


def muon_step(is_ours: bool, repeats: int = 25) -> Samples:
    """A step on 48 matrices of 256x256 and their biases: trace and compile, in s; run, in ms."""
    import jax
    import jax.numpy as jnp

    import optax

    kernels = {f"kernel{i:02}": (SIZE, SIZE) for i in range(MATRICES)}
    shapes = {**kernels, **{f"bias{i:02}": (SIZE,) for i in range(MATRICES)}}
    params, grads = random_tree(shapes, 0), random_tree(shapes, 1)
    optimizers: dict[str, Any] = {"": optax.contrib.muon(0.02)}
    if is_ours:
        optimizers[" in bfloat16"] = optax.contrib.muon(0.02, ns_dtype=jnp.bfloat16)
    samples: Samples = {}
    for name, tx in optimizers.items():
        state = jax.jit(tx.init)(params)
        start = time.perf_counter()
        compiled = jax.jit(step_of(tx)).trace(params, state, grads).lower().compile()
        samples[f"muon{name}, trace + compile s"] = [time.perf_counter() - start]
        times = samples[f"muon{name}, step ms"] = []
        for _ in range(repeats):
            seconds, (_, state) = time_call(compiled, params, state, grads)
            times.append(1e3 * seconds)
        del times[:3]  # those before warm up
    return samples
