"""What `bench.py` measures of curvature; see `bench_work.py`."""

import importlib
import warnings
from typing import Any

from bench_work import Samples, time_call


def hessian_diagonals(is_ours: bool, repeats: int = 12) -> Samples:
    """Diagonal of the Hessian of a 64-64-16 net, P = 5120, batch 32: ms under jit, and MiB."""
    import jax
    import jax.numpy as jnp

    def loss(params: Any, inputs: Any, targets: Any) -> Any:
        log_p = jax.nn.log_softmax(jnp.tanh(inputs @ params["w1"]) @ params["w2"])
        return -jnp.mean(jnp.take_along_axis(log_p, targets[:, None], axis=1))

    def diagonal(*arguments: Any) -> Any:
        return _hessian_diag(is_ours)(loss, *arguments)

    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "w1": jax.random.normal(keys[0], (64, 64)) / 8,
        "w2": jax.random.normal(keys[1], (64, 16)) / 8,
    }
    batch = jax.random.normal(keys[2], (32, 64)), jax.random.randint(keys[3], (32,), 0, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the released one says that it will go
        compiled = jax.jit(diagonal).lower(params, *batch).compile()
    times = [1e3 * time_call(compiled, params, *batch)[0] for _ in range(repeats)]
    memory: Any = compiled.memory_analysis()
    return {
        "hessian_diag, P = 5120, ms": times[2:],  # those before warm up
        "hessian_diag, P = 5120, temporary MiB": [memory.temp_size_in_bytes / 2**20],
    }


def _hessian_diag(is_ours: bool) -> Any:
    home = "grad_second_order" if is_ours else "optax.second_order"
    return importlib.import_module(home).hessian_diag
