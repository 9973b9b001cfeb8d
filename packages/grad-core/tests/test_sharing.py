"""One dispatch for a whole tree, one trace for many leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core.sharing import CHUNK, dispatched_once, map_rows

TRACES = []


def noted(common, row):
    TRACES.append(jnp.shape(row))
    return common["factor"] * row, row + 1


def test_results_come_in_the_order_of_the_rows():
    sizes = [1, 2] * 11 + [3]
    rows = [jnp.full((size,), float(i)) for i, size in enumerate(sizes)]
    for i, (twice, more) in enumerate(map_rows(noted, {"factor": 2.0}, rows)):
        np.testing.assert_array_equal(twice, np.full(sizes[i], 2.0 * i))
        np.testing.assert_array_equal(more, np.full(sizes[i], 1.0 + i))


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3])
def test_rows_of_one_shape_are_traced_once(n):
    TRACES.clear()
    shapes = [(7, n), (n, 5)]

    @jax.jit
    def f(factor, rows):
        return map_rows(noted, {"factor": factor}, rows)

    f(2.0, [jnp.ones(shape) for _ in range(n) for shape in shapes])
    assert sorted(TRACES) == sorted(shapes)


def test_dtypes_are_told_apart():
    rows = [jnp.ones(2, jnp.float16), jnp.ones(2), jnp.ones(2, jnp.float16)]
    dtypes = [more.dtype for _, more in map_rows(noted, {"factor": 2.0}, rows)]
    assert dtypes == [jnp.float16, jnp.float32, jnp.float16]


def test_no_rows():
    assert map_rows(noted, {"factor": 1.0}, []) == []


def test_compiled_outside_of_tracing_and_plain_inside():
    seen = []

    @dispatched_once
    def f(x, *, y):
        seen.append(isinstance(x, jax.core.Tracer))
        return x + y

    assert f(1.0, y=2.0) == 3.0
    assert f(2.0, y=2.0) == 4.0
    assert seen == [True]  # traced once, and not run again
    jaxpr = jax.make_jaxpr(lambda x: f(x, y=1.0))(1.0)
    assert "jit" not in str(jaxpr)
    assert f.__name__ == "f"
