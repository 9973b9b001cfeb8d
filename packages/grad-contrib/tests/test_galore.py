"""GaLore against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import GaLoreDimensionNumbers, GaLoreState, galore, scale_by_galore
from grad_core import (
    GradientTransformationExtraArgs,
    MaskedNode,
    add_decayed_weights,
    apply_updates,
    chain,
    identity,
    masked,
    trace,
)
from grad_optimizers import adamw, scale_by_adam, scale_by_lion
from grad_schedules import inject_hyperparams
from grad_testing.devices import make_mesh

RNG = np.random.default_rng(0)
SHAPES = {"tall": (7, 4), "wide": (3, 6), "square": (4, 4), "cube": (2, 3, 4), "vector": (5,)}
NUMBERS = {
    "tall": GaLoreDimensionNumbers(),
    "wide": GaLoreDimensionNumbers(),
    "square": GaLoreDimensionNumbers(1, 0),
    "cube": GaLoreDimensionNumbers((2, 0), 1),
    "vector": None,
}
FIRST = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}


def gradient(t, params):
    """Of a quadratic whose minimum moves."""
    return {name: (1 + 0.1 * t) * p - np.cos(t + p.size) for name, p in params.items()}


def as_matrix(name, x):
    if name == "cube":
        return np.transpose(x, (2, 0, 1)).reshape(8, 3)
    return x.T if name == "square" else x


def as_array(name, x):
    if name == "cube":
        return np.transpose(x.reshape(4, 2, 3), (1, 2, 0))
    return x.T if name == "square" else x


class Adam:
    """Adam's direction, in float64."""

    def __init__(self):
        self.m = self.v = self.t = 0

    def __call__(self, g):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        return self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


class Matrix:
    """Algorithm 2, for one matrix; a projector of rows is for the transposed matrix."""

    def __init__(self, rank, gap, scale, side):
        self.rank, self.gap, self.scale, self.side = rank, gap, scale, side
        self.adam, self.t, self.p = Adam(), 0, None

    def __call__(self, g):
        m, n = g.shape
        if (m >= n) != (self.side == "longer"):
            return self.left(g.T).T
        return self.left(g)

    def left(self, g):
        if self.t % self.gap == 0:
            p = np.linalg.svd(g, full_matrices=False)[0][:, : self.rank]
            if self.p is not None:
                p = p * np.where(np.sum(p * self.p, 0) < 0, -1, 1)
            self.p = p
        self.t += 1
        return self.scale * self.p @ self.adam(self.p.T @ g)


@pytest.mark.parametrize("side", ["longer", "shorter"])
def test_the_algorithm(side):
    """Over four projectors; the paper's is the shorter side."""
    with jax.enable_x64(True):
        tx = galore(
            lambda t: 0.1 / (1 + t),
            rank=2,
            update_proj_gap=3,
            scale=0.25,
            weight_decay=0.1,
            mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
            weight_dimension_numbers=NUMBERS,
            side=side,
        )
        params = jax.tree.map(jnp.asarray, FIRST)
        state, update = tx.init(params), jax.jit(tx.update)
        directions = {name: Matrix(2, 3, 0.25, side) for name in SHAPES} | {"vector": Adam()}
        for t in range(11):
            expected = {}
            for name, g in gradient(t, params).items():
                p, g = np.asarray(params[name]), np.asarray(g)
                u = as_array(name, directions[name](as_matrix(name, g)))
                expected[name] = p - 0.1 / (1 + t) * (u + 0.1 * p * (p.ndim > 1))
            updates, state = update(gradient(t, params), state, params)
            params = apply_updates(params, updates)
            for name, p in params.items():
                np.testing.assert_allclose(p, expected[name], rtol=1e-9, err_msg=f"{name} {t}")


