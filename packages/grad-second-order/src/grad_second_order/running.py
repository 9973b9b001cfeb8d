"""A loop around an optimizer, with a tolerance and a status: `run`."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    OptState,
    Params,
    Scalar,
    Updates,
    apply_updates,
    global_norm,
    scalar_dtype,
    structure,
    tree,
    with_extra_args_support,
)
from grad_core.errors import naming
from grad_second_order._line import like_params, scalar_fn, strongly_typed
from grad_second_order._progress import progress_of


class Status(enum.IntEnum):
    """Why `run` stopped."""

    CONVERGED = 0
    MAX_ITER = 1
    LINE_SEARCH_FAILED = 2
    NON_FINITE = 3


_GOES_ON = -1


class RunResult(NamedTuple):
    """What `run` found.

    Attributes:
      params: The last parameters at which value and gradient were finite.
      state: The optimizer's last state.
      value: The value at those parameters.
      grad_norm: The norm of the gradient there, over all leaves.
      iterations: The number of updates.
      evaluations: How often the function was evaluated, with its gradient or without.
      status: Why it stopped, an int32 array; ``Status(int(result.status))`` names it.
    """

    params: Params
    state: OptState
    value: jax.Array
    grad_norm: jax.Array
    iterations: jax.Array
    evaluations: jax.Array
    status: jax.Array


class _Loop(NamedTuple):
    """A `RunResult` under way, and the gradient."""

    result: RunResult
    grad: Updates


def run(
    optimizer: GradientTransformation,
    fun: Callable[[Any], Any],
    params: Params,
    tol: Scalar = 1e-5,
    max_iter: int = 1000,
    *,
    progress: bool = False,
) -> RunResult:
    """Minimises a function until its gradient is small: ``|grad f(x)| <= tol``.

    Works with any optimizer. Each update is given the extra arguments ``value``, ``grad`` and
    ``value_fn``, and gradients conjugated if they are complex. What a line search at the end of the
    optimizer has computed is not computed again. It can be jitted and vmapped, and outside of
    ``jit`` runs as one compiled loop.

    When a line search fails (no parameter moves), L-BFGS forgets its memory and tries along the
    gradient; if that fails too, `run` stops, as it does if value or gradient are not finite. With
    a tolerance below what the dtype can resolve, that is how a run ends.

    Args:
      optimizer: The optimizer, such as ``lbfgs()``; or a partition, whose line searches need
        ``mask_compatible_extra_args=True``, and then move their own leaves at the same time.
      fun: ``fun(params)``, a real number, differentiable by JAX.
      params: Where to start: a tree of real or complex arrays.
      tol: The norm of the gradient, over all leaves, at which to stop, >= 0.
      max_iter: The largest number of updates, >= 0.
      progress: Whether to show a bar with value and gradient norm; it needs the package tqdm.

    Returns:
      A `RunResult`.

    Raises:
      ValueError: If `tol` or `max_iter` is negative, or `fun` returns no number.
      TypeError: If a parameter, or what `fun` returns, is no floating number.
      ImportError: If there is to be a bar, but no tqdm.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import Status, lbfgs, run
      >>> result = run(lbfgs(), lambda x: jnp.sum((x - 3.0) ** 4), jnp.zeros(5), tol=1e-3)
      >>> Status(int(result.status)).name, bool(jnp.all(jnp.abs(result.params - 3) < 0.1))
      ('CONVERGED', True)
    """
    if isinstance(tol, int | float) and not tol >= 0:
        raise ValueError(f"run: tol must be >= 0; got {tol!r}.")
    if max_iter < 0:
        raise ValueError(f"run: max_iter must be >= 0; got {max_iter!r}.")
    with naming("run"):
        structure.check_inexact(params, "params")
        minimiser = _Minimiser(
            optimizer, scalar_fn(fun, {}, "fun"), scalar_dtype(params), tol, max_iter
        )
        show = progress_of(max_iter) if progress else None
        begin = minimiser.begin(strongly_typed(params))

        def advance(loop: _Loop) -> _Loop:
            loop = minimiser.advance(loop)
            if show is not None:
                new = loop.result
                is_last = new.status != _GOES_ON
                jax.debug.callback(show, new.iterations, new.value, new.grad_norm, is_last)
            return loop

        return jax.lax.while_loop(
            lambda loop: loop.result.status == _GOES_ON, advance, begin
        ).result


class _Minimiser:
    """The steps of `run`."""

    def __init__(
        self,
        optimizer: GradientTransformation,
        fun: Callable[[Params], jax.Array],
        dtype: Any,
        tol: Scalar,
        max_iter: int,
    ) -> None:
        self.optimizer = with_extra_args_support(optimizer)
        self.fun = fun
        self.dtype = dtype
        self.tol = jnp.asarray(tol, dtype)
        self.max_iter = max_iter

    def evaluate(self, params: Params) -> tuple[jax.Array, Updates]:
        value, grad = jax.value_and_grad(self.fun)(params)
        return jnp.asarray(value, self.dtype), grad

    def begin(self, params: Params) -> _Loop:
        value, grad = self.evaluate(params)
        norm = jnp.asarray(global_norm(grad), self.dtype)
        zero, one = jnp.zeros([], jnp.int32), jnp.ones([], jnp.int32)
        status = self.status(value, norm, zero, jnp.array(False))
        state = self.optimizer.init(params)
        return _Loop(RunResult(params, state, value, norm, zero, one, status), grad)

    def status(
        self, value: jax.Array, norm: jax.Array, iterations: jax.Array, gives_up: jax.Array
    ) -> jax.Array:
        reasons = [
            (~(jnp.isfinite(value) & jnp.isfinite(norm)), Status.NON_FINITE),
            (norm <= self.tol, Status.CONVERGED),
            (gives_up, Status.LINE_SEARCH_FAILED),
            (iterations >= self.max_iter, Status.MAX_ITER),
        ]
        conditions, found = zip(*reasons, strict=True)
        codes = [jnp.int32(each) for each in found]
        return jnp.select(conditions, codes, jnp.int32(_GOES_ON))

    def advance(self, loop: _Loop) -> _Loop:
        old, grad = loop
        updates, state = self.optimizer.update(
            jax.tree.map(jnp.conj, grad),
            old.state,
            old.params,
            value=old.value,
            grad=grad,
            value_fn=self.fun,
        )
        params = apply_updates(old.params, updates)
        searches: Any = [x for _, x in tree.get_all_with_path(state, "num_linesearch_steps")]
        evaluations = sum(searches, old.evaluations)
        known = _known(state, params)
        if known is None:
            value, grad = self.evaluate(params)
            evaluations = evaluations + 1
        else:
            value, grad = known
        norm = jnp.asarray(global_norm(grad), self.dtype)
        gives_up = jnp.array(False)
        if searches:
            stays = _all_equal(params, old.params)
            state, can_forget = _forget(state, stays)
            gives_up = stays & ~can_forget
        iterations = old.iterations + 1
        status = self.status(value, norm, iterations, gives_up)
        new = RunResult(params, state, value, norm, iterations, evaluations, status)
        is_finite = status != Status.NON_FINITE
        params, value, norm = jax.tree.map(
            lambda a, b: jnp.where(is_finite, a, b),
            (new.params, new.value, new.grad_norm),
            (old.params, old.value, old.grad_norm),
        )
        return _Loop(new._replace(params=params, value=value, grad_norm=norm), grad)


def _all_equal(a: Params, b: Params) -> jax.Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.all(jnp.array([jnp.all(x == y) for x, y in pairs], bool))


def _known(state: Any, params: Params) -> tuple[jax.Array, Updates] | None:
    """Value and gradient that a line search has left in the state, if nothing came after it."""
    while type(state) is tuple and state:  # of a chain
        state = state[-1]
    is_search = hasattr(state, "info") and getattr(state, "grad", None) is not None
    return (state.value, like_params(state.grad, params)) if is_search else None


def _forget(state: OptState, when: jax.Array) -> tuple[OptState, jax.Array]:
    """The state with the memories of L-BFGS emptied, if so; and whether there was anything."""
    memories: Any = [w for _, w in tree.get_all_with_path(state, "weights_memory")]
    if not memories:
        return state, jnp.array(False)

    def is_memory(path: Any) -> bool:
        return getattr(path[-1], "name", None) == "weights_memory"

    state = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.where(when, 0, x).astype(x.dtype) if is_memory(path) else x, state
    )
    return state, jnp.any(jnp.stack([jnp.any(w != 0) for w in memories]))
