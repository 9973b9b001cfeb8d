"""Fits a Bayesian logistic regression to real data, and draws how noisy its gradients are.

The data, 569 breast tumours described by 30 numbers each, ship inside scikit-learn. The weights
have a standard normal prior; their posterior is approximated by a normal distribution with
independent coordinates, which maximizes the evidence lower bound,

    ELBO = E[log p(labels | weights) + log p(weights)] + entropy.

The gradient of the expectation is estimated from samples. Several estimators are compared at the
same places: at the first parameters, while they are trained, and at the end.

    python docs/examples/bayesian_logistic_regression.py
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import grad_estimators as ge
import optax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Params = list[jax.Array]
"""The mean and the log-scale of the weights, each of shape (features + 1,)."""

Data = tuple[jax.Array, jax.Array]
"""Standardized features with a column of ones, and labels, 0 or 1."""

SAMPLES = 8  # in each step of the training


def tumours() -> tuple[Data, Data]:
    """The training data, and a quarter held out for the test."""
    features, labels = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        features, labels, test_size=0.25, random_state=0, stratify=labels
    )
    mean, scale = train_x.mean(0), train_x.std(0)

    def prepared(x: np.ndarray) -> jax.Array:
        return jnp.asarray(np.column_stack([(x - mean) / scale, np.ones(len(x))]))

    return (prepared(train_x), jnp.asarray(train_y)), (prepared(test_x), jnp.asarray(test_y))


def log_joint(data: Data, weights: jax.Array) -> jax.Array:
    """log p(labels | weights) + log p(weights), but for a constant."""
    features, labels = data
    log_likelihood = -jnp.sum(jax.nn.softplus((1 - 2 * labels) * (features @ weights)))
    return log_likelihood - 0.5 * jnp.sum(weights**2)


def entropy(params: Params) -> jax.Array:
    """That of the posterior, but for a constant."""
    return jnp.sum(params[1])


def delta_method(function, params, dist_builder, rng, num_samples):
    """The score function estimator, with f's second-order expansion as its control variate."""
    jacobians, _ = ge.control_variates_jacobians(
        function,
        ge.control_delta_method,
        ge.score_function_jacobians,
        params,
        dist_builder,
        rng,
        num_samples,
    )
    return jacobians


ESTIMATORS = {
    "score function": ge.score_function_jacobians,
    "score function, leave-one-out baseline": ge.rloo_jacobians,
    "score function, delta method": delta_method,
    "measure-valued": ge.measure_valued_jacobians,
    "pathwise": ge.pathwise_jacobians,
}


@partial(jax.jit, static_argnames="num_steps")
def train(data: Data, params: Params, num_steps: int) -> tuple[Params, Params, jax.Array]:
    """Trains with pathwise gradients; returns the last parameters, all on the way, and the ELBO."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, num_steps))

    def loss(params: Params, key: jax.Array) -> jax.Array:
        f = partial(log_joint, data)
        mean = ge.pathwise_surrogate(f, params, ge.multi_normal, key, SAMPLES)
        return -mean - entropy(params)

    def step(carry, key):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, key)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), (params, -value)

    keys = jax.random.split(jax.random.key(0), num_steps)
    (params, _), (path, elbo) = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return params, path, elbo


@partial(jax.jit, static_argnames="num_samples")
def variances(data: Data, path: Params, num_samples: int) -> dict[str, jax.Array]:
    """For each estimator the variance of one sample's gradient of the mean, summed, at each place.

    The variance of a mean of n samples is the n-th part of it (for the leave-one-out baseline,
    nearly so).
    """

    def one(params: Params) -> dict[str, jax.Array]:
        found = {}
        for name, estimator in ESTIMATORS.items():
            d_loc, _ = estimator(
                partial(log_joint, data), params, ge.multi_normal, jax.random.key(1), num_samples
            )
            found[name] = jnp.sum(jnp.var(d_loc, axis=0))
        return found

    return jax.lax.map(one, path)


def accuracy(params: Params, data: Data) -> float:
    """Of the predictive distribution: of the mean of many posterior samples' predictions."""
    features, labels = data
    weights = ge.multi_normal(*params).sample((1000,), jax.random.key(2))
    p = jnp.mean(jax.nn.sigmoid(features @ weights.T), axis=1)
    return float(jnp.mean((p > 0.5) == labels))


def draw(elbo: jax.Array, steps: np.ndarray, found: dict[str, jax.Array], path: Path) -> None:
    """Writes a picture of the bound and of the variances, step by step."""
    fig, (top, bottom) = plt.subplots(2, sharex=True, figsize=(8, 8), layout="constrained")
    top.plot(elbo, color="black", linewidth=0.7)
    top.set(ylabel="ELBO, nats", ylim=(np.quantile(elbo, 0.03), np.max(elbo) + 2))
    for name in ESTIMATORS:
        bottom.semilogy(steps, found[name], marker=".", label=name)
    bottom.set(xlabel="step", ylabel="variance of one sample's gradient of the mean")
    bottom.legend()
    fig.suptitle("Bayesian logistic regression of tumours")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> tuple[float, dict[str, jax.Array]]:
    """Trains, compares, draws and prints; returns the test accuracy and the variances."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--samples", type=int, default=1000, help="samples for each variance")
    parser.add_argument("--out", type=Path, default=Path("out/bayesian_logistic_regression.png"))
    args = parser.parse_args(argv)
    if args.steps < 10:
        parser.error(f"--steps must be at least 10; got {args.steps}")

    train_data, test_data = tumours()
    size = train_data[0].shape[1]
    first = [jnp.zeros(size), jnp.full(size, -1.0)]
    params, path, elbo = train(train_data, first, args.steps)
    steps = np.linspace(0, args.steps - 1, 10).astype(int)
    found = variances(train_data, [x[steps] for x in path], args.samples)
    draw(elbo, steps, found, args.out)
    result = accuracy(params, test_data)
    print(f"test accuracy: {result:.4f} on {len(test_data[1])} tumours never trained on")
    for name in ESTIMATORS:
        print(f"{name}: variance {found[name][0]:.3g} at first, {found[name][-1]:.3g} at the end")
    print(f"picture of bound and variances: {args.out}")
    return result, found


if __name__ == "__main__":
    main()
