"""Look-up, replacement and mapping by name in states of every nesting."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from grad_core import tree
from grad_core.tree_utils import NamedTupleKey
from grad_core.types import EmptyState, MaskedNode, MaskedState


class AdamState(NamedTuple):
    count: Any
    mu: Any
    nu: Any


class CountState(NamedTuple):
    count: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    kernel: Any
    bias: Any


class Node:
    """A container JAX knows, but without names for its children."""

    def __init__(self, child):
        self.child = child


jax.tree_util.register_pytree_node(Node, lambda n: ((n.child,), None), lambda _, c: Node(*c))

PARAMS = {"w": jnp.ones(2), "b": jnp.zeros(1)}


def adam_init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdamState(jnp.zeros((), jnp.int32), zeros, zeros)


def chain_init(params):
    return (adam_init(params), EmptyState(), CountState(jnp.zeros((), jnp.int32)))


STATE = chain_init(PARAMS)


class TestGet:
    def test_fields_keys_and_class_names(self):
        assert tree.get(STATE, "mu") is STATE[0].mu
        assert tree.get(STATE, "CountState") is STATE[2]
        assert tree.get(STATE[2], "CountState") is STATE[2]
        assert tree.get({"x": [{"lr": 0.5}]}, "lr") == 0.5
        assert tree.get({3: "three"}, 3) == "three"
        assert tree.get(Module({"a": 1}, 2), "kernel") == {"a": 1}
        assert tree.get(Node({"lr": 0.5}), "lr") == 0.5

    def test_default(self):
        assert tree.get(STATE, "missing") is None
        assert tree.get(STATE, "missing", 7) == 7
        assert tree.get({"a": None}, "a", 7) is None
        assert tree.get((), "a", 7) == tree.get(None, "a", 7) == 7

    def test_positions_are_no_names(self):
        assert tree.get([{"a": 1}, 2], 0) is None
        assert tree.get([{"a": 1}, 2], "1") is None

    def test_several_values_are_an_error_that_shows_where(self):
        message = r"multiple values for 'count', at \[0\]\.AdamState\.count, \[2\]\.CountState"
        with pytest.raises(KeyError, match=message):
            tree.get(STATE, "count")

    def test_filtering(self):
        def in_adam(path, value):
            return NamedTupleKey("AdamState", "count") in path

        assert tree.get(STATE, "count", filtering=in_adam) is STATE[0].count

        def no(path, value):
            return False

        assert tree.get(STATE, "mu", default=5, filtering=no) == 5

        def is_array(path, value):
            return isinstance(value, jax.Array)

        assert tree.get({"a": {"x": jnp.ones(1)}, "x": 1}, "x", filtering=is_array) == 1

    def test_filtering_sees_only_values_of_that_name(self):
        seen = []
        tree.get_all_with_path(STATE, "nu", lambda path, value: bool(seen.append(value)))
        assert len(seen) == 1
        assert seen[0] is STATE[0].nu


class TestGetAllWithPath:
    def test_paths(self):
        assert tree.get_all_with_path(STATE, "w") == [
            ((SequenceKey(0), NamedTupleKey("AdamState", "mu"), DictKey("w")), STATE[0].mu["w"]),
            ((SequenceKey(0), NamedTupleKey("AdamState", "nu"), DictKey("w")), STATE[0].nu["w"]),
        ]
        assert tree.get_all_with_path(STATE[2], "CountState") == [((), STATE[2])]
        assert tree.get_all_with_path(Module(1, 2), "bias") == [((GetAttrKey("bias"),), 2)]
        assert tree.get_all_with_path(STATE, "missing") == []

    def test_nested_values_of_one_name_come_from_the_root_down(self):
        nested = {"a": {"a": {"a": 1}}}
        paths = [len(path) for path, _ in tree.get_all_with_path(nested, "a")]
        assert paths == [1, 2, 3]
        mixed = {"a": {"c": {"k": 1}, "k": 2}, "b": {"k": 3}, "k": 9}
        assert [v for _, v in tree.get_all_with_path(mixed, "k")] == [9, 2, 1, 3]

    def test_a_value_found_twice_is_one(self):
        named_like_its_class = {"CountState": CountState(1)}
        assert len(tree.get_all_with_path(named_like_its_class, "CountState")) == 1

    def test_key_is_a_value(self):
        key = NamedTupleKey("A", "b")
        assert key == NamedTupleKey("A", "b")
        assert len({key, NamedTupleKey("A", "b"), NamedTupleKey("A", "c")}) == 2
        assert jax.tree_util.keystr((SequenceKey(0), key)) == "[0]A.b"
        with pytest.raises(dataclasses.FrozenInstanceError):
            key.name = "c"


class TestSet:
    def test_replaces_every_value_of_a_name(self):
        new = tree.set(STATE, count=jnp.int32(5))
        assert new[0].count == new[2].count == 5
        assert new[0].mu["w"] is STATE[0].mu["w"]
        assert STATE[0].count == 0
        assert jax.tree.structure(new) == jax.tree.structure(STATE)

    def test_several_names_class_names_none_and_subtrees(self):
        new = tree.set(STATE, mu=None, CountState=4)
        assert new[0].mu is None
        assert new[2] == 4
        assert tree.set({"a": None}, a=1) == {"a": 1}
        assert tree.set(Module(1, 2), bias=3) == Module(1, 3)
        assert tree.set(Node({"lr": 1}), lr=2).child == {"lr": 2}
        assert tree.set(CountState(1), CountState=2) == 2
        assert tree.set({"a": {"a": 1}}, a=5) == {"a": 5}

    def test_filtering_and_names_of_its_own_parameters(self):
        def in_adam(path, value):
            return NamedTupleKey("AdamState", "count") in path

        new = tree.set(STATE, in_adam, count=9)
        assert (new[0].count, new[2].count) == (9, 0)
        assert tree.set({"filtering": 1, "tree": 2}, filtering=3, tree=4) == {
            "filtering": 3,
            "tree": 4,
        }

    def test_unknown_names_are_an_error(self):
        with pytest.raises(KeyError, match=r"no values matching 'zz'; .*'AdamState', .*'count'"):
            tree.set(STATE, count=1, zz=2)
        with pytest.raises(KeyError, match="'count' given the filtering"):
            tree.set(STATE, lambda path, value: False, count=1)

    def test_under_jit(self):
        new = jax.jit(lambda state, n: tree.set(state, count=n))(STATE, jnp.int32(3))
        assert new[0].count == 3


class TestMapParams:
    @pytest.mark.parametrize("initable", [chain_init, type("Tx", (), {"init": chain_init})])
    def test_only_parts_like_params_change(self, initable):
        new = tree.map_params(initable, lambda x: x + 1, STATE)
        assert jnp.all(new[0].mu["w"] == 1)
        assert new[0].count is STATE[0].count
        assert new[2].count is STATE[2].count

    def test_rest_and_the_others(self):
        names = {"w": "W", "b": "B"}
        new = tree.map_params(
            chain_init, lambda m, n: (m.shape, n), STATE, names, transform_non_params=jnp.shape
        )
        assert new[0] == AdamState((), *({"w": ((2,), "W"), "b": ((1,), "B")},) * 2)
        assert new[2] == CountState(())

    def test_shapes_instead_of_arrays(self):
        shapes = jax.eval_shape(chain_init, PARAMS)
        new = tree.map_params(chain_init, lambda x: "P", shapes)
        assert new[0].nu == {"w": "P", "b": "P"}

    def test_masked_parts(self):
        def init(params):
            return MaskedState(adam_init(params))  # hands the placeholder on

        state = init({"w": jnp.ones(2), "b": MaskedNode()})
        new = tree.map_params(init, lambda x: "P", state)
        assert new.inner_state.mu == {"w": "P", "b": MaskedNode()}
        new = tree.map_params(
            init,
            lambda x, name: name,
            state,
            {"w": "W", "b": "B"},
            is_leaf=lambda x: isinstance(x, MaskedNode),
        )
        assert new.inner_state.mu == {"w": "W", "b": "B"}

    def test_errors(self):
        with pytest.raises(TypeError, match=r"map_params: expected a transformation .* got 3"):
            tree.map_params(3, lambda x: x, STATE)
        with pytest.raises(ValueError, match="AdamState"):
            tree.map_params(adam_init, lambda x: x, STATE)
        with pytest.raises(ValueError, match="keys"):
            tree.map_params(chain_init, lambda x, y: x, STATE, {"w": 1})
