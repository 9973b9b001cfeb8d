"""Bad input is refused with an error that says what, where, and whose."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_testing.checking import (
    TransformationSubject,
    require,
    require_close,
    sample,
)

__all__ = ["integer_leaves_are_refused", "missing_params_are_named", "wrong_trees_are_named"]


def integer_leaves_are_refused(subject: TransformationSubject) -> None:
    """Integer parameters and integer updates raise a TypeError that names the path."""
    whole = {"layer": {"steps": jnp.arange(3), "w": jnp.ones(3)}}
    real = jax.tree.map(lambda x: x.astype("float32"), whole)
    tx = subject.runner

    def everything(params: Any, gradients: Any) -> Any:
        return tx.update(gradients, tx.init(params), params)

    for what, run in _runs(everything):
        if jax.tree.leaves(tx.init(real)):
            error = _error(run, whole, whole)
            _require_says(subject, f"integer parameters{what}", error, TypeError, "steps")
        error = _error(run, real, whole)
        _require_says(subject, f"integer updates{what}", error, TypeError, "steps")


def missing_params_are_named(subject: TransformationSubject) -> None:
    """Without parameters, ``update`` gives the same, or raises a ValueError that asks for them."""
    params, gradients = sample()
    state = subject.runner.init(params)
    for what, run in _runs(lambda g, s: subject.runner.update(g, s)):
        try:
            updates, _ = run(gradients[0], state)
        except Exception as error:
            _require_says(subject, f"missing parameters{what}", error, ValueError, "params")
        else:
            name = f"{subject.name}: without parameters{what}, updates"
            require_close(updates, subject.reference[0][0], name)


def wrong_trees_are_named(subject: TransformationSubject) -> None:
    """A tree that differs from the parameters raises a ValueError that names the path.

    Tried are updates with a leaf missing, with a leaf too many and with a leaf of another shape,
    and a state made for other parameters. A transformation that neither keeps anything leaf by
    leaf nor looks at parameters need not notice.
    """
    layer = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
    params: dict[str, Any] = {"layer": layer, "scale": jnp.ones(())}
    missing = {**params, "layer": {"kernel": layer["kernel"]}}
    larger = {**params, "layer": {**layer, "surplus": jnp.ones(2)}}
    reshaped = {**params, "layer": {**layer, "kernel": jnp.ones((1, 3))}}
    tx = subject.runner
    state = tx.init(params)
    keeps_leaves = any(np.ndim(x) == 2 for x in jax.tree.leaves(state))
    notices = keeps_leaves or _needs_params(subject, params)
    for what, run in _runs(tx.update):
        wrong_updates = {"missing": (missing, "bias"), "surplus": (larger, "surplus")}
        for how, (tree, path) in wrong_updates.items():
            error = _error(run, tree, state, params)
            name = f"a {how} leaf{what}"
            if notices or error is not None:
                _require_says(subject, name, error, ValueError, path)
        error = _error(run, reshaped, state, params)
        if notices or error is not None:
            _require_says(subject, f"a leaf of another shape{what}", error, ValueError, "kernel")
        if keeps_leaves:
            other = tx.init(missing)
            error = _error(run, params, other, params)
            _require_says(subject, f"another tree's state{what}", error, ValueError, "bias")


def _runs(function: Callable[..., Any]) -> list[tuple[str, Callable[..., Any]]]:
    """A function called as it is, and under `jax.jit`: errors must be the same."""
    return [("", function), (" under jit", jax.jit(function))]


def _needs_params(subject: TransformationSubject, params: Any) -> bool:
    return _error(subject.runner.update, params, subject.runner.init(params)) is not None


def _error(call: Callable[..., Any], *args: Any) -> Exception | None:
    try:
        call(*args)
    except Exception as error:
        return error
    return None


def _require_says(
    subject: TransformationSubject,
    what: str,
    error: Exception | None,
    kind: type[Exception],
    word: str,
) -> None:
    """Requires an error of a kind that says a word, and the name of the factory or of one in it."""
    place = f"{subject.name}: {what}"
    if error is None:
        raise AssertionError(f"{place} should raise a {kind.__name__}, but is accepted")
    if not isinstance(error, kind):
        raise AssertionError(f"{place} should raise a {kind.__name__}, not {error!r}") from error
    text = str(error)
    require(word in text, f"{place} should raise an error that says {word}, but says: {text}")
    names = {subject.name, *re.findall(r"(\w+)\(", repr(subject.tx))}
    require(
        any(re.search(rf"\b{re.escape(name)}\b", text) for name in names),
        f"{place} should raise an error that says {subject.name}, but says: {text}",
    )
