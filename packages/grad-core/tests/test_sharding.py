"""The sharding of a whole state, from that of the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    SingleDeviceSharding,
)

from grad_core import (
    EmptyState,
    GradientTransformation,
    LeafRule,
    chain,
    ema,
    masked,
    named_chain,
    partition,
    rule,
    scale,
    trace,
)
from grad_core.errors import LeafTypeError, MissingArgumentError, TreeMismatchError
from grad_core.sharding import state_sharding

SHAPES = {"w": (8, 16), "square": (8, 8), "b": (16,), "scalar": ()}
SPECS = {"w": ("data", "model"), "square": ("model", "data"), "b": ("data",), "scalar": ()}


def on(mesh, *entries):
    return NamedSharding(mesh, PartitionSpec(*entries))


def sharded_params(mesh):
    zeros = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    return jax.device_put(zeros, {name: on(mesh, *spec) for name, spec in SPECS.items()})


@pytest.fixture
def params(mesh):
    return sharded_params(mesh)


@pytest.fixture
def automatic(devices):
    """A mesh on which automatic sharding is all there is."""
    kinds = (AxisType.Auto,) * 2
    return Mesh(np.asarray(devices).reshape(-1, 2), ("data", "model"), axis_types=kinds)


def check(optimizer, params, *shardings):
    """The shardings, after a look at their use: in `jit`, `device_put`, and as a tree."""
    found = state_sharding(optimizer, params, *shardings)
    assert jax.tree.structure(found) == jax.tree.structure(
        jax.eval_shape(optimizer.init, params)
    ), "the structure is that of the state"
    made = jax.jit(optimizer.init, out_shardings=found)(params)
    put = jax.device_put(optimizer.init(params), found)
    for x, y, sharding in zip(*map(jax.tree.leaves, (made, put, found)), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)
        assert y.sharding.is_equivalent_to(sharding, y.ndim)
        assert (x == y).all()  # keys have no NumPy form
    return found


def of(tree):
    """The shardings of the arrays in a tree."""
    return jax.tree.map(lambda x: x.sharding, tree)


def test_statistics_like_parameters_are_sharded_like_them(mesh, params):
    found = check(chain(trace(0.9), scale(2.0), ema(0.9)), params)
    assert found[0].trace == of(params)
    assert found[1] == EmptyState()
    assert found[2].ema == of(params)
    assert found[2].count == on(mesh)


class Sums(NamedTuple):
    """Statistics of each leaf: of its axes, of all of it, of its transpose, of nothing in it."""

    axes: object
    total: object
    transposed: object
    zeros: object


@rule
def sums() -> LeafRule:
    def over(*kept):
        return lambda p: jnp.sum(p, [a for a in range(p.ndim) if a not in kept])

    return LeafRule(
        lambda g, axes, total, transposed, zeros: (g, axes, total, transposed, zeros),
        Sums,
        axes=lambda p: [over(axis)(p) for axis in range(p.ndim)],
        total=over(),
        transposed=lambda p: p.T,
        zeros=lambda p: {"same": jnp.zeros(p.shape), "other": jnp.zeros((4, 2))},
    )


def test_what_init_computes_says_its_sharding(mesh, params):
    """Also where shapes would not tell: the axes of a square are of one size."""
    found = check(sums(), params)
    for name, spec in SPECS.items():
        assert found.axes[name] == [on(mesh, entry) for entry in spec]
        assert found.total[name] == on(mesh)
        assert found.transposed[name].is_equivalent_to(on(mesh, *spec[::-1]), len(spec))
        assert found.zeros[name] == {"same": params[name].sharding, "other": on(mesh)}


def test_combinations(mesh, params):
    labels = {"w": "left", "square": "right", "b": "left", "scalar": "right"}
    optimizer = named_chain(
        ("first", masked(trace(0.9), {"w": True, "square": False, "b": False, "scalar": True})),
        ("second", partition({"left": trace(0.9), "right": ema(0.9)}, labels)),
        ("third", masked(trace(0.5), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))),
    )
    found = check(optimizer, params)
    like = of(params)
    first, third = (found[key].inner_state.trace for key in ("first", "third"))
    assert {k: s for k, s in first.items() if s} == {k: like[k] for k in ("w", "scalar")}
    assert {k: s for k, s in third.items() if s} == {k: like[k] for k in ("w", "square")}
    states = found["second"].inner_states
    assert states["left"].inner_state.trace["b"] == like["b"]
    assert states["right"].inner_state.ema["square"] == like["square"]
    assert states["right"].inner_state.count == on(mesh)


def test_a_mask_that_cuts_off_branches(mesh, params):
    tree = {"on": params, "off": params, "none": None}
    found = check(masked(plain(), {"on": True, "off": False, "none": True}), tree)
    assert found.inner_state["mu"]["on"] == of(params)


def plain():
    """A pair of functions that knows nothing of shardings, nor of us."""

    def init(params):
        return {
            "mu": jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params),
            "each": jax.tree.map(lambda p: (jnp.zeros(p.shape), jnp.zeros(3)), params),
            "key": jax.random.key(0),
            "size": jnp.zeros((16,)),
        }

    return GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def test_users_pairs(mesh, params):
    """What stands in the place of a parameter and has its shape is sharded like it."""
    found = check(chain(scale(2.0), plain()), params)[1]
    assert found["mu"] == of(params)
    assert found["each"] == {name: (s, on(mesh)) for name, s in of(params).items()}
    assert found["key"] == on(mesh)
    assert found["size"] == on(mesh), "no parameter's, though as long as one"


def test_an_init_that_no_explicit_mesh_admits(automatic):
    """Then only statistics shaped like parameters are known."""
    params = sharded_params(automatic)
    whole = on(automatic)

    def init(params):
        gathered = jax.lax.with_sharding_constraint(params["w"], whole)
        rows = jax.tree.map(lambda p: jnp.sum(p, range(1, p.ndim)), params)
        return {"sum": jnp.sum(gathered), "mu": jax.tree.map(jnp.zeros_like, params), "rows": rows}

    tx = GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    with pytest.raises(TypeError):  # the premise: types tell nothing, nor does a placeholder
        state_sharding(tx, jax.tree.leaves(params))
    found = check(tx, params)
    assert found["sum"] == whole
    assert found["rows"]["w"] == whole


def test_an_init_that_needs_leaves(mesh, params):
    """Then types tell, but not of arrays made of nothing."""

    def init(params):
        first = jax.tree.leaves(params)[0]
        return {
            "like": jax.tree.map(jnp.zeros_like, params),
            "nothing": jnp.zeros(SHAPES["w"]),
            "first": first,
        }

    tx = GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    found = check(tx, params)
    for name, sharding in of(params).items():
        assert found["like"][name].is_equivalent_to(sharding, params[name].ndim)
    assert found["nothing"] == on(mesh)


def test_errors_of_init_come_through(params):
    with pytest.raises(LeafTypeError, match=r"trace: params\['w'\] is int32"):
        state_sharding(trace(0.9), {**params, "w": jnp.zeros((8, 16), jnp.int32)})


def test_shapes_with_shardings_stand_for_parameters(params):
    shapes = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params
    )
    optimizer = chain(sums(), ema(0.9))
    assert state_sharding(optimizer, shapes) == state_sharding(optimizer, params)


def test_shardings_beside_shapes(mesh, params):
    """As a tree, as specs on the current mesh, as a prefix."""
    optimizer = chain(sums(), ema(0.9))
    shapes = jax.eval_shape(lambda: {name: jnp.zeros(shape) for name, shape in SHAPES.items()})
    expected = state_sharding(optimizer, params)
    assert state_sharding(optimizer, shapes, of(params)) == expected
    specs = {name: PartitionSpec(*spec) for name, spec in SPECS.items()}
    with jax.set_mesh(mesh):
        assert state_sharding(optimizer, shapes, specs) == expected
    two = {"a": {"b": shapes["w"], "c": shapes["square"]}, "d": shapes["scalar"]}
    rows = on(mesh, "data")
    found = state_sharding(trace(0.9), two, {"a": rows, "d": on(mesh)})
    assert found.trace == {"a": {"b": rows, "c": rows}, "d": on(mesh)}


def test_given_shardings_win(mesh, params):
    found = state_sharding(trace(0.9), params, on(mesh))
    assert found.trace == dict.fromkeys(params, on(mesh))


def test_inside_jit(automatic):
    """Where arrays are traced, and so tell no shardings, they can be given."""
    params = sharded_params(automatic)
    shardings = of(params)
    optimizer = trace(0.9)

    @jax.jit
    def init(params):
        found = state_sharding(optimizer, params, shardings)
        return jax.lax.with_sharding_constraint(optimizer.init(params), found)

    for name, x in init(params).trace.items():
        assert x.sharding.is_equivalent_to(shardings[name], x.ndim)
    with pytest.raises(MissingArgumentError, match="state_sharding: params"):
        jax.jit(lambda p: state_sharding(optimizer, p))(params)


def test_a_train_step(mesh, params):
    """Shardings stay over a step, so that a scan or a second call compiles nothing new."""
    optimizer = chain(trace(0.9), ema(0.9))
    found = state_sharding(optimizer, params)
    step = jax.jit(
        lambda state, params: optimizer.update(params, state, params)[::-1],
        in_shardings=(found, of(params)),
        out_shardings=(found, of(params)),
    )
    state = jax.jit(optimizer.init, out_shardings=found)(params)
    for _ in range(2):
        state, params = step(state, params)
    assert step._cache_size() == 1
    assert of(params) == of(sharded_params(mesh))
    for x, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)


class TestWithoutMesh:
    """One device, or none said."""

    def test_arrays_that_were_not_put_anywhere(self, devices):
        here = SingleDeviceSharding(devices[0])
        for p in (jnp.zeros(3), np.zeros(3, np.float32), 0.5):
            assert check(trace(0.9), {"p": p}).trace == {"p": here}
        assert check(ema(0.9), jnp.zeros(3)) == (here, here)
        with jax.default_device(devices[3]):
            there = SingleDeviceSharding(devices[3])
            assert check(ema(0.9), jnp.zeros(3)) == (there, there)

    def test_arrays_on_one_device(self, devices):
        there = SingleDeviceSharding(devices[2])
        params = {"a": jax.device_put(jnp.zeros(3), there), "b": jnp.zeros(2)}
        found = check(ema(0.9), params)
        assert set(jax.tree.leaves(found)) == {there}
        assert check(ema(0.9), {"a": np.zeros(3)}, there).count == there

    def test_beside_sharded_ones_they_are_replicated(self, mesh, params):
        found = check(trace(0.9), {**params, "scalar": jnp.zeros(()), "numpy": np.zeros(5)})
        assert found.trace == {**of(params), "scalar": on(mesh), "numpy": on(mesh)}

    def test_under_a_current_mesh_they_are_replicated(self, mesh):
        with jax.set_mesh(mesh):
            assert set(jax.tree.leaves(check(ema(0.9), np.zeros(3)))) == {on(mesh)}

    def test_empty_trees(self, mesh):
        assert check(trace(0.9), {}).trace == {}
        with jax.set_mesh(mesh):
            assert check(ema(0.9), {}).count == on(mesh)


def test_a_mesh_of_one_device(devices):
    one = Mesh(np.asarray(devices[:1]).reshape(1, 1), ("data", "model"))
    params = sharded_params(one)
    assert check(trace(0.9), params).trace == of(params)


def test_an_abstract_mesh_stays_abstract():
    """For compiling ahead of time, without the devices."""
    mesh = AbstractMesh((4, 2), ("data", "model"))
    shapes = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SHAPES.items()}
    shardings = {name: on(mesh, *spec) for name, spec in SPECS.items()}
    found = state_sharding(ema(0.9), shapes, shardings)
    assert found.ema == shardings
    assert found.count == on(mesh)


def test_memory_kinds_are_those_of_parameters(automatic):
    """Statistics of parameters in the host's memory are there too; counts are not."""
    host = NamedSharding(automatic, PartitionSpec("data"), memory_kind="pinned_host")
    found = state_sharding(chain(ema(0.9), sums()), jax.ShapeDtypeStruct((8, 4), "float32"), host)
    assert found[0].ema == host
    assert found[0].count == on(automatic)
    assert found[1].axes[0].memory_kind == "pinned_host"


