"""What `bench.py` measures of gradient estimators; see `bench_work.py`.

The released library has none left. What stands on its side is how one writes them first: forward
mode over all parameters, and for the measure-valued estimator every replaced sample at once.
"""

from collections.abc import Callable
from typing import Any

from bench_work import Samples, time_call

DIMENSIONS = 10
Jacobians = Callable[[Any, Any], Any]


def estimators(is_ours: bool, repeats: int = 7) -> Samples:
    """Jacobians of 10,000 and 100,000 samples of a normal in 10 dimensions, in ms under jit."""
    import jax
    import jax.numpy as jnp

    params = [jnp.linspace(-1.0, 1.0, DIMENSIONS), jnp.linspace(-0.5, 0.5, DIMENSIONS)]
    running = {}
    for count in (10_000, 100_000):
        for name, estimator in (_ours() if is_ours else _first(jnp)).items():

            def run(params: Any, key: Any, count: int = count, estimator: Any = estimator) -> Any:
                return estimator(lambda x: jnp.sum(jnp.sin(x) * x), params, key, count)

            compiled = jax.jit(run).lower(params, jax.random.key(0)).compile()
            running[f"{name}, {count:,} samples, ms"] = compiled
    samples: Samples = {metric: [] for metric in running}
    for i in range(repeats):
        for metric, compiled in running.items():
            samples[metric].append(1e3 * time_call(compiled, params, jax.random.key(i))[0])
    return {metric: times[1:] for metric, times in samples.items()}  # those before warm up


def _ours() -> dict[str, Any]:
    import grad_estimators as ge

    def of(estimator: Any) -> Any:
        return lambda f, params, key, count: estimator(f, params, ge.multi_normal, key, count)

    return {
        "score function": of(ge.score_function_jacobians),
        "pathwise": of(ge.pathwise_jacobians),
        "measure-valued": of(ge.measure_valued_jacobians),
    }


def _first(jnp: Any) -> dict[str, Any]:
    import jax

    def sample(params: Any, key: Any) -> Any:
        return params[0] + jnp.exp(params[1]) * jax.random.normal(key, params[0].shape)

    def log_prob(params: Any, x: Any) -> Any:
        z = (x - params[0]) * jnp.exp(-params[1])
        return -jnp.sum(z**2 / 2 + params[1] + jnp.log(2 * jnp.pi) / 2)

    def score_function(f: Any, params: Any, key: Any, count: int) -> Any:
        keys = jax.random.split(key, count)
        samples = jax.vmap(lambda key: sample(params, key))(keys)
        values = jax.vmap(f)(samples)
        scores = jax.jacfwd(lambda p: jax.vmap(lambda x: log_prob(p, x))(samples))(params)
        return [values[:, None] * score for score in scores]

    def pathwise(f: Any, params: Any, key: Any, count: int) -> Any:
        keys = jax.random.split(key, count)
        return jax.jacfwd(lambda p: jax.vmap(lambda key: f(sample(p, key)))(keys))(params)

    def measure_valued(f: Any, params: Any, key: Any, count: int) -> Any:
        scale, shape = jnp.exp(params[1]), (count, DIMENSIONS)
        key, rayleigh, maxwell, uniform = jax.random.split(key, 4)
        samples = jax.vmap(lambda key: sample(params, key))(jax.random.split(key, count))
        up = jax.random.rayleigh(rayleigh, 1.0, shape)
        wide = jax.random.double_sided_maxwell(maxwell, 0.0, 1.0, shape)
        near = wide * jax.random.uniform(uniform, shape)

        def replaced(z: Any) -> Any:  # the value of f with each coordinate replaced
            new = (params[0] + scale * z)[:, :, None] * jnp.eye(DIMENSIONS)
            kept = samples[:, None, :] * (1 - jnp.eye(DIMENSIONS))
            return jax.vmap(jax.vmap(f))(new + kept)

        by_mean = (replaced(up) - replaced(-up)) / (scale * jnp.sqrt(2 * jnp.pi))
        return [by_mean, replaced(wide) - replaced(near)]

    return {
        "score function": score_function,
        "pathwise": pathwise,
        "measure-valued": measure_valued,
    }