def test_the_state_is_upstreams_and_as_small_as_the_paper_says():
    params = {name: jnp.ones(shape, jnp.bfloat16) for name, shape in SHAPES.items()}
    for side in ("longer", "shorter"):
        state = scale_by_galore(2, side=side).init(params)
        assert type(state) is GaLoreState
        assert state._fields == ("count", "base_optimizer_state", "projector")
        for name, shape in SHAPES.items():
            mu, projector = state.base_optimizer_state.mu[name], state.projector[name]
            assert mu.dtype == projector.dtype == jnp.bfloat16
            if len(shape) == 2:
                seen, projected = (min, max) if side == "longer" else (max, min)
                assert (mu.size, projector.size) == (2 * seen(shape), 2 * projected(shape))
            else:
                assert (mu.shape, projector.shape) == (shape, (0, 0))
    state = scale_by_galore(3).init(params)
    shapes = {
        name: (x.shape, state.base_optimizer_state.nu[name].shape)
        for name, x in state.projector.items()
    }
    assert shapes == {
        "tall": ((7, 3), (3, 4)),
        "wide": ((6, 3), (3, 3)),
        "square": ((4, 3), (3, 4)),
        "cube": ((0, 0), (2, 3, 4)),
        "vector": ((0, 0), (5,)),
    }


def test_signs_of_singular_vectors_are_free():
    """With those of a projector turned, and what belongs to them, all later updates are equal."""
    tx = scale_by_galore(2, 3)
    grads = [jnp.asarray(RNG.normal(size=(7, 4)) + 1, jnp.float32) for _ in range(8)]
    _, state = tx.update(grads[0], tx.init(grads[0]))
    turn = jnp.array([-1.0, 1.0])
    adam = state.base_optimizer_state
    turned = state._replace(
        projector=state.projector * turn,
        base_optimizer_state=adam._replace(mu=adam.mu * turn[:, None]),
    )
    for g in grads[1:]:
        expected, state = tx.update(g, state)
        updates, turned = tx.update(g, turned)
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-5)


def test_complex_phases_are_free_too():
    tx = scale_by_galore(2, 2)
    grads = [
        jnp.asarray(RNG.normal(size=(4, 6)) + 1j * RNG.normal(size=(4, 6)), jnp.complex64)
        for _ in range(5)
    ]
    _, state = tx.update(grads[0], tx.init(grads[0]))
    turn = jnp.exp(1j * jnp.array([0.7, 2.0]))
    adam = state.base_optimizer_state
    turned = state._replace(
        projector=state.projector * turn,
        base_optimizer_state=adam._replace(mu=adam.mu * turn),
    )
    for g in grads[1:]:
        expected, state = tx.update(g, state)
        updates, turned = tx.update(g, turned)
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_low_rank_lose_nothing():
    """The best approximation of rank r, on either side; exact for what has no higher rank."""
    left, right = RNG.normal(size=(7, 2)), RNG.normal(size=(2, 5))
    for side in ("longer", "shorter"):
        for rank in (2, 1):
            g = jnp.asarray(left @ right, jnp.float32)
            tx = scale_by_galore(rank, base_optimizer=identity(), side=side)
            updates, state = tx.update(g, tx.init(g))
            u, s, v = np.linalg.svd(left @ right)
            np.testing.assert_allclose(updates, u[:, :rank] * s[:rank] @ v[:rank], atol=1e-5)
            p = np.asarray(state.projector)
            np.testing.assert_allclose(p.T @ p, np.eye(rank), atol=1e-6)


def test_projectors_do_not_depend_on_the_size_of_gradients():
    tx = scale_by_galore(2, base_optimizer=identity())
    g = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    expected, _ = tx.update(g, tx.init(g))
    for size in (1e-33, 1e36):
        updates, _ = tx.update(size * g, tx.init(g))
        np.testing.assert_allclose(updates / size, expected, rtol=1e-4, atol=1e-5)


def test_gradients_that_are_zero_absent_or_not_finite_make_no_projector():
    """The first one comes with the first gradient that can make one; later, the last one stays."""
    tx = scale_by_galore(1, 3, base_optimizer=trace(0.5))
    g = {"w": jnp.array([[0.0, 3.0], [0.0, 4.0]])}
    zero = {"w": jnp.zeros((2, 2))}
    state, update = tx.init(g), jax.jit(tx.update)
    for nothing in (zero, {"w": None}, {"w": MaskedNode()}, zero, zero):
        updates, state = update(nothing, state)
        assert not np.any(state.projector["w"])
        assert all(not np.any(u) for u in jax.tree.leaves(updates))
    updates, state = update(g, state)  # none is due but for that
    np.testing.assert_allclose(updates["w"], g["w"], atol=1e-6)
    first = state.projector["w"]
    for not_usable in (jnp.full((2, 2), jnp.nan), jnp.full((2, 2), jnp.inf), zero["w"]):
        assert int(state.count) % 3 == 0
        _, state = update({"w": not_usable}, state)
        np.testing.assert_array_equal(state.projector["w"], first)
        for _ in range(2):
            _, state = update(zero, state)


