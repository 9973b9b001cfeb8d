"""`run`: minima, evaluations beside scipy's, and every reason to stop."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.datasets import load_breast_cancer

from grad_core import chain, partition, scale, scale_by_learning_rate, trace
from grad_second_order import (
    Status,
    lbfgs,
    run,
    scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch,
)

SIZE = 31  # of all problems that share an executable; the coordinates that one leaves out stay at 0
FEATURES, LABELS = load_breast_cancer(return_X_y=True)
FEATURES = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
FEATURES = np.hstack([FEATURES, np.ones((len(FEATURES), 1))])


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def beale(x):
    return sum((c - x[0] + x[0] * x[1] ** k) ** 2 for c, k in ((1.5, 1), (2.25, 2), (2.625, 3)))


def wood(x):
    a, b, c, d = x
    rose = 100 * (a**2 - b) ** 2 + (1 - a) ** 2 + 90 * (c**2 - d) ** 2 + (1 - c) ** 2
    return rose + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)


def booth(x):
    return (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2


def matyas(x):
    return 0.26 * jnp.sum(x**2) - 0.48 * x[0] * x[1]


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def powell_singular(x):
    a, b, c, d = x
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


def dixon_price(x):
    return (x[0] - 1) ** 2 + jnp.sum(jnp.arange(2, x.size + 1) * (2 * x[1:] ** 2 - x[:-1]) ** 2)


def zakharov(x):
    s = jnp.sum(0.5 * jnp.arange(1, x.size + 1) * x)
    return jnp.sum(x**2) + s**2 + s**4


def three_hump_camel(x):
    return 2 * x[0] ** 2 - 1.05 * x[0] ** 4 + x[0] ** 6 / 6 + x[0] * x[1] + x[1] ** 2


def trid(x):
    return jnp.sum((x - 1) ** 2) - jnp.sum(x[1:] * x[:-1])


def helical_valley(x):
    turn = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return 100 * ((x[2] - 10 * turn) ** 2 + (jnp.hypot(x[0], x[1]) - 1) ** 2) + x[2] ** 2


def square(x):
    return jnp.sum(x**2)


def lonely(x):
    """Finite at one point alone."""
    return jnp.where(x[0] == 3, square(x), jnp.inf)


def logistic(x):
    margins = (2 * LABELS - 1) * (FEATURES @ x)
    return jnp.mean(jnp.logaddexp(0, -margins)) + 5e-4 * jnp.sum(x**2)


PROBLEMS = {  # name: function, start, least value (None: not known in closed form)
    **{f"rosenbrock {n}": (rosenbrock, np.tile([-1.2, 1.0], n)[:n], 0.0) for n in (2, 4, 10, 30)},
    "beale": (beale, [1.0, 1.0], 0.0),
    "wood": (wood, [-3.0, -1.0, -3.0, -1.0], 0.0),
    "booth": (booth, [0.0, 0.0], 0.0),
    "matyas": (matyas, [4.0, -3.0], 0.0),
    "himmelblau": (himmelblau, [0.0, 0.0], 0.0),
    "powell singular": (powell_singular, [3.0, -1.0, 0.0, 1.0], 0.0),
    "dixon-price": (dixon_price, np.ones(10), 0.0),
    "zakharov": (zakharov, np.ones(5), 0.0),
    "three-hump camel": (three_hump_camel, [0.5, 0.5], 0.0),
    "trid": (trid, np.zeros(10), -10 * 14 * 9 / 6),
    "helical valley": (helical_valley, [-1.0, 0.1, 0.0], 0.0),
    "logistic regression": (logistic, np.zeros(SIZE), None),
}


SOME = ("rosenbrock 2", "rosenbrock 10", "beale", "himmelblau", "trid")
TOL = 1e-6


def on_first(f, n):
    return lambda x: f(x[:n])


def compiled(names):
    """`run` with L-BFGS, and value and gradient, of the function with a number."""
    functions = [on_first(PROBLEMS[name][0], len(PROBLEMS[name][1])) for name in names]

    def choose(which):
        return lambda x: jax.lax.switch(which, functions, x)

    return (
        jax.jit(lambda which, start: run(lbfgs(), choose(which), start, TOL, 2000)),
        jax.jit(lambda which, x: jax.value_and_grad(choose(which))(x)),
    )


def scipys(value_and_grad, start):
    """Value and evaluations of scipy, stopped at the same norm of the gradient."""
    norms = {}

    def fun(x):
        value, grad = value_and_grad(x)
        norms[x.tobytes()] = np.linalg.norm(grad)
        return float(value), np.asarray(grad)

    def callback(x):
        if norms[x.tobytes()] <= TOL:
            raise StopIteration

    options = {"maxcor": 10, "ftol": 0, "gtol": 0, "maxfun": 20_000, "maxiter": 10_000}
    found = scipy.optimize.minimize(
        fun, start, jac=True, method="L-BFGS-B", callback=callback, options=options
    )
    return found.fun, found.nfev


@pytest.mark.parametrize("names", [SOME, pytest.param([*PROBLEMS], marks=pytest.mark.full)])
def test_minima_and_evaluations_beside_scipy(names):
    ratios = {}
    with jax.enable_x64(True):
        ours, value_and_grad = compiled(names)
        for i, name in enumerate(names):
            _, start, least = PROBLEMS[name]
            start = np.pad(np.asarray(start, float), (0, SIZE - len(start)))
            result = ours(i, start)
            value, evaluations = scipys(partial(value_and_grad, i), start)
            assert result.status == Status.CONVERGED, name
            assert result.grad_norm <= TOL, name
            least = value if least is None else least
            assert result.value - least <= 1e-6, name
            again, _ = value_and_grad(i, result.params)
            np.testing.assert_allclose(result.value, again, rtol=1e-9, atol=1e-15)
            ratios[name] = int(result.evaluations) / evaluations
    assert np.median([*ratios.values()]) <= 1.1, ratios


@pytest.mark.full
def test_rosenbrock_in_up_to_a_thousand_dimensions():
    with jax.enable_x64(True):
        for n in (100, 1000):
            start = np.tile([-1.2, 1.0], n // 2)
            result = run(lbfgs(), rosenbrock, start, TOL, 10_000)
            _, evaluations = scipys(jax.jit(jax.value_and_grad(rosenbrock)), start)
            assert result.status == Status.CONVERGED
            assert result.value <= 1e-6
            assert result.evaluations <= 1.1 * evaluations


def test_evaluations_are_counted():
    seen = []

    def noted(x):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.sum((x - 1.0) ** 4)

    for optimizer in (
        lbfgs(),
        chain(scale(-1.0), scale_by_backtracking_linesearch(10)),
        scale_by_learning_rate(0.05),
    ):
        seen.clear()
        result = run(optimizer, noted, jnp.zeros(2), 1e-3, 7)
        jax.block_until_ready(result)
        jax.effects_barrier()
        assert result.evaluations == len(seen)


DESCENT, ZOOM = scale_by_learning_rate(0.01), scale_by_zoom_linesearch(5)


@pytest.mark.parametrize(
    ("optimizer", "fun", "size", "tol", "max_iter", "status", "iterations"),
    [
        pytest.param(*case, id=why)
        for why, case in {
            "converged at the start": (DESCENT, square, 1, 100, 9, Status.CONVERGED, 0),
            "no updates allowed": (DESCENT, square, 1, 1e-5, 0, Status.MAX_ITER, 0),
            "too few updates": (DESCENT, square, 1, 1e-5, 5, Status.MAX_ITER, 5),
            "not finite at the start": (DESCENT, square, np.nan, 1e-5, 9, Status.NON_FINITE, 0),
            "diverges": (scale_by_learning_rate(1e20), square, 1, 1e-5, 9, Status.NON_FINITE, 1),
            "uphill": (ZOOM, square, 1, 1e-5, 9, Status.LINE_SEARCH_FAILED, 1),
            "no lower value": (lbfgs(), lonely, 1, 1e-5, 9, Status.LINE_SEARCH_FAILED, 1),
        }.items()
    ],
)
def test_why_it_stops(optimizer, fun, size, tol, max_iter, status, iterations):
    start = size * jnp.array([3.0, 4.0])
    result = jax.jit(lambda x: run(optimizer, fun, x, tol, max_iter))(start)
    assert Status(int(result.status)) == status
    assert result.iterations == iterations
    if np.isfinite(size):
        assert jnp.isfinite(result.params).all()
        np.testing.assert_allclose(result.value, fun(result.params), rtol=1e-6)
        assert jnp.isfinite(result.grad_norm)


def test_a_failed_search_makes_lbfgs_forget_and_go_on():
    """A memory that leads uphill, or nowhere, is not the end."""

    def kinked(x):  # convex, but its slope jumps: pairs across a kink mislead
        return jnp.sum(jnp.abs(x)) + 0.5 * jnp.sum(x**2)

    start = jnp.array([1.3, -0.7, 0.2])
    result = jax.jit(lambda x: run(lbfgs(), kinked, x, 1e-8, 200))(start)
    assert result.status == Status.LINE_SEARCH_FAILED  # no gradient is small at the kink
    assert result.value <= 0.05


def test_values_that_changed_after_the_search_are_computed_anew():
    optimizer = chain(lbfgs(), scale(0.5))
    result = jax.jit(lambda x: run(optimizer, square, x, 1e-3, 60))(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(result.value, square(result.params), rtol=1e-6)
    assert result.status == Status.CONVERGED


def test_inside_partition():
    def f(tree):
        return rosenbrock(tree["lbfgs"]) + jnp.sum((tree["sgd"] - tree["lbfgs"][0]) ** 2)

    start = {"lbfgs": jnp.zeros(2), "sgd": jnp.full(3, 5.0)}
    optimizer = partition(
        {r"lbfgs": lbfgs(), r"sgd": chain(trace(0.5), scale(-0.2))}, mask_compatible_extra_args=True
    )
    result = jax.jit(lambda x: run(optimizer, f, x, 1e-3, 200))(start)
    assert result.status == Status.CONVERGED
    for leaf in jax.tree.leaves(result.params):
        np.testing.assert_allclose(leaf, 1.0, atol=5e-3)


def test_complex_and_vmapped():
    target = jnp.array([1 + 2j, -3j])
    result = run(lbfgs(), lambda z: jnp.sum(jnp.abs(z - target) ** 2), jnp.zeros(2, jnp.complex64))
    np.testing.assert_allclose(result.params, target, atol=1e-5)
    starts = jnp.array([[-1.2, 1.0], [0.0, 0.0], [1.0, 1.0]])
    many = jax.jit(jax.vmap(lambda x: run(lbfgs(), rosenbrock, x, 1e-3)))(starts)
    np.testing.assert_allclose(many.params, 1.0, atol=5e-3)
    assert many.iterations[2] == 0 < many.iterations[1]


def test_errors():
    x = jnp.ones(2)
    for error, words, args in (
        (ValueError, r"run: tol must be >= 0; got -1", (square, x, -1)),
        (ValueError, r"run: tol must be >= 0; got nan", (square, x, float("nan"))),
        (ValueError, r"run: max_iter must be >= 0; got -2", (square, x, 1e-5, -2)),
        (ValueError, r"run: fun must return a number, of shape \(\)", (lambda x: x, x)),
        (TypeError, r"run.*params.*int32", (square, jnp.arange(3))),
    ):
        with pytest.raises(error, match=words):
            run(lbfgs(), *args)


def test_progress(capfd, monkeypatch):
    jitted = jax.jit(lambda x: run(lbfgs(), square, x, progress=True, max_iter=50))
    for _ in range(2):  # each run of one executable has a bar
        jax.block_until_ready(jitted(jnp.ones(3)))
        jax.effects_barrier()
        text = capfd.readouterr().err
        assert "run" in text
        assert "gradient norm" in text
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="progress=True needs the package tqdm"):
        run(lbfgs(), square, jnp.ones(3), progress=True)
