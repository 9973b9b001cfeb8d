"""What all checks are made of: the factory they look at, and comparing trees.

A *check* is a function of a `Subject`, a factory under test, that raises if the factory breaks a
property. It can be called alone, as ``step_checks.jit_changes_nothing(subject_of(my_factory))``;
the suite calls it for every factory.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import grad_core
from grad_core import GradientTransformation, GradientTransformationExtraArgs
from grad_core.combining import Chain
from grad_core.hyperparameters import Parameter, Range
from grad_core.nodes import Node, Rule, node_of
from grad_core.values import factory_of
from grad_testing.tolerances import Tolerance, tolerance_for

__all__ = [
    "Compilations",
    "DoesNotApply",
    "Subject",
    "TransformationSubject",
    "numbered",
    "require",
    "require_close",
    "require_finite",
    "require_refused",
    "require_same_types",
    "require_sharded_alike",
    "sample",
    "subject_of",
    "take_steps",
    "takes_extra_arguments",
]

Factory = Callable[..., Any]
Tree = Any


class DoesNotApply(Exception):
    """Raised by a check that has nothing to look at, such as ranges where there are no numbers."""


class Subject:
    """A factory under test, with the call that its module gives as an example.

    Attributes:
      factory: The factory.
      name: Its name.
      made: What the example call makes.
    """

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.name: str = getattr(factory, "__name__", repr(factory))
        self.conformance = grad_core.conformance_of(factory)

    @functools.cached_property
    def path(self) -> str | None:
        """The package that has it, and its name there; None if it is not public."""
        package = getattr(self.factory, "__module__", "").partition(".")[0]
        is_public = getattr(sys.modules.get(package), self.name, None) is self.factory
        return f"{package}.{self.name}" if is_public else None

    @functools.cached_property
    def arguments(self) -> inspect.BoundArguments:
        """The arguments of the example call, and the defaults of the others."""
        signature = inspect.signature(self.factory)
        try:
            bound = signature.bind(*self.conformance.args, **self.conformance.kwargs)
        except TypeError as error:
            raise AssertionError(
                f"{self.name}{signature} cannot be called as its module says, with "
                f"{self.conformance.args} and {dict(self.conformance.kwargs)}: {error}. "
                "Say how to call it, with @grad_core.example(...) above its definition."
            ) from error
        bound.apply_defaults()
        return bound

    @functools.cached_property
    def made(self) -> Any:
        return self.make()

    def make(self, **changes: object) -> Any:
        """What the example call makes, with other values of some arguments."""
        arguments = {**self.arguments.arguments, **changes}
        bound = inspect.BoundArguments(self.arguments.signature, arguments)
        return self.factory(*bound.args, **bound.kwargs)

    @property
    def reason_to_skip(self) -> str | None:
        """Why no check can look at it; None if all can."""
        try:
            self.made  # noqa: B018 - it is what may fail
        except Exception:  # the suite has a test that shows it
            return "its example call fails: see test_can_be_called"
        return None

    def results(self, made: Any) -> Any:
        """Arrays that show what something made by the factory does."""
        raise NotImplementedError

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What annotations say of the arguments; nothing if the factory is not decorated."""
        return factory_of(self.factory).parameters if grad_core.is_factory(self.factory) else {}

    @functools.cached_property
    def ranges(self) -> dict[str, Range]:
        """The arguments that are numbers, and their ranges."""
        ranges = {name: parameter.range for name, parameter in self.parameters.items()}
        return {name: range_ for name, range_ in ranges.items() if range_ is not None}

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """The arguments that are numbers, and Python numbers in the example call."""
        given = self.arguments.arguments
        return {name: given[name] for name in self.ranges if type(given[name]) in (int, float)}

    @functools.cached_property
    def other_numbers(self) -> dict[str, float]:
        """Another legal value for each of the numbers."""
        others = {}
        for name, value in self.numbers.items():
            low, high, *_ = self.ranges[name]
            if type(value) is int:
                candidates: tuple[float, ...] = (value + 1, value - 1)
            else:
                candidates = (value * 0.75, value + 0.25, value - 0.25)
            legal = [c for c in candidates if low <= c <= high and c != value]
            if legal:
                others[name] = legal[0]
        return others


