"""What `bench.py` measures of losses and assignment; see `bench_work.py`."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench_work import Samples, time_call

MIB = 2**20
PLAIN = "all logits"


def losses(is_ours: bool, repeats: int = 3) -> Samples:
    """Cross entropy of integer labels and CTC, values and gradients; Hungarian algorithm."""
    return {
        **_cross_entropies(is_ours, repeats),
        **_smoothed_memory(is_ours),
        **_ctc(4 * repeats),
        **_assignments(4 * repeats),
    }


def _cross_entropies(is_ours: bool, repeats: int) -> Samples:
    """Of 8192 x 32768 logits, in ms and MiB; and the error of bfloat16 logits, in nats."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from scipy.special import logsumexp  # type: ignore[import-untyped]

    import optax

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    wide = functools.partial(cross_entropy, **({"dtype": jnp.float32} if is_ours else {}))
    keys = jax.random.split(jax.random.key(0))
    labels = jax.random.randint(keys[1], (8192,), 0, 32768)
    narrow = 3 * jax.random.normal(keys[0], (256, 32768), jnp.bfloat16)
    exact = np.asarray(narrow, np.float64)
    exact = logsumexp(exact, axis=1) - exact[np.arange(256), labels[:256]]
    error = np.abs(exact - np.asarray(jax.jit(wide)(narrow, labels[:256]), np.float64)).max()

    logits = jax.random.normal(keys[0], (8192, 32768))
    call = jax.value_and_grad(lambda z, labels: cross_entropy(z, labels).mean())
    compiled = jax.jit(call).lower(logits, labels).compile()
    name = "cross entropy of 8192 x 32768"
    return {
        f"{name}, ms": [1e3 * time_call(compiled, logits, labels)[0] for _ in range(repeats)],
        f"{name}, temporary MiB": [_temporary_mib(compiled)],
        "cross entropy of bfloat16, error in nats": [float(error)],
    }


def _smoothed_memory(is_ours: bool) -> Samples:
    """The same with smoothed labels, compiled: the released one has but dense labels for it."""
    import jax
    import jax.numpy as jnp

    import optax

    def mean(logits: Any, labels: Any) -> Any:
        if is_ours:
            sparse: Any = optax.softmax_cross_entropy_with_integer_labels
            return sparse(logits, labels, label_smoothing=0.1).mean()
        dense = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)
        return optax.softmax_cross_entropy(logits, dense).mean()

    logits, labels = _abstract((8192, 32768), jnp.float32), _abstract((8192,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(mean)).lower(logits, labels).compile()
    return {"smoothed cross entropy of 8192 x 32768, temporary MiB": [_temporary_mib(compiled)]}


def _ctc(repeats: int) -> Samples:
    """Of a batch of 32, with 200 frames, 30 classes and 40 labels, in ms."""
    import jax
    import jax.numpy as jnp

    import optax

    keys = jax.random.split(jax.random.key(0))
    logits = jax.random.normal(keys[0], (32, 200, 30))
    labels = jax.random.randint(keys[1], (32, 40), 1, 30)
    frames, ends = jnp.zeros((32, 200)), jnp.zeros((32, 40))
    call = jax.jit(jax.value_and_grad(lambda z: optax.ctc_loss(z, frames, labels, ends).mean()))
    return {"CTC, batch 32, 200 frames, 40 labels, ms": _times(call, repeats, logits)}


def _assignments(repeats: int) -> Samples:
    """Of 256 x 256 costs, and of 256 problems of 32 x 32 under `vmap`, in ms; and over scipy's."""
    import jax
    import numpy as np
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    import optax

    hungarian: Any = optax.assignment.hungarian_algorithm
    rng = np.random.default_rng(0)
    costs, many = (np.float32(rng.random(shape)) for shape in [(256, 256), (256, 32, 32)])
    one = _times(jax.jit(hungarian), repeats, costs)
    scipy = _times(linear_sum_assignment, repeats, costs)
    return {
        "Hungarian, 256 x 256, ms": one,
        "Hungarian, 256 x 256 / scipy": [min(one) / min(scipy)],
        "Hungarian, 256 of 32 x 32, ms": _times(jax.jit(jax.vmap(hungarian)), repeats, many),
    }


def linear_heads(is_ours: bool, repeats: int = 3) -> Samples:
    """Of 2048 tokens, 512 features and 32768 classes, ms: in chunks, and with all logits at once.

    Values and gradients, by turns; and how far gradients are apart, over the largest of them.
    """
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (2048, 512))
    kernel = jax.random.normal(keys[1], (512, 32768)) / math.sqrt(512)
    arguments = hidden, kernel, jax.random.randint(keys[2], (2048,), 0, 32768)
    compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in _heads(is_ours).items()}
    times: Samples = {name: [] for name in compiled}
    works: Samples = {name: [] for name in compiled}  # seconds of all processors: vary less
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in compiled.items():
            start = time.process_time()
            seconds, results[name] = time_call(call, *arguments)
            works[name].append(time.process_time() - start)
            times[name].append(1e3 * seconds)
    samples = {f"linear head, {name}, ms": values for name, values in times.items()}
    plain = jax.tree.leaves(results.pop(PLAIN))
    for name, result in results.items():
        for kind, spent in {"time": times, "processor time": works}.items():
            ratio = min(spent[name]) / min(spent[PLAIN])
            samples[f"linear head, {name}, {kind} / {PLAIN}"] = [ratio]
        pairs = zip(jax.tree.leaves(result), plain, strict=True)
        apart = max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)
        samples[f"linear head, {name}, apart"] = [apart]
    return samples


