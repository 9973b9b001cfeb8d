"""Arithmetic, reductions, casts, random trees and moments, against NumPy and closed forms."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import tree, tree_utils


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    w: object
    b: object


TREES = {
    "array": jnp.array([1.0, -2.0, 4.0]),
    "scalar": jnp.array(3.0),
    "dict": {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([[4.0]])}},
    "tuple": (jnp.array([1.0, 2.0]), [jnp.array(5.0)]),
    "none": {"a": None, "b": jnp.array([1.0, 2.0])},
    "dataclass": Layer(jnp.array([1.0, 2.0]), None),
    "numpy": {"a": np.array([1.0, 2.0], np.float32)},
    "empty": {},
}

each_tree = pytest.mark.parametrize("x", TREES.values(), ids=TREES.keys())


def assert_trees_close(actual, expected, rtol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.complex128), np.asarray(e), rtol=rtol)


def flat(x):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)] or [np.zeros(0)])


class TestNames:
    def test_are_sorted_and_complete(self):
        assert tree.__all__ == sorted(tree.__all__)
        assert all(callable(getattr(tree, name)) for name in tree.__all__)

    def test_tree_utils_is_the_same_with_a_prefix(self):
        expected = {"NamedTupleKey", *(f"tree_{name}" for name in tree.__all__)}
        assert set(tree_utils.__all__) == expected
        assert tree_utils.__all__ == sorted(tree_utils.__all__)
        for name in tree.__all__:
            assert getattr(tree_utils, f"tree_{name}") is getattr(tree, name)


class TestArithmetic:
    @each_tree
    def test_against_leaves(self, x):
        y = jax.tree.map(lambda leaf: 3.0 * leaf + 1.0, x)
        cases = {
            tree.add: lambda a, b: a + b,
            tree.sub: lambda a, b: a - b,
            tree.mul: lambda a, b: a * b,
            tree.div: lambda a, b: a / b,
        }
        for f, expected in cases.items():
            assert_trees_close(f(x, y), jax.tree.map(expected, x, y))
            assert_trees_close(jax.jit(f)(x, y), jax.tree.map(expected, x, y))
        assert_trees_close(tree.add(x, y, y, x), jax.tree.map(lambda a, b: 2 * (a + b), x, y))
        assert_trees_close(tree.scale(0.5, x), jax.tree.map(lambda a: 0.5 * a, x))
        assert_trees_close(tree.add_scale(x, -2.0, y), jax.tree.map(lambda a, b: a - 2 * b, x, y))
        assert_trees_close(tree.where(True, x, y), x)
        assert_trees_close(tree.where(False, x, y), y)
        assert_trees_close(tree.clip(x, 0.0, 1.5), jax.tree.map(lambda a: np.clip(a, 0, 1.5), x))
        assert_trees_close(tree.clip(x, min_value=0.0), jax.tree.map(lambda a: np.maximum(a, 0), x))
        assert_trees_close(tree.clip(x, max_value=0.0), jax.tree.map(lambda a: np.minimum(a, 0), x))

    @pytest.mark.parametrize(
        "f", [tree.add, tree.sub, tree.mul, tree.div, tree.vdot, tree.allclose]
    )
    def test_structures_must_agree(self, f):
        with pytest.raises(ValueError, match="a"):
            f({"a": jnp.ones(2), "b": jnp.ones(2)}, {"a": jnp.ones(2)})

    def test_python_scalars_keep_dtypes(self):
        x = (jnp.ones(2, jnp.float16), jnp.ones(2, jnp.bfloat16))
        assert [a.dtype for a in tree.scale(2.0, x)] == [jnp.float16, jnp.bfloat16]
        assert [a.dtype for a in tree.add_scale(x, 2.0, x)] == [jnp.float16, jnp.bfloat16]

    def test_add_scale_tolerates_none_on_the_left(self):
        assert tree.add_scale((None, 1.0), 2.0, (jnp.ones(2), 3.0)) == (None, 7.0)

    def test_complex(self):
        x = {"a": jnp.array([1 + 2j]), "b": jnp.array([3.0])}
        assert_trees_close(tree.conj(x), {"a": np.array([1 - 2j]), "b": np.array([3.0])})
        assert_trees_close(tree.real(x), {"a": np.array([1.0]), "b": np.array([3.0])})
        with pytest.raises(ValueError, match="complex"):
            tree.clip(x, 0.0, 1.0)


class TestReductions:
    @each_tree
    def test_against_numpy(self, x):
        v = flat(x).astype(np.float64)
        y = jax.tree.map(lambda leaf: 3.0 * leaf + 1.0, x)
        np.testing.assert_allclose(tree.sum(x), v.sum(), rtol=1e-6)
        np.testing.assert_allclose(tree.sum(x, associative_reduction=True), v.sum(), rtol=1e-6)
        np.testing.assert_allclose(tree.vdot(x, y), v @ flat(y).astype(np.float64), rtol=1e-6)
        np.testing.assert_allclose(tree.norm(x), np.linalg.norm(v), rtol=1e-6)
        np.testing.assert_allclose(tree.norm(x, squared=True), v @ v, rtol=1e-6)
        assert tree.max(x) == v.max(initial=-np.inf)
        assert tree.min(x) == v.min(initial=np.inf)
        assert tree.size(x) == v.size
        assert bool(tree.allclose(x, x))

    @pytest.mark.parametrize(
        ("ord", "expected"),
        [(None, 13), (2, 13), (1, 19), ("inf", 12), (np.inf, 12), (math.inf, 12), (jnp.inf, 12)],
    )
    def test_norms(self, ord, expected):
        x = {"a": jnp.array([3.0, -4.0]), "b": -12.0, "c": None, "d": jnp.zeros(0)}
        assert tree.norm(x, ord) == expected
        assert tree.norm(x, ord, squared=True) == expected**2
        assert tree.norm({}, ord) == tree.norm({}, ord, squared=True) == 0

    @pytest.mark.parametrize("ord", [0, 3, -1, "fro"])
    def test_unknown_norm(self, ord):
        with pytest.raises(ValueError, match=r"tree.norm: ord must be None, 1, 2, or inf"):
            tree.norm(jnp.ones(2), ord)

    @pytest.mark.parametrize("ord", [None, 1, np.inf])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
    def test_norms_are_float32_at_least(self, ord, dtype):
        x = jnp.full(1000, 200, dtype)
        norm = tree.norm(x, ord)
        assert norm.dtype == jnp.float32
        expected = {None: 200 * math.sqrt(1000), 1: 2e5, np.inf: 200}[ord]
        np.testing.assert_allclose(norm, expected, rtol=1e-6)

    def test_norm_of_complex_leaves_uses_the_modulus(self):
        x = {"a": jnp.array([3 + 4j]), "b": jnp.array([12.0])}
        assert tree.norm(x) == 13
        assert tree.norm(x, 1) == 17
        assert tree.norm(x, "inf") == 12

    @pytest.mark.parametrize("ord", [None, 1, np.inf])
    def test_gradient_at_zero_is_finite(self, ord):
        gradient = jax.grad(lambda x: tree.norm(x, ord))({"a": jnp.zeros(2), "b": jnp.zeros(1)})
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
        if ord is None:
            assert all(np.all(g == 0) for g in jax.tree.leaves(gradient))

    def test_low_precision_sums_do_not_stall(self):
        # In bfloat16, 256 + 1 = 256.
        x = [jnp.ones(1, jnp.bfloat16)] * 512
        assert tree.sum(x) == 512
        assert tree.sum(x).dtype == jnp.bfloat16
        assert tree.vdot(x, x) == 512
        assert tree.sum(x, associative_reduction=True) == 512

    @pytest.mark.parametrize("n", range(1, 10))
    def test_pairwise_sum_takes_every_leaf_once(self, n):
        x = [jnp.array(2.0**i) for i in range(n)]
        assert tree.sum(x, associative_reduction=True) == 2**n - 1

    def test_vdot_conjugates_the_first_and_checks_shapes(self):
        assert tree.vdot(jnp.array([1j]), jnp.array([1.0])) == -1j
        with pytest.raises(TypeError, match=r"equal shapes, got \(3,\) and \(2,\)"):
            tree.vdot(jnp.ones(3), jnp.ones(2))

    def test_extrema_are_exact_for_integers_and_skip_empty_leaves(self):
        x = (jnp.array([2**24 + 1]), jnp.zeros(0, int))
        assert int(tree.max(x)) == int(tree.min(x)) == 2**24 + 1

    def test_allclose(self):
        x = {"a": jnp.array([1.0, jnp.nan])}
        assert not tree.allclose(x, x)
        assert tree.allclose(x, x, equal_nan=True)
        assert not tree.allclose(1.0, 1.1)
        assert tree.allclose(1.0, 1.1, atol=0.2)
        assert tree.allclose(1.0, 1.1, rtol=0.2)
        assert not tree.allclose((1.0, 2.0), (1.0, 3.0))
        assert jax.jit(tree.allclose)({"a": 1.0}, {"a": 1.0})

    def test_size_of_shapes(self):
        assert tree.size({"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": 1.0}) == 7


class TestCasting:
    def test_cast(self):
        x = {"a": jnp.ones(2), "i": jnp.ones(2, int), "n": None, "p": 1.5, "np": np.ones(2)}
        out = tree.cast(x, jnp.bfloat16)
        assert {a.dtype for a in jax.tree.leaves(out)} == {np.dtype(jnp.bfloat16)}
        assert out["n"] is None
        assert isinstance(out["np"], np.ndarray)
        assert tree.cast(x, None) is x

    def test_cast_from_complex_takes_the_real_part(self, recwarn):
        assert tree.cast(jnp.array([1 + 2j]), jnp.float32) == 1
        assert not recwarn

    def test_cast_like(self):
        x = {"a": jnp.ones(2), "b": jnp.ones(2)}
        like = {"a": jnp.ones(1, jnp.float16), "b": jax.ShapeDtypeStruct((), jnp.int32)}
        out = tree.cast_like(x, like)
        assert (out["a"].dtype, out["b"].dtype) == (jnp.float16, jnp.int32)

    @pytest.mark.parametrize(
        ("dtypes", "handler", "expected"),
        [
            ("bfloat16 bfloat16", None, "bfloat16"),
            ("bfloat16 float32", "promote", "float32"),
            ("bfloat16 float16", "promote", "float32"),
            ("bfloat16 float32 int8", "highest", "float32"),
            ("float32 bfloat16 float32", "lowest", "bfloat16"),
            ("int8 float32", "lowest", "int8"),
            ("", None, "float32"),
            ("", "lowest", "float32"),
        ],
    )
    def test_dtype(self, dtypes, handler, expected):
        x = [jnp.ones(1, d) for d in dtypes.split()]
        assert tree.dtype(x, handler) == jnp.dtype(expected)
        shapes = [jax.ShapeDtypeStruct((1,), d) for d in dtypes.split()]
        assert tree.dtype(shapes, handler) == jnp.dtype(expected)

    def test_dtype_errors(self):
        x = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1, jnp.float16)}
        with pytest.raises(ValueError, match=r"bfloat16 at \['a'\] and float16 at \['b'\]"):
            tree.dtype(x)
        for handler in ("highest", "lowest"):
            with pytest.raises(ValueError, match=f"which of bfloat16 and float16 is {handler}"):
                tree.dtype(x, handler)
        with pytest.raises(ValueError, match="mixed_dtype_handler must be None, 'promote'"):
            tree.dtype(x, "largest")

    @pytest.mark.parametrize(
        ("f", "value"),
        [(tree.zeros_like, 0), (tree.ones_like, 1), (lambda x, d: tree.full_like(x, 7, d), 7)],
    )
    @pytest.mark.parametrize("dtype", [None, jnp.float16])
    def test_constants(self, f, value, dtype):
        x = {"a": jnp.ones((2, 3)), "n": None, "s": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}
        out = f(x, dtype)
        assert out["n"] is None
        assert (out["a"].shape, out["s"].shape) == ((2, 3), (4,))
        assert (out["a"].dtype, out["s"].dtype) == (
            dtype or jnp.float32,
            dtype or jnp.bfloat16,
        )
        assert all(np.all(leaf == value) for leaf in jax.tree.leaves(out))

    def test_batch_shape(self):
        x = {"a": jnp.array([1.0, 2.0]), "b": 3.0}
        out = tree.batch_shape(x, (4, 5))
        assert (out["a"].shape, out["b"].shape) == ((4, 5, 2), (4, 5))
        assert np.all(out["a"][3, 4] == x["a"])
        assert_trees_close(tree.batch_shape(x), x)


class TestRandom:
    @pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)])
    def test_every_leaf_gets_its_own_key(self, key):
        x = {"a": jnp.zeros(3), "b": (jnp.zeros((3,), jnp.float16), None)}
        keys = tree.split_key_like(key, x)
        assert jax.tree.structure(keys) == jax.tree.structure(x)
        first, second = jax.random.split(key, 2)
        assert jnp.all(keys["a"] == first)
        assert jnp.all(keys["b"][0] == second)
        sample = tree.random_like(key, x)
        assert jnp.all(sample["a"] == jax.random.normal(first, (3,)))
        assert jnp.all(sample["b"][0] == jax.random.normal(second, (3,), jnp.float16))

    def test_sampler_dtype_and_shapes(self):
        x = {"a": jax.ShapeDtypeStruct((100,), jnp.float16), "c": jnp.zeros(5, jnp.complex64)}
        key = jax.random.key(0)
        assert tree.random_like(key, x)["c"].dtype == jnp.complex64
        signs = tree.random_like(key, x["a"], jax.random.rademacher)
        assert signs.dtype == jnp.float16
        assert set(np.unique(signs)) == {-1, 1}
        assert tree.random_like(key, x["a"], dtype=jnp.float32).dtype == jnp.float32
        assert tree.random_like(key, 1.0).shape == ()
        assert tree.random_like(key, {}) == {}

    def test_unwrap(self):
        key = jax.random.key(5)
        x = {"k": key, "x": jnp.ones(2), "p": 3, "n": None}
        out = tree.unwrap_random_key_data(x)
        assert np.all(out["k"] == jax.random.key_data(key))
        assert out["x"] is x["x"]
        assert (out["p"], out["n"]) == (3, None)


class TestMoments:
    @pytest.mark.parametrize("order", [1, 2, 3, 0.5])
    @pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
    def test_update_moment(self, order, decay):
        g, m = np.array([1.0, 2.0, 4.0]), np.array([3.0, 0.5, 1.0])
        expected = decay * m + (1 - decay) * g**order
        for f in (tree.update_moment, tree.update_moment_per_elem_norm):
            actual = f({"a": jnp.asarray(g)}, {"a": jnp.asarray(m)}, decay, order)
            assert_trees_close(actual, {"a": expected})

    def test_complex(self):
        g, m = jnp.array([3 + 4j]), jnp.array([1.0])
        assert_trees_close(
            tree.update_moment(g, m + 0j, 0.5, 2), np.array([0.5 + (3 + 4j) ** 2 / 2])
        )
        for order, power in ((1, 5), (2, 25), (4, 625)):
            out = tree.update_moment_per_elem_norm(g, m, 0.5, order)
            assert out.dtype == jnp.float32
            assert_trees_close(out, np.array([0.5 + 0.5 * power]))
        out = tree.update_infinity_moment(g, m, 0.5, 0.25)
        assert_trees_close(out, np.array([5.25]))

    def test_infinity(self):
        g, m = jnp.array([-1.0, 2.0]), jnp.array([4.0, 1.0])
        assert_trees_close(tree.update_infinity_moment(g, m, 0.5, 0.1), np.array([2.0, 2.1]))

    @pytest.mark.parametrize(
        "f",
        [
            lambda g, m: tree.update_moment(g, m, 0.9, 2),
            lambda g, m: tree.update_moment_per_elem_norm(g, m, 0.9, 2),
            lambda g, m: tree.update_infinity_moment(g, m, 0.9, 1e-8),
        ],
    )
    def test_none_updates(self, f):
        assert f((None, jnp.ones(1)), (jnp.ones(1), jnp.ones(1)))[0] is None

    def test_small_squares_survive_in_float32_moments(self):
        # 1e-5 squared is 0 in float16.
        g, m = jnp.array([1e-5], jnp.float16), jnp.zeros(1)
        out = tree.update_moment(g, m, 0.0, 2)
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, float(g[0]) ** 2, rtol=1e-6)

    @pytest.mark.parametrize("decay", [0.9, jnp.float32(0.9)])
    def test_dtypes_promote(self, decay):
        low, high = jnp.ones(1, jnp.bfloat16), jnp.ones(1)
        assert tree.update_moment(low, low, decay, 1).dtype == jnp.bfloat16
        assert tree.update_moment(low, high, decay, 1).dtype == jnp.float32
        assert tree.update_moment(high, low, decay, 1).dtype == jnp.float32

    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 1 - 1e-7])
    @pytest.mark.parametrize("count", [1, 10])
    def test_bias_correction_undoes_the_zero_start(self, decay, count):
        # The average of a constant 1 that began at 0 is the weight itself.
        weight = (1 - decay) * math.fsum(decay**i for i in range(count))
        moment = {"a": jnp.full(2, weight), "n": None}
        for n in (count, jnp.int32(count)):
            out = tree.bias_correction(moment, decay, n)
            np.testing.assert_allclose(out["a"], [1, 1], rtol=1e-6)
            assert out["n"] is None

    def test_bias_correction_is_never_zero_by_zero(self):
        for decay, count in ((1.0, 5), (0.9, 0), (jnp.float32(1.0), 5), (0.0, 0)):
            assert_trees_close(tree.bias_correction(jnp.zeros(2), decay, count), np.zeros(2))

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
    def test_bias_correction_keeps_dtypes(self, dtype):
        out = jax.jit(tree.bias_correction)(jnp.ones(2, dtype), 0.9, jnp.int32(2))
        assert out.dtype == dtype
        np.testing.assert_allclose(np.complex128(out), 1 / 0.19, rtol=1e-2)