class TransformationSubject(Subject):
    """A factory of transformations under test.

    Attributes:
      tx: What the example call makes.
      runner: The same, with the extra arguments of ``update`` that its module gives filled in.
    """

    @property
    def tx(self) -> GradientTransformation:
        return self.made  # type: ignore[no-any-return]

    def make(self, **changes: object) -> GradientTransformation:
        """The example call with other values of some arguments."""
        made = super().make(**changes)
        require(
            isinstance(made, GradientTransformation),
            f"{self.name} must return a GradientTransformation, but returned {made!r}",
        )
        return made  # type: ignore[no-any-return]

    def filled(self, tx: GradientTransformation) -> GradientTransformation:
        """A transformation with the extra arguments of ``update`` filled in, if it needs some."""
        extra_args = self.conformance.extra_args
        if not extra_args:
            return tx
        return tx._replace(update=functools.partial(tx.update, **extra_args))

    @functools.cached_property
    def runner(self) -> GradientTransformation:
        return self.filled(self.tx)

    def make_runner(self, **changes: object) -> GradientTransformation:
        """What `make` makes, with the extra arguments filled in."""
        return self.filled(self.make(**changes))

    def results(self, made: GradientTransformation) -> list[Tree]:
        """The updates of two steps on `sample`."""
        params, gradients = sample(steps=2)
        return take_steps(self.filled(made), params, gradients)[0]

    @functools.cached_property
    def inner(self) -> list[GradientTransformation]:
        """The transformations among the arguments of the example call."""
        leaves = jax.tree.leaves(
            list(self.arguments.arguments.values()),
            is_leaf=lambda x: isinstance(x, GradientTransformation),
        )
        return [leaf for leaf in leaves if isinstance(leaf, GradientTransformation)]

    @functools.cached_property
    def is_chain(self) -> bool:
        """Whether it makes a chain of what public factories make, and nothing else."""
        if self.reason_to_skip is not None or self.inner:
            return False
        node = node_of(self.tx, self.name)
        return isinstance(node, Chain) and _is_of_public_rules(node)

    @functools.cached_property
    def reference(self) -> tuple[list[Tree], Tree]:
        """The updates and the last state of three eager steps on `sample`."""
        params, gradients = sample()
        return take_steps(self.runner, params, gradients)


def _is_of_public_rules(node: Node) -> bool:
    """Whether all rules in a node are what their packages list."""
    if not isinstance(node, Rule):
        return bool(node.children) and all(map(_is_of_public_rules, node.children))
    package = importlib.import_module(node.call.factory.body.__module__.partition(".")[0])
    return node.label in getattr(package, "__all__", ())


@functools.lru_cache(maxsize=256)
def subject_of(factory: Factory) -> TransformationSubject:
    """The `TransformationSubject` for a factory; one for all checks, since they share work."""
    return TransformationSubject(factory)


def sample(dtype: Any = "float32", steps: int = 3) -> tuple[Tree, list[Tree]]:
    """Parameters and gradients of a small model, the same at each call.

    Args:
      dtype: Of all leaves.
      steps: How many trees of gradients.

    Returns:
      The parameters, and the list of gradients.
    """
    rng = np.random.default_rng(0)
    shapes = {"dense": {"bias": (3,), "kernel": (2, 3)}, "head": [(3, 2), ()]}

    def draw() -> Tree:
        return jax.tree.map(
            lambda shape: _draw(rng, shape, dtype),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )

    return draw(), [draw() for _ in range(steps)]


def numbered(shapes: Sequence[tuple[int, ...]], seed: int, dtype: Any = "float32") -> list[Any]:
    """Arrays of given shapes, drawn with a seed."""
    rng = np.random.default_rng(seed)
    return [_draw(rng, shape, dtype) for shape in shapes]


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    values = rng.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * rng.normal(size=shape)
    return jnp.asarray(values, dtype)


def take_steps(
    tx: GradientTransformation,
    params: Tree,
    gradients: Sequence[Tree],
    state: Tree = None,
    update: Callable[..., Any] | None = None,
) -> tuple[list[Tree], Tree]:
    """Updates of a transformation on one tree of gradients after another, at fixed parameters."""
    state = tx.init(params) if state is None else state
    update = update or tx.update
    taken = []
    for g in gradients:
        updates, state = update(g, state, params)
        taken.append(updates)
    return taken, state