def test_two_meshes(devices):
    """As in a pipeline: each parameter's statistics are where it is."""
    meshes = [Mesh(np.asarray(devices[i : i + 4]), (name,)) for i, name in ((0, "a"), (4, "b"))]
    params = {
        m.axis_names[0]: jax.device_put(jnp.zeros((4, 8)), on(m, *m.axis_names)) for m in meshes
    }
    found = state_sharding(sums(), params)
    assert found.zeros["a"] == {"same": on(meshes[0], "a"), "other": on(meshes[0])}
    assert found.zeros["b"] == {"same": on(meshes[1], "b"), "other": on(meshes[1])}
    assert found.total["b"] == on(meshes[1])


def test_it_makes_no_arrays():
    """A petabyte of parameters, on a mesh of a million devices that are not there."""
    mesh = AbstractMesh((2**20,), ("data",))
    huge = jax.ShapeDtypeStruct((2**24, 2**24), jnp.float32, sharding=on(mesh, "data"))
    assert state_sharding(ema(0.9), huge).ema == on(mesh, "data")


class TestErrors:
    """What is wrong, where, and what to do."""

    def fails(self, error, text, shardings=None, shape=(8, 16), optimizer=None):
        shapes = {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}
        with pytest.raises(error, match=text):
            state_sharding(optimizer or trace(0.9), shapes, shardings)

    def test_no_shardings(self):
        text = (
            r"^state_sharding: params\['w'\], ShapeDtypeStruct.*state_sharding\(optimizer, params, "
        )
        self.fails(MissingArgumentError, text)

    def test_trees_that_differ(self, mesh):
        s = on(mesh)
        text = r"^state_sharding: shardings .* params\['w'\] has no entry in shardings"
        self.fails(TreeMismatchError, text, {"v": s})
        self.fails(TreeMismatchError, "shardings .*'w': None", {"w": None})
        text = r"^state_sharding: .* shardings\['x'\] is not in params"
        self.fails(TreeMismatchError, text, {"w": s, "x": s})

    @pytest.mark.parametrize("entries", [("data", None, "model"), (None, "nowhere")])
    def test_specs_that_do_not_fit(self, mesh, entries):
        text = r"^state_sharding: shardings\['w'\], P\(.*\(8, 16\) of params\['w'\].*'data': 4"
        with jax.set_mesh(mesh):
            self.fails(TreeMismatchError, text, PartitionSpec(*entries))

    def test_sizes_that_do_not_divide(self, mesh):
        text = r"^state_sharding: shardings\['w'\], P\(.*\(3,\) of params\['w'\]"
        self.fails(TreeMismatchError, text, on(mesh, "data"), (3,))

    def test_specs_without_a_mesh(self):
        text = r"shardings\['w'\], P\(.*jax.set_mesh\(mesh\)"
        self.fails(MissingArgumentError, text, PartitionSpec("data"))

    def test_other_values(self):
        self.fails(LeafTypeError, r"shardings\['w'\], 'data' \(str\), must be a NamedSha", "data")

    def test_no_transformation(self):
        self.fails(TypeError, "^state_sharding takes gradient transf", optimizer=jnp.zeros_like)
