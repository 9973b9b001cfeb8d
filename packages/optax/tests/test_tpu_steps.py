"""The training steps of the examples compile for TPUs, and need what is on record."""

from typing import Any

import jax
import pytest

import optax
from grad_testing.tpu_targets import abstract

BATCH = 64


def digits(module: Any, tpu: Any) -> tuple[Any, ...]:
    """The recipe of the first example, the loss, parameters, and a batch."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, 1500)
    recipe = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1, mask=r".*/kernel")
    )
    shapes = jax.eval_shape(module.init_params, jax.random.key(0))
    params = tpu.placed(shapes, {"kernel": ("data", "model"), "bias": ("model",)})
    rows = tpu.sharding("data")
    batch = module.Data(abstract((BATCH, 64), "float32", rows), abstract((BATCH,), "int32", rows))
    return recipe, module.loss_fn, params, batch


def transformer(module: Any, tpu: Any) -> tuple[Any, ...]:
    """The same of the second."""
    shapes = jax.eval_shape(module.init_params, jax.random.key(0))
    params = tpu.placed(shapes, module.SPECS)
    tokens = abstract((module.BATCH, module.CONTEXT + 1), "int32", tpu.sharding("data"))
    return module.recipe(200), module.loss_fn, params, tokens


@pytest.mark.tpu
@pytest.mark.parametrize("parts", [digits, transformer], ids=lambda f: f.__name__)
def test_training_steps_compile_for_tpu(example: Any, parts: Any, tpu: Any) -> None:
    name = parts.__name__
    optimizer, loss, params, batch = parts(example(name), tpu)

    def step(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, of_init = tpu.compile(optimizer.init, params)
    _, of_step = tpu.compile(step, params, state, batch, donate=(0, 1))
    tpu.enter(f"docs.{name}", "init", of_init)
    tpu.enter(f"docs.{name}", "step", of_step)