def large_linear_heads(is_ours: bool) -> Samples:
    """Of 8192 bfloat16 tokens, 2304 features and 262144 classes, compiled only: MiB, and flops.

    Flops are those of matrix products, each as often as its loop runs.
    """
    import jax
    import jax.numpy as jnp

    hidden = _abstract((8192, 2304), jnp.bfloat16)
    kernel = _abstract((2304, 262144), jnp.bfloat16)
    labels = _abstract((8192,), jnp.int32)
    samples: Samples = {}
    for name, f in _heads(is_ours).items():
        traced = jax.jit(f).trace(hidden, kernel, labels)
        samples[f"large head, {name}, temporary MiB"] = [_temporary_mib(traced.lower().compile())]
        samples[f"large head, {name}, teraflop"] = [_product_flops(traced.jaxpr.jaxpr) / 1e12]
    return samples


def _heads(is_ours: bool) -> dict[str, Callable[..., Any]]:
    """Mean cross entropy of hidden states, a kernel and labels, with gradients of the first two."""
    import jax
    import jax.numpy as jnp

    import optax

    def plain(hidden: Any, kernel: Any, labels: Any) -> Any:
        logits = jnp.dot(hidden, kernel, preferred_element_type=jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    heads = {PLAIN: plain}
    if is_ours:
        from grad_losses import linear_softmax_cross_entropy

        heads["reduced"] = functools.partial(linear_softmax_cross_entropy, reduction="mean")
        heads["per token"] = lambda *arguments: linear_softmax_cross_entropy(*arguments).mean()
    return {name: jax.value_and_grad(f, (0, 1)) for name, f in heads.items()}


def _product_flops(jaxpr: Any) -> int:
    """The flops of matrix products, each as often as its loop runs."""
    flops = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            flops += 2 * terms * equation.outvars[0].aval.size
        flops += equation.params.get("length", 1) * sum(map(_product_flops, _inside(equation)))
    return flops


def _inside(equation: Any) -> Iterator[Any]:
    import jax

    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield getattr(value, "jaxpr", value)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def _abstract(shape: tuple[int, ...], dtype: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _temporary_mib(compiled: Any) -> float:
    size: int = compiled.memory_analysis().temp_size_in_bytes
    return size / MIB


def _times(call: Callable[..., Any], repeats: int, *arguments: Any) -> list[float]:
    """Milliseconds of each call but the first two."""
    return [1e3 * time_call(call, *arguments)[0] for _ in range(repeats + 2)][2:]
