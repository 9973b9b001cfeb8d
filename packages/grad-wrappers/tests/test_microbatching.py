"""Microbatching: what one step on the whole batch gives, in the memory of one microbatch."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from grad_wrappers.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
    reshape_batch_axis,
)

CONCAT, MEAN, RUNNING_MEAN, SUM = (
    AccumulationType.CONCAT,
    AccumulationType.MEAN,
    AccumulationType.RUNNING_MEAN,
    AccumulationType.SUM,
)
ROWS = 24
SIZES = [1, 2, 6, 8, 24]
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=ROWS).astype(np.float32)
W = {"kernel": jnp.array([0.5, -1.0, 2.0]), "bias": jnp.array(0.25), "none": None}

assert_close = functools.partial(
    jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
)


def losses(w, x, y):
    return jnp.square(jnp.tanh(x @ w["kernel"] + w["bias"]) - y)


def mean_loss(w, x, y):
    return losses(w, x, y).mean()


def sum_loss(w, x, y):
    return losses(w, x, y).sum()


def temporary_bytes(fun, *args):
    return jax.jit(fun).lower(*args).compile().memory_analysis().temp_size_in_bytes


class TestValues:
    @pytest.mark.parametrize("jit", [False, True])
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(
        ("fun", "accumulator"),
        [
            (jax.value_and_grad(mean_loss), MEAN),
            (jax.value_and_grad(mean_loss), RUNNING_MEAN),
            (jax.value_and_grad(sum_loss), SUM),
            (losses, CONCAT),
            (lambda w, x, y: (mean_loss(w, x, y), {"a": losses(w, x, y)}), (MEAN, CONCAT)),
        ],
    )
    def test_the_whole_batch_at_once(self, fun, accumulator, size, jit):
        split = microbatch(fun, (1, 2), size, accumulator)
        assert_close((jax.jit(split) if jit else split)(W, X, Y), fun(W, X, Y))

    def test_rows_keep_their_order_and_microbatches_take_every_nth(self):
        rows = jnp.arange(8)
        np.testing.assert_array_equal(microbatch(lambda x: x, 0, 2, CONCAT)(rows), rows)
        firsts = microbatch(lambda x: x[0], 0, 2, CONCAT)(rows)
        np.testing.assert_array_equal(firsts, [0, 1, 2, 3])
        np.testing.assert_array_equal(reshape_batch_axis(rows, 2), [[0, 4], [1, 5], [2, 6], [3, 7]])

    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
    def test_axes(self, axis):
        x = np.arange(6.0 * 6 * 6).reshape(6, 6, 6)
        double = microbatch(lambda x: (2 * x).sum(), 0, 2, in_axes=axis)
        np.testing.assert_allclose(double(x), 2 * x.sum())
        taken = microbatch(lambda x: jnp.moveaxis(x, axis, 0), 0, 2, CONCAT, in_axes=axis)(x)
        np.testing.assert_array_equal(taken, np.moveaxis(x, axis, 0))
        apart = reshape_batch_axis(x, 2, axis)
        front = axis % 3
        assert apart.shape == (*x.shape[:front], 3, 2, *x.shape[front + 1 :])
        for i in range(3):
            rows = np.take(x, [i, i + 3], axis=front)
            np.testing.assert_array_equal(np.take(apart, i, axis=front), rows)

    def test_arguments_by_position_name_and_tree(self):
        def fun(scale, x, *, y, mode):
            assert mode == "sum"
            return scale * (x["a"].T * y).sum() + x["c"]

        by_rows = microbatch(
            fun, -1, 4, argnames=["y"], in_axes=({"a": 1, "c": None, "none": None}, 0)
        )
        x = {"a": X.T, "c": 2.0, "none": None}
        total = by_rows(3.0, x, y=X, mode="sum")
        np.testing.assert_allclose(total, 3 * (X * X).sum() + 6 * 2.0, rtol=1e-5)

    def test_keys_are_split_like_rows(self):
        keys = jax.random.split(jax.random.key(0), 6)
        noise = jax.vmap(jax.random.normal)
        np.testing.assert_array_equal(microbatch(noise, 0, 2, CONCAT)(keys), noise(keys))
        same = microbatch(lambda keys: keys, 0, 2, CONCAT)(keys)
        np.testing.assert_array_equal(jax.random.key_data(same), jax.random.key_data(keys))
        one = microbatch(lambda key, x: jax.random.normal(key) + x, 1, 2, CONCAT)
        np.testing.assert_allclose(one(keys[0], Y), jax.random.normal(keys[0]) + Y)

    def test_what_is_no_array(self):
        assert microbatch(lambda x: None, 0, 2)(Y) is None
        assert microbatch(lambda x: {}, 0, 2)(Y) == {}
        assert microbatch(lambda x: 1.5, 0, 2)(Y) == 18.0
        assert microbatch(lambda x: (1, None), 0, 2, (SUM, CONCAT))(Y) == (12, None)

    def test_none_leaves_the_function_alone(self):
        assert microbatch(sum_loss, 1, None, MEAN) is sum_loss

    def test_the_signature_stays(self):
        assert inspect.signature(microbatch(sum_loss, 1, 2)) == inspect.signature(sum_loss)

    def test_values_of_shape_zero_become_rows(self):
        means = microbatch(jnp.mean, 0, 6, CONCAT)(Y)
        np.testing.assert_allclose(means, Y.reshape(6, 4).mean(axis=0), rtol=1e-6)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_short_floats_are_summed_in_float32(self, dtype):
        ones = jnp.ones(3000, dtype)
        total = microbatch(jnp.sum, 0, 1)(ones)  # in its own dtype it stops at 2048, or at 256
        assert total.dtype == dtype
        assert total == dtype(3000)
        assert micro_vmap(lambda x: x, microbatch_size=10, accumulator=SUM)(ones) == dtype(3000)

    @pytest.mark.parametrize("kind", [MEAN, RUNNING_MEAN])
    def test_means_of_short_floats(self, kind):
        large = jnp.full(64, 6e4, jnp.float16)
        for mean in (
            microbatch(jnp.mean, 0, 4, kind)(large),
            micro_vmap(lambda x: x, microbatch_size=4, accumulator=kind)(large),
        ):
            assert mean.dtype == jnp.float16
            assert mean == jnp.float16(6e4)

    def test_running_means_do_not_overflow(self):
        large = jnp.array([3e38, -3e38, 3e38, 3e38], jnp.float32)
        first, identity = (lambda x: x[0]), (lambda x: x)
        np.testing.assert_allclose(microbatch(first, 0, 1, RUNNING_MEAN)(large), 1.5e38, rtol=1e-6)
        for size in (1, 2, 4):
            mean = micro_vmap(identity, microbatch_size=size, accumulator=RUNNING_MEAN)(large)
            np.testing.assert_allclose(mean, 1.5e38, rtol=1e-6)

    def test_running_means_do_not_drift(self):
        x = jnp.full(4096, 0.1, jnp.float32)
        assert microbatch(lambda x: x[0], 0, 1, RUNNING_MEAN)(x) == jnp.float32(0.1)

    @pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.complex64, jnp.float64])
    def test_other_dtypes_stay(self, dtype):
        with jax.enable_x64(dtype == jnp.float64):
            x = jnp.arange(8).astype(dtype)
            total = microbatch(lambda x: x.sum(dtype=dtype), 0, 2)(x)
            assert total.dtype == dtype
            assert total == 28
            if jnp.issubdtype(dtype, jnp.inexact):
                mean = microbatch(lambda x: x.mean(dtype=dtype), 0, 2, MEAN)(x)
                assert mean.dtype == dtype
                assert mean == 3.5

    def test_integers_of_rows_have_the_dtypes_of_numpy(self):
        x = jnp.full(8, 100, jnp.int8)
        assert micro_vmap(lambda x: x, microbatch_size=2, accumulator=SUM)(x) == 800
        assert micro_vmap(lambda x: x > 0, microbatch_size=2, accumulator=SUM)(x) == 8
        for kind in (MEAN, RUNNING_MEAN):
            mean = micro_vmap(lambda x: x, microbatch_size=2, accumulator=kind)(x + jnp.int8(1))
            assert mean.dtype == jnp.float32
            assert mean == 101


class TestRealMicrobatches:
    """With padding, the rows of microbatches that do not run play no part."""

    @pytest.mark.parametrize("kind", [jnp.int32, int])
    @pytest.mark.parametrize("real", [0, 1, 3, 4])
    def test_only_those_run(self, real, kind):
        rows = np.arange(8.0).astype(np.float32)
        ran = rows.reshape(2, 4)[:, :real]

        def run(accumulator, n):
            return microbatch(jnp.sum, 0, 2, accumulator, num_real_microbatches=n)(rows)

        call = run if kind is int else jax.jit(run, static_argnums=0)
        mean = ran.sum() / real if real else 0.0
        np.testing.assert_allclose(call(SUM, kind(real)), ran.sum())
        np.testing.assert_allclose(call(MEAN, kind(real)), mean)
        np.testing.assert_allclose(call(RUNNING_MEAN, kind(real)), mean)
        sums = np.concatenate([ran.sum(axis=0), np.zeros(4 - real)])
        np.testing.assert_allclose(call(CONCAT, kind(real)), sums)

    def test_padding_may_hold_anything(self):
        rows = jnp.array([1.0, 2.0, jnp.nan, 3.0, 4.0, jnp.nan])
        mean = jax.jit(lambda n: microbatch(jnp.mean, 0, 2, MEAN, num_real_microbatches=n)(rows))
        assert mean(2) == 2.5
        grad = jax.jit(
            jax.grad(
                lambda w, n: microbatch(
                    lambda w, x: jnp.mean(w * x), 1, 2, MEAN, num_real_microbatches=n
                )(w, rows)
            )
        )
        assert grad(1.0, 2) == 2.5

    def test_one_program_for_all_numbers(self):
        traces = []

        @jax.jit
        def total(x, n):
            traces.append(1)
            return microbatch(jnp.sum, 0, 2, num_real_microbatches=n)(x)

        assert [total(jnp.ones(8), n).item() for n in (1, 2, 4, 9, -1)] == [2, 4, 8, 8, 0]
        assert len(traces) == 1

    def test_of_rows(self):
        mean = micro_vmap(lambda x: x, microbatch_size=2, accumulator=MEAN, num_real_microbatches=2)
        assert mean(jnp.arange(8.0)) == np.mean([0, 4, 1, 5])


class TestTransformations:
    def test_the_function_is_traced_once(self):
        traces = []

        def fun(w, x, y):
            traces.append(1)
            return mean_loss(w, x, y)

        for call in (microbatch(fun, (1, 2), 2), micro_vmap(fun, (None, 0, 0), microbatch_size=2)):
            traces.clear()
            call(W, X, Y)
            assert len(traces) == 1
            traces.clear()
            jax.jit(call)(W, X, Y)
            assert len(traces) == 1

    def test_the_program_does_not_grow_with_the_number_of_microbatches(self):
        def size(m):
            return len(str(jax.make_jaxpr(microbatch(sum_loss, (1, 2), m))(W, X, Y)).splitlines())

        assert size(1) == size(12)

    @pytest.mark.parametrize("real", [None, 12, jnp.int32(12)])
    @pytest.mark.parametrize("kind", [SUM, MEAN, RUNNING_MEAN, CONCAT])
    def test_derivatives(self, kind, real):
        split = microbatch(sum_loss, (1, 2), 2, kind, num_real_microbatches=real)

        def plain(w, x, y):
            return sum_loss(w, x, y) / (12 if kind in (MEAN, RUNNING_MEAN) else 1)

        def total(*args):
            return split(*args).sum()

        assert_close(jax.grad(total, (0, 1))(W, X, Y), jax.grad(plain, (0, 1))(W, X, Y))
        hessian = jax.hessian(lambda k: total(W | {"kernel": k}, X, Y))(W["kernel"])
        expected = jax.hessian(lambda k: plain(W | {"kernel": k}, X, Y))(W["kernel"])
        np.testing.assert_allclose(hessian, expected, rtol=1e-4, atol=1e-5)

    def test_rules_of_users_for_derivatives(self):
        @jax.custom_vjp
        def twice(x):
            return x

        twice.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))
        grad = jax.grad(microbatch(lambda w, x: twice(w * x).sum(), 1, 2))(1.0, Y)
        np.testing.assert_allclose(grad, 2 * Y.sum(), rtol=1e-5)

    def test_vmap(self):
        split = microbatch(mean_loss, (1, 2), 4, MEAN)
        kernels = jnp.stack([W["kernel"], -W["kernel"]])
        both = jax.vmap(lambda kernel: split(W | {"kernel": kernel}, X, Y))(kernels)
        one_by_one = [mean_loss(W | {"kernel": kernel}, X, Y) for kernel in kernels]
        assert_close(both, jnp.stack(one_by_one))

    def test_microbatches_of_microbatches(self):
        outer = microbatch(microbatch(sum_loss, (1, 2), 2), (1, 2), 6)
        np.testing.assert_allclose(outer(W, X, Y), sum_loss(W, X, Y), rtol=1e-5)


class TestMemory:
    W = jnp.ones((64, 64))
    X = jnp.ones((4096, 64))
    SIZE = 64

    @staticmethod
    def loss(w, x):
        return jnp.mean(jnp.tanh(jnp.tanh(x @ w) @ w) ** 2)

    @pytest.mark.parametrize("is_traced", [False, True])
    @pytest.mark.parametrize("kind", [MEAN, SUM, RUNNING_MEAN])
    def test_one_microbatch_and_one_accumulator(self, kind, is_traced):
        grads = jax.value_and_grad(self.loss)

        def split(w, x, n):
            real = n if is_traced else None
            return microbatch(grads, 1, self.SIZE, kind, num_real_microbatches=real)(w, x)

        plain = temporary_bytes(grads, self.W, self.X)
        one = temporary_bytes(grads, self.W, self.X[: self.SIZE]) + self.X[: self.SIZE].nbytes
        used = temporary_bytes(split, self.W, self.X, jnp.int32(3))
        assert used <= one + self.W.nbytes + 2048  # some bytes for counters and scalars
        assert used < plain / 30

    def test_other_axes_are_not_copied_either(self):
        grads = jax.value_and_grad(lambda w, x: self.loss(w, x.T))
        one = temporary_bytes(grads, self.W, self.X[: self.SIZE].T) + self.X[: self.SIZE].nbytes
        used = temporary_bytes(microbatch(grads, 1, self.SIZE, MEAN, in_axes=1), self.W, self.X.T)
        assert used <= one + self.W.nbytes + 2048

    def test_rows_are_put_in_place(self):
        def rows(w, x):
            return jnp.tanh(jnp.tanh(x @ w) @ w)

        used = temporary_bytes(microbatch(rows, 1, self.SIZE, CONCAT), self.W, self.X)
        assert used <= 3 * self.X[: self.SIZE].nbytes

    def test_gradients_of_rows_are_never_all_there(self):
        split = functools.partial(micro_grad, self.loss, accumulator=SUM)
        x = self.X[:512]
        whole = temporary_bytes(split(), self.W, x)
        used = temporary_bytes(split(microbatch_size=8), self.W, x)
        assert whole >= 512 * self.W.nbytes
        assert used < whole / 16


class TestRows:
    @pytest.mark.parametrize("size", [None, *SIZES])
    def test_is_vmap(self, size):
        def fun(w, x, y, z):
            return losses(w, x, y) + z, {"x": x}

        axes = (None, 1, 0)
        mapped = micro_vmap(fun, axes, microbatch_size=size)(W, X.T, Y, z=Y)
        expected = jax.vmap(fun, (None, 1, 0, 0))(W, X.T, Y, Y)
        assert_close(mapped, expected)
        means = micro_vmap(fun, axes, microbatch_size=size, accumulator=(MEAN, SUM))
        expected = expected[0].mean(axis=0), {"x": expected[1]["x"].sum(axis=0)}
        assert_close(means(W, X.T, Y, z=Y), expected)

    def test_axes_that_are_trees(self):
        def fun(d):
            return d["a"] * d["b"]

        mapped = micro_vmap(fun, ({"a": 0, "b": None},), microbatch_size=2)
        np.testing.assert_allclose(mapped({"a": Y, "b": 2.0}), 2 * Y)

    def test_vmap_fn(self):
        mapped = micro_vmap(
            lambda x: x - jax.lax.pmean(x, "rows"),
            microbatch_size=2,
            vmap_fn=functools.partial(jax.vmap, axis_name="rows"),
        )
        np.testing.assert_allclose(mapped(jnp.arange(4.0)), [-1, -1, 1, 1])

    @pytest.mark.parametrize("size", [None, 2, 12, 24])
    def test_gradients_of_rows(self, size):
        gradients = micro_grad(
            mean_loss,
            argnums=(0, 1),
            batch_argnums=(1, -1),
            microbatch_size=size,
            transform_fn=lambda g: (g, jax.tree.map(jnp.square, g)),
            metrics_fn=lambda g: jnp.abs(g[0]["bias"]),
        )
        (first, second), aux = gradients(W, X, Y)
        single = jax.vmap(jax.grad(losses, (0, 1)), (None, 0, 0))(W, X, Y)

        def with_rows(g):  # the row of x is a batch of one row
            return g[0], g[1][None]

        def total(tree):
            return with_rows(jax.tree.map(lambda g: g.sum(axis=0), tree))

        assert_close(first, total(single))
        assert_close(second, total(jax.tree.map(jnp.square, single)))
        assert_close(aux.values, losses(W, X, Y))
        assert_close(aux.metrics, jnp.abs(single[0]["bias"]))
        assert aux.aux is None
        assert aux._fields == ("values", "metrics", "aux")

    def test_auxiliary_values_and_rows_without_axis(self):
        def loss(w, x, scale):
            assert x.shape == (3,)
            return scale * jnp.sum(w * x), {"x": x}

        gradients = micro_grad(
            loss, True, microbatch_size=4, keep_batch_dim=False, accumulator=CONCAT
        )
        grads, aux = gradients(2.0, X, 3.0)
        np.testing.assert_allclose(grads, 3 * X.sum(axis=1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(aux.aux["x"], X)


LARGEST = Accumulator(
    init=lambda x: jax.tree.map(lambda x: jnp.full(x.shape, -jnp.inf), x),
    update=lambda carry, value, i: jax.tree.map(jnp.maximum, carry, value),
    finalize=lambda carry: {"largest": carry},
    aggregate=lambda values: jax.tree.map(lambda x: x.max(axis=0), values),
)


class TestAccumulators:
    def test_users_have_whole_subtrees(self):
        split = microbatch(lambda x: ((x.max(), -x.min()), x), 0, 4, (LARGEST, CONCAT))
        found, rows = split(Y)
        assert_close(found, {"largest": (Y.max(), -Y.min())})
        np.testing.assert_array_equal(rows, Y)

    @pytest.mark.parametrize("size", [None, 1, 4, 24])
    def test_users_of_rows(self, size):
        assert_close(
            micro_vmap(lambda x: (x, -x), microbatch_size=size, accumulator=LARGEST)(Y),
            {"largest": (Y.max(), -Y.min())},
        )

    def test_they_are_told_the_number_of_the_microbatch(self):
        weighted = Accumulator(
            init=lambda x: jnp.zeros(x.shape, x.dtype),
            update=lambda carry, value, i: carry + i * value,
            finalize=lambda carry: carry,
            aggregate=lambda values: values.sum(axis=0),
        )
        assert microbatch(jnp.sum, 0, 1, weighted)(jnp.ones(4)) == 0 + 1 + 2 + 3

    def test_are_values(self):
        assert Accumulator(1, 2, 3, 4) == Accumulator(1, 2, 3, 4)
        assert len({Accumulator(1, 2, 3, 4), Accumulator(1, 2, 3, 4)}) == 1


class TestSharding:
    @pytest.mark.parametrize("weights", [P(), P("data")])
    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    def test_rows_stay_where_they_are(self, kind, weights):
        if len(jax.devices()) < 8:
            pytest.skip("needs 8 devices")
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        x, w = jnp.arange(64.0 * 8).reshape(64, 8) / 100, jnp.ones((8, 8)) / 10

        def fun(w, x):
            return jnp.mean(jnp.tanh(x @ w) ** 2)

        expected = jax.value_and_grad(fun)(w, x)
        with jax.set_mesh(mesh):
            rows = jax.device_put(x, NamedSharding(mesh, P("data")))
            w = jax.device_put(w, NamedSharding(mesh, weights))
            split = jax.jit(microbatch(jax.value_and_grad(fun), 1, 16, MEAN))
            assert_close(split(w, rows), expected)
            same = jax.jit(microbatch(lambda x: x + 0, 0, 16, CONCAT))(rows)
            np.testing.assert_array_equal(same, x)
            assert same.sharding.is_equivalent_to(rows.sharding, 2)

    def test_inside_shard_map(self):
        if len(jax.devices()) < 8:
            pytest.skip("needs 8 devices")
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        x = jnp.arange(32.0)
        mean = jax.shard_map(
            lambda x: jax.lax.pmean(microbatch(jnp.mean, 0, 2, MEAN)(x), "data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P(),
        )
        np.testing.assert_allclose(jax.jit(mean)(x), 15.5)


def rows_of(*sizes):
    return [jnp.zeros(size) for size in sizes]


BAD = {
    "size 0": (lambda: microbatch(jnp.sum, 0, 0), "microbatch: microbatch_size .* >= 1; got 0"),
    "size -2": (lambda: micro_vmap(jnp.sum, microbatch_size=-2), "micro_vmap: .*>= 1; got -2"),
    "size 2.0": (lambda: micro_grad(jnp.sum, microbatch_size=2.0), "micro_grad: .*got 2.0"),
    "size of arrays": (lambda: reshape_batch_axis(Y, 0), "reshape_batch_axis: .*got 0"),
    "no divisor": (
        lambda: microbatch(jnp.sum, 0, 5)(Y),
        "microbatch: microbatch_size=5 does not divide the 24 rows",
    ),
    "no divisor of arrays": (lambda: reshape_batch_axis({"a": Y}, 7), "microbatch_size=7"),
    "no divisor of rows": (lambda: micro_vmap(jnp.sum, microbatch_size=7)(Y), "micro_vmap: .*=7"),
    "no rows": (lambda: microbatch(jnp.sum, 0, 5)(jnp.zeros((0, 2))), "without rows"),
    "no axis": (
        lambda: microbatch(jnp.sum, 0, 2, in_axes=1)(Y),
        r"argument 0 has .*\(24,\).*axis 1",
    ),
    "no axis of arrays": (lambda: reshape_batch_axis({"a": Y}, 2, 3), r"tree\['a'\] has .*axis 3"),
    "no axes": (
        lambda: microbatch(jnp.sum, 0, 2)({"a": 2.0}),
        r"argument 0\['a'\] must be an array",
    ),
    "axis of no kind": (lambda: microbatch(jnp.sum, 0, 2, in_axes="x")(Y), "in_axes|axis"),
    "other axes": (
        lambda: microbatch(jnp.add, (0, 1), 2, in_axes=(0,))(Y, Y),
        r"one entry for each of the 2 .*\(0,\)",
    ),
    "other axes of rows": (lambda: micro_vmap(jnp.add, (0,))(Y, Y), "micro_vmap: .*each of the 2"),
    "axes of other trees": (
        lambda: micro_vmap(jnp.sum, ({"a": 0},), microbatch_size=2)({"b": Y}),
        "micro_vmap: in_axes for argument 0",
    ),
    "unequal": (
        lambda: microbatch(jnp.sum, (0, 1), 2)(*rows_of(4, 8)),
        r"equally many rows; got \[4, 8\]",
    ),
    "nothing": (lambda: microbatch(jnp.sum, 0, 2)(None), "no argument has rows"),
    "position": (lambda: microbatch(jnp.sum, 1, 2)(Y), "argnums has 1, but the call has 1 pos"),
    "position of rows": (lambda: micro_grad(jnp.sum)(Y), "micro_grad: batch_argnums has 1"),
    "name": (lambda: microbatch(jnp.sum, 0, 2, argnames="b")(Y, a=1), r"has 'b', .*\['a'\]"),
    "accumulator": (lambda: microbatch(jnp.sum, 0, 2, "sum")(Y), "AccumulationType.*got 'sum'"),
    "accumulators": (lambda: microbatch(jnp.sum, 0, 2, (SUM, SUM))(Y), "prefix of what the func"),
    "integers": (
        lambda: microbatch(jnp.sum, 0, 2, MEAN)(jnp.arange(4)),
        "MEAN needs floating-point values, .*int32",
    ),
    "real": (
        lambda: microbatch(jnp.sum, 0, 2, num_real_microbatches=13)(Y),
        r"num_real_microbatches must be in \[0, 12\].*got 13",
    ),
    "real of no kind": (
        lambda: microbatch(jnp.sum, 0, 2, num_real_microbatches=2.0)(Y),
        "num_real_microbatches must be an integer.*got 2.0",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_is_named(self, name):
        call, text = BAD[name]
        with pytest.raises(ValueError, match=text) as caught:
            call()
        assert isinstance(caught.value, TypeError | IndexError)  # as some of them once were

    def test_is_found_under_jit_too(self):
        with pytest.raises(ValueError, match="microbatch_size=5 does not divide"):
            jax.jit(microbatch(jnp.sum, 0, 5))(Y)

    def test_out_axes(self):
        with pytest.raises(NotImplementedError, match="micro_vmap: out_axes must be 0; got 1"):
            micro_vmap(jnp.sum, 0, 1)
