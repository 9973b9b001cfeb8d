"""Trees beside trees: where they part is named by path."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MaskedNode, TreeMismatchError, structure


class Point(NamedTuple):
    x: object
    y: object


@jax.tree_util.register_pytree_with_keys_class
class Box:
    """A node with auxiliary data."""

    def __init__(self, value, tag=None):
        self.value = value
        self.tag = tag

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("value"), self.value),), self.tag

    def tree_flatten(self):
        return (self.value,), self.tag

    @classmethod
    def tree_unflatten(cls, tag, children):
        return cls(children[0], tag)


def mismatch(reference, tree):
    _, treedef = structure.flatten(reference)
    with pytest.raises(TreeMismatchError) as error:
        structure.flatten_like(reference, treedef, tree, ("updates", "params"))
    text = str(error.value)
    assert text.startswith("updates and params must have the same structure, but ")
    return text


@pytest.mark.parametrize(
    ("reference", "tree", "named"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "updates['b'] has no counterpart in params"),
        ({"a": 1}, {"a": 1, "b": 2}, "params['b'] has no counterpart in updates"),
        ({"a": {"k": 1}}, {"a": {"j": 1}}, "updates['a']['k'] has no counterpart in params"),
        ([1, 2, 3], [1, 2], "updates[2] has no counterpart in params"),
        ((1,), (1, (2, 3)), "params[1][0] has no counterpart in updates"),
        ({"a": {"k": 1}}, {"a": 1}, "updates['a']['k'] has no counterpart in params"),
        ({"a": [{"w": 1}, {}]}, {"a": [{"v": 1}, {}]}, "updates['a'][0]['w']"),
        (Point(1, 2), {"x": 1, "y": 2}, "updates.x has no counterpart in params"),
        (Box({"k": 1}), Box({"j": 1}), "updates.value['k'] has no counterpart in params"),
    ],
)
def test_the_first_difference_is_named(reference, tree, named):
    assert named in mismatch(reference, tree)


@pytest.mark.parametrize(
    ("reference", "tree"),
    [([1, 2], (1, 2)), (Box(1, "a"), Box(1, "b")), ({"a": [1]}, {"a": (1,)})],
)
def test_differing_containers_are_shown(reference, tree):
    text = mismatch(reference, tree)
    assert "their containers differ: PyTreeDef(" in text
    assert ") against PyTreeDef(" in text


def test_absent_nodes_are_leaves():
    leaves, treedef = structure.flatten({"a": None, "b": MaskedNode(), "c": 1})
    assert leaves == [None, MaskedNode(), 1]
    assert treedef.num_leaves == 3
    subtree = {"k": 1, "l": 2}
    names = ("updates", "params")
    like = {"a": subtree, "b": 5, "c": MaskedNode()}
    assert structure.flatten_like(leaves, treedef, like, names) == [subtree, 5, MaskedNode()]


@pytest.mark.parametrize(
    ("prefix", "tree"),
    [
        (True, {"a": 1}),
        ({"a": True, "b": False}, {"a": {"k": 1, "l": [2, 3]}, "b": 4}),
        ([True, {"k": False}], [None, {"k": ()}]),
        (Point(True, False), Point({"a": 1}, 2)),
        ({}, {}),
    ],
)
def test_prefixes_pass(prefix, tree):
    structure.check_prefix(prefix, tree, ("mask", "params"))


@pytest.mark.parametrize(
    ("prefix", "tree", "named"),
    [
        ({"a": True}, {"a": 1, "b": 2}, "params['b'] has no entry in mask"),
        ({"a": True, "b": True}, {"a": 1}, "mask['b'] is not in params"),
        ({"a": {"k": True}}, {"a": 1}, "params['a'] has no entry in mask"),
        ([True], [1, 2], "params[1] has no entry in mask"),
        ([True, True], (1, 2), "their containers differ: PyTreeDef([*, *])"),
    ],
)
def test_what_is_no_prefix_is_named(prefix, tree, named):
    with pytest.raises(TreeMismatchError, match=re.escape(named)) as error:
        structure.check_prefix(prefix, tree, ("mask", "params"))
    assert str(error.value).startswith(
        "mask must have the structure of params, or of its upper part"
    )


def test_paths_are_joined_by_slashes():
    tree = {"a": [1, (2,)], "b": Point(3, Box(4)), "c/d": 5}
    assert [structure.path_name(path) for path in structure.leaf_paths(tree)] == [
        "a/0", "a/1/0", "b/x", "b/y/value", "c/d",
    ]  # fmt: skip


def test_patterns_match_whole_paths():
    tree = {"enc": {"bias": 1, "kernel": 2}, "bias": 3, "debias": None}
    mask = structure.matches(r"(.*/)?bias", tree)
    assert mask == {"enc": {"bias": True, "kernel": False}, "bias": True, "debias": None}
    assert structure.matches(r"bias", tree)["enc"]["bias"] is False
    assert structure.matches(r".*", 1) is True


def test_a_label_is_the_one_pattern_that_matches():
    tree = {"a": [1, 2], "b": 3}
    assert structure.label_by_pattern(["a/.*", "b"], tree) == {"a": ["a/.*", "a/.*"], "b": "b"}
    with pytest.raises(TreeMismatchError, match=r"the path 'b' matches no pattern; .* 'a/.*'"):
        structure.label_by_pattern(["a/.*"], tree)
    with pytest.raises(TreeMismatchError, match=r"the path 'a/0' matches 'a/\.\*' and '\.\*'"):
        structure.label_by_pattern(["a/.*", ".*"], tree)


def test_frozen_trees_compare_by_content():
    one = structure.FrozenTree({"a": True, "b": [False]})
    two = structure.FrozenTree({"b": [False], "a": True})
    assert one == two
    assert hash(one) == hash(two)
    assert one.thaw() == {"a": True, "b": [False]}
    assert one != structure.FrozenTree({"a": True, "b": [True]})
    assert one != structure.FrozenTree({"a": True, "b": (False,)})
    assert one != "a"


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (jnp.zeros(2, int), "int32"),
        (np.zeros(2, np.int64), "int64"),
        (jnp.zeros(2, bool), "bool"),
        (3, "int"),
        (True, "bool"),
        ("text", "str"),
        (jax.random.key(0), "key<fry>"),
    ],
)
def test_leaves_that_cannot_be_optimized(leaf, kind):
    with pytest.raises(TypeError, match=rf"params\['w'\] is {kind}, but only floating-point"):
        structure.check_inexact({"w": leaf}, "params")


@pytest.mark.parametrize(
    "leaf",
    [1.0, 1j, jnp.ones(2), jnp.ones(2, jnp.bfloat16), np.ones(2, np.complex64), None, MaskedNode()],
)
def test_leaves_that_can(leaf):
    structure.check_inexact({"w": leaf}, "params")


def test_functions_are_told_from_trees():
    assert structure.is_function(lambda x: x)
    assert not structure.is_function({"a": True})
    assert not structure.is_function("a")


def test_what_means_no_update():
    for absent in (None, MaskedNode(), np.zeros(2, jax.dtypes.float0)):
        assert structure.means_no_update(absent)
    for there in (0.0, jnp.zeros(2), np.zeros(2)):
        assert not structure.means_no_update(there)