def test_dimension_numbers():
    """A tree, a prefix of one, a function, and one for all say the same; arrays are matrices."""
    one = GaLoreDimensionNumbers((0, 1), -1)
    grads = {"a": {"x": RNG.normal(size=(2, 3, 4)), "y": RNG.normal(size=(3, 2, 5))}, "b": [1.0]}
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)

    def function(tree):
        return jax.tree.map(lambda x: one if x.ndim == 3 else None, tree)

    matrices = jax.tree.map(lambda x: x.reshape(6, -1) if x.ndim == 3 else x, grads)
    tx = scale_by_galore(2, base_optimizer=identity())
    expected = tx.update(matrices, tx.init(matrices))[0]
    for numbers in (one, {"a": one, "b": None}, {"a": {"x": one, "y": one}, "b": [None]}, function):
        tx = scale_by_galore(2, base_optimizer=identity(), weight_dimension_numbers=numbers)
        updates = tx.update(grads, tx.init(grads))[0]
        jax.tree.map(
            lambda u, e: np.testing.assert_allclose(u, e.reshape(u.shape), atol=1e-5),
            updates,
            expected,
        )
    only_one = {"x": grads["a"]["x"], "y": MaskedNode(), "z": None}
    tx = masked(scale_by_galore(2, weight_dimension_numbers=one), {"x": True, "y": True, "z": True})
    assert isinstance(tx.update(only_one, tx.init(only_one))[0]["y"], MaskedNode)