class Compilations:
    """Counts compilations inside a ``with``.

    Attributes:
      count: How many there were, once it is left.
    """

    _all = 0
    _listening = False

    def __enter__(self) -> "Compilations":
        if not Compilations._listening:
            jax.monitoring.register_event_duration_secs_listener(self._hear)
            Compilations._listening = True
        self._before = Compilations._all
        return self

    def __exit__(self, *_: object) -> None:
        self.count = Compilations._all - self._before

    @staticmethod
    def _hear(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            Compilations._all += 1


def require(condition: object, message: str) -> None:
    """Raises AssertionError with a message unless the condition holds, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def require_refused(subject: Subject, name: str, bad: object, kind: type[Exception]) -> None:
    """Requires an argument to be refused with an error that names factory, argument and value."""
    call = f"{subject.name}({name}={bad!r})"
    try:
        subject.make(**{name: bad})
    except kind as error:
        text = str(error)
    except Exception as error:
        raise AssertionError(f"{call} should raise a {kind.__name__}, not {error!r}") from error
    else:
        raise AssertionError(f"{call} should raise a {kind.__name__}, but is accepted")
    for word in (subject.name, name, repr(bad)):
        require(word in text, f"{call} should raise an error that says {word}, but says: {text}")


def require_same_types(actual: Tree, expected: Tree, what: str, *, weak: bool = True) -> None:
    """Requires two trees to have the same structure, shapes, dtypes and, if `weak`, weak types."""
    here, there = _structure(actual), _structure(expected)
    require(here == there, f"{what}: the structure is {here}, but should be {there}")
    leaves = jax.tree_util.tree_flatten_with_path(actual)[0]
    for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
        types = tuple(_type_of(x, weak) for x in (a, b))
        require(
            types[0] == types[1],
            f"{what}: {jax.tree_util.keystr(path)} is {types[0]}, but should be {types[1]}",
        )


def _structure(tree: Tree) -> Any:
    return jax.tree.structure(tree)


def _type_of(x: Any, weak: bool) -> str:
    if getattr(x, "dtype", None) == jax.dtypes.float0:
        return f"float0[{','.join(map(str, x.shape))}]"
    aval = jax.typeof(x) if not isinstance(x, jax.ShapeDtypeStruct) else x
    suffix = " (weakly typed)" if weak and getattr(aval, "weak_type", False) else ""
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]{suffix}"


def require_close(
    actual: Tree, expected: Tree, what: str, tolerance: Tolerance | None = None
) -> None:
    """Requires two trees to be of one structure, and their leaves of one shape and nearly equal.

    Without a tolerance, the leaves' dtypes decide it.
    """
    here, there = _structure(actual), _structure(expected)
    require(here == there, f"{what}: the structure is {here}, but should be {there}")
    leaves = jax.tree_util.tree_flatten_with_path(actual)[0]
    for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
        x, y = _values(a), _values(b)
        place = f"{what}: {jax.tree_util.keystr(path)}"
        require(x.shape == y.shape, f"{place} has shape {x.shape}, but should have {y.shape}")
        rtol, atol = tolerance or tolerance_for(getattr(b, "dtype", np.dtype(float)))
        close = np.allclose(x, y, rtol, atol, equal_nan=True)
        require(close, f"{place} is {x!r}, but should be {y!r}")


def require_sharded_alike(state: Tree, params: Mapping[str, Any], what: str) -> None:
    """Requires what a state has of a parameter's shape, under its name, to be sharded like it."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        key = getattr(path[-1], "key", None) if path else None
        p = params.get(key) if isinstance(key, str) else None
        if p is None or p.ndim == 0 or p.shape != leaf.shape:
            continue
        require(
            leaf.sharding.is_equivalent_to(p.sharding, p.ndim),
            f"{what}, state{jax.tree_util.keystr(path)} is sharded as {leaf.sharding}, "
            f"but should be as its parameter, {p.sharding}",
        )


def require_finite(tree: Tree, what: str) -> None:
    """Requires all numbers in a tree to be finite."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        values = _values(leaf)
        place = f"{what}: {jax.tree_util.keystr(path)}"
        require(np.all(np.isfinite(values)), f"{place} is not finite: {values!r}")


def _values(leaf: Any) -> np.ndarray[Any, Any]:
    """A leaf as an array that NumPy can compare: keys as integers, bfloat16 as float64."""
    if getattr(leaf, "dtype", None) == jax.dtypes.float0:
        return np.zeros(leaf.shape)
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    values = np.asarray(leaf)
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(np.float64)
    return values


def takes_extra_arguments(tx: GradientTransformation) -> bool:
    """Whether ``update`` may be given extra keyword arguments."""
    return isinstance(tx, GradientTransformationExtraArgs)
