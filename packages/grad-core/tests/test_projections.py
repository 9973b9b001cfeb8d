"""Projections, by their definition: in the set, and nearer than any other point of it.

For a convex set the second is the variational inequality ``<x - p, y - p> <= 0`` for all y in it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import projections as p

EPS = 1e-5
BALLS = {
    "simplex": p.projection_simplex,
    "l1_sphere": p.projection_l1_sphere,
    "l1_ball": p.projection_l1_ball,
    "l2_sphere": p.projection_l2_sphere,
    "l2_ball": p.projection_l2_ball,
    "linf_ball": p.projection_linf_ball,
    "hypercube": p.projection_hypercube,
}
all_balls = pytest.mark.parametrize("project", BALLS.values(), ids=BALLS.keys())


def points(n=6):
    rng = np.random.default_rng(0)
    return [np.float32(scale * rng.normal(size=n)) for scale in (0.01, 0.3, 1, 3, 100)]


def members(name, n, scale, count=200):
    """Random members of a set, its extreme points included, made without the code under test."""
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(count, n))
    signs = np.concatenate([np.eye(n), -np.eye(n)])
    match name:
        case "simplex":
            raw = np.concatenate([np.eye(n), rng.dirichlet(np.ones(n), size=count)])
        case "l1_ball":
            inner = raw / np.abs(raw).sum(1, keepdims=True) * rng.uniform(size=(count, 1))
            raw = np.concatenate([signs, inner])
        case "l2_ball":
            raw = raw / np.linalg.norm(raw, axis=1, keepdims=True) * rng.uniform(size=(count, 1))
        case "linf_ball":
            raw = np.concatenate([np.sign(raw), rng.uniform(-1, 1, (count, n))])
        case "hypercube":
            raw = np.concatenate([raw > 0, rng.uniform(0, 1, (count, n))])
    return scale * raw


class TestConvexSets:
    @pytest.mark.parametrize("name", ["simplex", "l1_ball", "l2_ball", "linf_ball", "hypercube"])
    @pytest.mark.parametrize("scale", [1, 0.25, 7.0])
    def test_nearest_point(self, name, scale):
        for x in points():
            y = np.float64(BALLS[name](jnp.asarray(x), scale))
            others = members(name, x.size, scale)
            tolerance = EPS * max(1, np.abs(x).max()) * scale * x.size
            assert np.all((others - y) @ (x - y) <= tolerance)
            # It is a member: one more projection does not move it, and constraints hold.
            checks = {
                "simplex": (y.min() >= 0, np.isclose(y.sum(), scale, rtol=1e-5)),
                "l1_ball": (np.abs(y).sum() <= scale * (1 + EPS),),
                "l2_ball": (np.linalg.norm(y) <= scale * (1 + EPS),),
                "linf_ball": (np.abs(y).max() <= scale,),
                "hypercube": (y.min() >= 0, y.max() <= scale),
            }
            assert all(checks[name])

    @pytest.mark.parametrize("name", ["l1_ball", "l2_ball", "linf_ball"])
    def test_inside_is_untouched(self, name):
        x = jnp.array([0.1, -0.2, 0.3])
        assert jnp.all(BALLS[name](x) == x)
        np.testing.assert_array_equal(jax.jacobian(BALLS[name])(x), np.eye(3))
        np.testing.assert_array_equal(jax.jacobian(BALLS[name])(jnp.zeros(3)), np.eye(3))

    def test_simplex_agrees_with_bisection(self):
        for x in points(50):
            x64 = np.float64(x)
            low, high = x64.min() - 1, x64.max()
            for _ in range(100):
                middle = (low + high) / 2
                too_much = np.maximum(x64 - middle, 0).sum() > 1
                low, high = (middle, high) if too_much else (low, middle)
            expected = np.maximum(x64 - low, 0)
            actual = p.projection_simplex(jnp.asarray(x))
            np.testing.assert_allclose(actual, expected, atol=1e-5)

    def test_simplex_is_shift_invariant_and_robust(self):
        x = jnp.array([0.25, 0.5, 1.0])
        np.testing.assert_allclose(
            p.projection_simplex(x + 1024), p.projection_simplex(x), atol=1e-6
        )
        np.testing.assert_array_equal(p.projection_simplex(jnp.array([1e20, 0.0])), [1, 0])
        np.testing.assert_array_equal(p.projection_simplex(jnp.zeros(4)), np.full(4, 0.25))


class TestSpheres:
    @pytest.mark.parametrize(("name", "order"), [("l1_sphere", 1), ("l2_sphere", 2)])
    @pytest.mark.parametrize("scale", [1, 5.0])
    def test_nearest_point(self, name, order, scale):
        rng = np.random.default_rng(2)
        for x in points():
            y = np.float64(BALLS[name](jnp.asarray(x), scale))
            np.testing.assert_allclose(np.linalg.norm(y, order), scale, rtol=1e-5)
            others = rng.normal(size=(500, x.size))
            others *= scale / np.linalg.norm(others, order, axis=1, keepdims=True)
            nearest = np.linalg.norm(x - others, axis=1).min()
            assert np.linalg.norm(x - y) <= nearest + EPS * np.abs(x).max()

    @pytest.mark.parametrize(("name", "order"), [("l1_sphere", 1), ("l2_sphere", 2)])
    def test_zero_goes_to_a_point_of_the_sphere(self, name, order):
        x = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
        y = BALLS[name](x, 2.0)
        flat = np.concatenate(jax.tree.leaves(y))
        np.testing.assert_allclose(np.linalg.norm(flat, order), 2, rtol=1e-6)
        gradient = jax.grad(lambda x: BALLS[name](x)["a"].sum())(x)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))

    def test_l2_extremes(self):
        for project in (p.projection_l2_sphere, p.projection_l2_ball):
            np.testing.assert_allclose(project(jnp.array([3e25, 4e25])), [0.6, 0.8], rtol=1e-6)
        tiny = p.projection_l2_sphere(jnp.array([3e-25, 4e-25]))
        np.testing.assert_allclose(tiny, [0.6, 0.8], rtol=1e-6)


class TestTreesAndDtypes:
    @all_balls
    def test_a_tree_is_one_vector(self, project):
        x = points(6)[3]
        tree = {"a": jnp.asarray(x[:2]), "b": (jnp.asarray(x[2:].reshape(2, 2)), None)}
        out = project(tree, 2.0)
        expected = project(jnp.asarray(x), 2.0)
        np.testing.assert_allclose(out["a"], expected[:2], rtol=1e-6)
        np.testing.assert_allclose(out["b"][0].ravel(), expected[2:], rtol=1e-6)
        assert out["b"][1] is None
        jitted = jax.jit(project)(tree, 2.0)
        np.testing.assert_allclose(jitted["a"], out["a"], rtol=1e-6)
        batch = jax.vmap(project)(jnp.stack([x, -x]))
        np.testing.assert_allclose(batch[1], project(jnp.asarray(-x)), rtol=1e-5, atol=1e-6)

    @all_balls
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_dtypes_stay(self, project, dtype):
        x = {"a": jnp.array([0.5, 3.0], dtype), "b": jnp.array(-0.25, jnp.float32)}
        out = project(x)
        assert out["a"].dtype == dtype
        assert out["b"].dtype == jnp.float32
        exact = project({"a": x["a"].astype(jnp.float32), "b": x["b"]})
        np.testing.assert_allclose(np.float64(out["a"]), exact["a"], rtol=1e-2, atol=1e-2)

    @all_balls
    def test_empty_trees_integers_and_numpy(self, project):
        assert project({}) == {}
        assert project({"a": jnp.zeros(0)})["a"].shape == (0,)
        assert jnp.all(jnp.isfinite(project(jnp.array([1, 2, 3]))))
        assert jnp.all(project(np.array([1.0, 2.0], np.float32)) == project(jnp.array([1.0, 2.0])))

    @all_balls
    def test_scale_zero_is_the_origin(self, project):
        np.testing.assert_array_equal(project(jnp.array([1.0, -2.0]), 0), [0, 0])

    @pytest.mark.parametrize("name", BALLS)
    @pytest.mark.parametrize("scale", [-1, -0.5, float("nan"), np.float32(-1)])
    def test_negative_scale(self, name, scale):
        with pytest.raises(ValueError, match=f"projection_{name}: scale must be at least 0, got"):
            BALLS[name](jnp.ones(2), scale)

    @pytest.mark.parametrize("name", ["l1_sphere", "l1_ball", "l2_sphere", "l2_ball"])
    def test_complex_numbers_keep_their_phase(self, name):
        x = np.array([3.0, 0.5, 2.0]) * np.exp(1j * np.array([0.3, 2.0, -1.0]))
        modulus = BALLS[name](jnp.abs(jnp.asarray(x)))
        expected = np.asarray(modulus) * x / np.abs(x)
        np.testing.assert_allclose(BALLS[name](jnp.asarray(x)), expected, atol=1e-6)

    @pytest.mark.parametrize("name", ["simplex", "linf_ball", "hypercube"])
    def test_complex_numbers_have_no_order(self, name):
        with pytest.raises(ValueError, match=rf"projection_{name}: .* complex one at \['a'\]"):
            BALLS[name]({"a": jnp.array([1j])})

    @all_balls
    def test_derivatives_agree_with_differences(self, project):
        x = jnp.array([0.35, 2.0, -1.2, 0.9])
        jacobian = jax.jacobian(project)(x)
        h = 1e-2
        for i in range(4):
            step = h * jnp.eye(4)[i]
            difference = (project(x + step) - project(x - step)) / (2 * h)
            np.testing.assert_allclose(jacobian[:, i], difference, atol=1e-2)


class TestBoxes:
    def test_bounds_of_every_kind(self):
        x = {"a": jnp.array([-2.0, 0.5]), "b": (jnp.array(3.0),)}
        expected = {"a": jnp.array([-1.0, 0.5]), "b": (jnp.array(1.0),)}
        for bound in (1.0, jnp.array(1.0), {"a": 1.0, "b": (1.0,)}, {"a": jnp.ones(2), "b": 1.0}):
            out = p.projection_box(x, jax.tree.map(lambda b: -b, bound), bound)
            assert jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), out, expected))
        assert p.projection_box(x, None, 1.0)["a"][0] == -2
        assert p.projection_box(x, -1.0, None)["b"][0] == 3
        assert p.projection_hypercube(x, {"a": 0.25, "b": 2.0})["b"][0] == 2

    def test_bounds_must_fit(self):
        with pytest.raises(ValueError, match="key"):
            p.projection_box({"a": jnp.ones(2)}, {"b": 0.0}, 1.0)

    def test_bounds_do_not_change_the_dtype(self):
        out = p.projection_box(jnp.ones(2, jnp.float16), jnp.zeros(2), jnp.full(2, 0.5))
        assert out.dtype == jnp.float16

    def test_non_negative(self):
        x = {"a": jnp.array([-2.0, 0.5]), "i": jnp.array([-1, 1]), "n": None}
        out = p.projection_non_negative(x)
        np.testing.assert_array_equal(out["a"], [0, 0.5])
        np.testing.assert_array_equal(out["i"], [0, 1])
        with pytest.raises(ValueError, match="projection_non_negative: leaves must be real"):
            p.projection_non_negative(jnp.array([1j]))


class TestPlanes:
    X = (jnp.array([3.0, -1.0]), (jnp.array([[0.5]]), None))
    A = (jnp.array([1.0, 2.0]), (jnp.array([[-1.0]]), None))
    x, a = np.array([3, -1, 0.5]), np.array([1, 2, -1.0])

    @staticmethod
    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    @pytest.mark.parametrize("size", [1.0, 1e25, 1e-25])
    @pytest.mark.parametrize("b", [-3.0, 0.0, 0.5, 10.0])
    def test_values(self, size, b):
        normal = jax.tree.map(lambda x: x * size, self.A)
        on_plane = self.x - (self.a @ self.x - b) / 6 * self.a
        out = self.flat(p.projection_hyperplane(self.X, normal, size * b))
        np.testing.assert_allclose(out, on_plane, rtol=1e-5, atol=1e-6)
        out = self.flat(p.projection_halfspace(self.X, normal, size * b))
        inside = self.a @ self.x <= b
        np.testing.assert_allclose(out, self.x if inside else on_plane, rtol=1e-5, atol=1e-6)
        out = self.flat(p.projection_vector(self.X, normal))
        np.testing.assert_allclose(out, self.a @ self.x / 6 * self.a, rtol=1e-5, atol=1e-6)

    def test_no_normal(self):
        zero = jax.tree.map(jnp.zeros_like, self.A)
        for out in (
            p.projection_hyperplane(self.X, zero, 1.0),
            p.projection_halfspace(self.X, zero, 1.0),
            p.projection_halfspace(self.X, zero, -1.0),
        ):
            np.testing.assert_array_equal(self.flat(out), self.x)
        assert np.all(self.flat(p.projection_vector(self.X, zero)) == 0)
        gradient = jax.grad(lambda a: p.projection_vector(self.X, a)[0].sum())(zero)
        assert np.all(np.isfinite(self.flat(gradient)))

    def test_complex(self):
        x, a = jnp.array([1 + 2j, 3.0]), jnp.array([1j, 1 - 1j])
        inner = np.vdot(a, x)
        line = p.projection_vector(x, a)
        np.testing.assert_allclose(line, inner / 3 * np.asarray(a), rtol=1e-6)
        # A line does not depend on the phase of the vector that spans it.
        np.testing.assert_allclose(p.projection_vector(x, 1j * a), line, rtol=1e-6)
        on_plane = p.projection_hyperplane(x, a, 2.0)
        np.testing.assert_allclose(np.vdot(a, on_plane), 2, rtol=1e-5)
        in_space = p.projection_halfspace(x, a, -2.0)
        np.testing.assert_allclose(np.vdot(a, in_space).real, -2, rtol=1e-5)

    def test_dtypes_none_empty_and_mismatch(self):
        half = jnp.array([1.0, 2.0], jnp.float16)
        for project in (p.projection_hyperplane, p.projection_halfspace):
            assert project(half, half, 1.0).dtype == jnp.float16
            assert project((None, half), (None, half), 1.0)[0] is None
            assert project({}, {}, 1.0) == {}
            with pytest.raises(ValueError, match="structure"):
                project(self.X, jnp.ones(3), 1.0)
        assert p.projection_vector(half, half).dtype == jnp.float16

    def test_derivatives(self):
        # The projection onto a plane or line is linear.
        u = self.a / np.sqrt(6)
        x, a = jnp.asarray(self.x), jnp.asarray(self.a)
        jacobian = jax.jacobian(p.projection_hyperplane)(x, a, 1.0)
        np.testing.assert_allclose(jacobian, np.eye(3) - np.outer(u, u), atol=1e-6)
        jacobian = jax.jacobian(p.projection_vector)(x, a)
        np.testing.assert_allclose(jacobian, np.outer(u, u), atol=1e-6)

        # In the normal: <grad, direction> is the derivative along it.
        def f(a):
            return p.projection_vector(x, a)[0]

        slope = (f(a + 1e-2 * jnp.ones(3)) - f(a - 1e-2 * jnp.ones(3))) / 2e-2
        np.testing.assert_allclose(jax.grad(f)(a).sum(), slope, atol=1e-2)