@pytest.mark.parametrize("explicit", [False, True])
def test_on_meshes(explicit):
    """Arrays that are matrices by several axes, on every spec of one axis; states are sharded."""
    mesh = make_mesh(explicit=explicit)
    specs = {f"{axis}{i}": jax.P(*[None] * i, axis) for axis in mesh.axis_names for i in range(3)}
    numbers = {name: GaLoreDimensionNumbers((2, 0), 1) for name in specs}
    host = {name: RNG.normal(size=(8, 16, 4)).astype(np.float32) for name in specs}
    for name, spec in (("rows", jax.P("data")), ("columns", jax.P(None, "model"))):
        specs[name], numbers[name] = spec, GaLoreDimensionNumbers()
        host[name] = RNG.normal(size=(16, 8)).astype(np.float32)
    tx = galore(0.1, 2, 2, weight_decay=0.1, weight_dimension_numbers=numbers)

    @jax.jit
    def step(t, params, state):
        grads = jax.tree.map(lambda p: p + t * jnp.cos(p * t), params)
        updates, state = tx.update(grads, state, params)
        return apply_updates(params, updates), state

    def run(params):
        first = state = jax.jit(tx.init)(params)
        for t in range(4):
            params, state = step(t, params, state)
        return params, first[0], state[0]

    expected, *_ = run(host)
    with jax.set_mesh(mesh):
        places = {name: jax.NamedSharding(mesh, spec) for name, spec in specs.items()}
        params, *states = run(jax.device_put(host, places))
    for name, p in params.items():
        np.testing.assert_allclose(p, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert p.sharding.is_equivalent_to(places[name], p.ndim)
    columns = jax.NamedSharding(mesh, jax.P(None, "model"))
    for state in states:
        assert state.projector["rows"].sharding.is_equivalent_to(places["rows"], 2)
        moments = state.base_optimizer_state.mu
        assert moments["columns"].sharding.is_equivalent_to(columns, 2)


def test_hyperparameters_are_injected():
    make = inject_hyperparams(galore)
    tx = make(learning_rate=lambda t: 0.1 / (1 + t), rank=2, update_proj_gap=2, scale=0.5)
    plain = galore(lambda t: 0.1 / (1 + t), 2, 2, 0.5)
    params = jnp.asarray(FIRST["tall"], jnp.float32)
    states, updates = [jax.jit(tx.init)(params), plain.init(params)], [None, None]
    assert "scale" in states[0].hyperparams
    assert "rank" not in states[0].hyperparams
    for _ in range(3):
        for i, each in enumerate((tx, plain)):
            updates[i], states[i] = jax.jit(each.update)(params, states[i], params)
        np.testing.assert_allclose(updates[0], updates[1], rtol=1e-6)


def test_any_optimizer_can_be_the_base():
    """One that a user wrote keeps the dtypes of its state; extra arguments reach it."""

    def update(g, state, params=None, *, factor):
        assert params is None
        state = jax.tree.map(lambda s, x: s + factor * x, state, g)
        return state, state

    base = GradientTransformationExtraArgs(lambda p: jax.tree.map(jnp.zeros_like, p), update)
    tx = scale_by_galore(2, base_optimizer=base)
    g = jnp.asarray(RNG.normal(size=(2, 2)), jnp.bfloat16)
    updates, state = tx.update(g, tx.init(g), g, factor=2.0)
    np.testing.assert_allclose(np.float32(updates), 2 * np.float32(g), rtol=0.05, atol=0.05)
    assert state.base_optimizer_state.dtype == updates.dtype == jnp.bfloat16
    tx = scale_by_galore(2, base_optimizer=scale_by_lion())
    updates, _ = tx.update(jnp.eye(2), tx.init(jnp.eye(2)))
    assert np.isfinite(updates).all()


def test_a_base_that_needs_parameters_gets_none():
    tx = scale_by_galore(2, base_optimizer=adamw(0.1))
    state = tx.init(FIRST["tall"])
    with pytest.raises(
        ValueError, match=r"^scale_by_galore \(in its add_decayed_weights\)"
    ) as error:
        tx.update(jnp.asarray(FIRST["tall"]), state, FIRST["tall"])
    assert "no parameters: decay follows it" in "".join(error.value.__notes__)


def test_it_is_adam_and_decay_without_matrices():
    tx = galore(0.1, weight_decay=0.1)
    params = jnp.arange(3.0)
    expected = chain(scale_by_adam(), add_decayed_weights(0.1))
    u, _ = tx.update(params - 1, tx.init(params), params)
    e, _ = expected.update(params - 1, expected.init(params), params)
    np.testing.assert_allclose(u, -0.1 * e, rtol=1e-6)


def test_bad_input():
    refused = {
        "rank": {0: "must be at least 1; got 0", 2.0: "must be an integer; got 2.0"},
        "update_proj_gap": {0: "must be at least 1; got 0"},
        "scale": {"no": "must be a number, an array of shape (); got 'no'"},
        "base_optimizer": {0.1: "must be a gradient transformation"},
        "side": {"both": "must be one of longer, shorter; got 'both'"},
    }
    for name, cases in refused.items():
        for value, text in cases.items():
            with pytest.raises(
                (ValueError, TypeError), match=re.escape(f"scale_by_galore: {name} {text}")
            ):
                scale_by_galore(**{name: value})
    of = GaLoreDimensionNumbers
    numbers = {
        of(): "['x'] has shape (2, 3, 4), of which",
        of((0, 1), 1): "tell all axes",
        of((0, 1), 3): "tell all axes",
        of((0, -1), (1, 2)): "tell all axes",
        "no": "must be GaLoreDimensionNumbers(reduction_axis, output_axis) or None; got 'no'",
    }
    for number, text in numbers.items():
        tx = scale_by_galore(2, weight_dimension_numbers={"x": number})
        with pytest.raises((ValueError, TypeError), match=re.escape(text)):
            tx.init({"x": jnp.ones((2, 3, 4))})
    for shape, number in (((3,), of()), ((), of()), ((3,), of(0, ()))):
        with pytest.raises(ValueError, match="two at least"):
            scale_by_galore(2, weight_dimension_numbers={"x": number}).init({"x": jnp.ones(shape)})
    with pytest.raises(ValueError, match="no prefix of the tree"):
        scale_by_galore(2, weight_dimension_numbers={"y": None}).init({"x": jnp.ones((2, 2))})
