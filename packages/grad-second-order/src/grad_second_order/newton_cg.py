r"""Newton's method with conjugate gradients: steps from products with the Hessian alone.

The direction p solves :math:`(H + \lambda I) p = g` roughly: conjugate gradients run from p = 0
until the residual is small enough,

.. math::

    \|g - (H + \lambda I) p\| \le \eta \|g\|, \quad
    \eta = \min(\eta_{\max}, \sqrt{\|g\|}),

so that the first steps are cheap, and close to a minimum convergence is superlinear. If they meet a
direction d without positive curvature, they go along it once more, by what a curvature of that
size but positive would ask for, and stop:

.. math::

    p \mathrel{+}= \frac{\|r\|^2}{|\langle d, (H + \lambda I) d \rangle|} d.

So p always leads uphill, as g does, and -p downhill, away from saddle points too.

References:
  Steihaug, The conjugate gradient method and trust regions in large scale optimization, 1983.
  Dembo and Steihaug, Truncated-Newton algorithms for large-scale unconstrained optimization, 1983.
  Nocedal and Wright, Numerical optimization, 2006, algorithm 7.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    LearningRate,
    NonNegative,
    OptState,
    Params,
    TreeMismatchError,
    Updates,
    chain,
    exempt,
    global_norm,
    identity,
    needs_extra_args,
    scalar_dtype,
    scale,
    scale_by_learning_rate,
    structure,
    transformation,
    tree,
    zeros_like,
)
from grad_core.errors import shown
from grad_core.sharing import dispatched_once
from grad_second_order._line import asked_by, half_square, loop, minimised
from grad_second_order._parts import Arrays, Part, add, inner, wide
from grad_second_order._vectors import Operator, check_alike, check_at_least, check_real
from grad_second_order.hessian import hessian_operator
from grad_second_order.zoom import scale_by_zoom_linesearch

Curvature = Callable[..., Operator]
"""``curvature(params, ...)``: a symmetric operator, a function from trees like params to such."""


class ScaleByNewtonCGState(NamedTuple):
    """How the last conjugate gradients went.

    Attributes:
      num_products: The number of products with the Hessian.
      residual: The relative residual that was reached; 1 if there was no product.
      least_curvature: The least curvature d^T H d / d^T d among the directions d; 0 if there was
        none.
    """

    num_products: jax.Array
    residual: jax.Array
    least_curvature: jax.Array


class _Rules(NamedTuple):
    """The hyperparameters of conjugate gradients."""

    max_iters: int
    damping: jax.Array
    max_forcing: jax.Array


class _Iterate(NamedTuple):
    """Conjugate gradients for the right-hand side g / |g|, so that no square overflows.

    Attributes:
      count: The number of products.
      p: The solution so far.
      r: Its residual.
      square: The squared norm of that.
      d: The direction to go next.
      least: The least curvature so far.
      target: The squared norm of a residual that is small enough.
      done: Whether to stop.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    p: Arrays
    r: Arrays
    square: jax.Array
    d: Arrays
    least: jax.Array
    target: jax.Array
    done: jax.Array


@exempt("complex64", reason="curvature is that of real parameters")
@needs_extra_args(value_fn=half_square)
@transformation
def scale_by_newton_cg(
    max_cg_iters: int = 50,
    damping: NonNegative = 0.0,
    max_forcing: NonNegative = 0.5,
    curvature: Curvature | None = None,
) -> GradientTransformationExtraArgs:
    """Multiplies gradients by the inverse Hessian, roughly, by conjugate gradients; see the module.

    Its ``update`` takes gradients, the parameters, and the extra argument ``value_fn``, as
    `scale_by_zoom_linesearch` does, and any other that ``value_fn`` or `curvature` takes by name.
    Derivatives take the direction for a constant.

    Each product with the Hessian costs about two gradients. State: three numbers.

    Args:
      max_cg_iters: How many products to form at most, >= 1.
      damping: The number lambda, >= 0, added to all curvatures.
      max_forcing: The number eta_max, the largest relative residual, >= 0.
      curvature: ``curvature(params, ...)``, the operator to use for H: where a model's outputs are
        known, for instance ``lambda params, x, y: ggn_operator(model, loss, params, x, y)``, which
        is never negative. The Hessian of ``value_fn`` with None.

    Returns:
      A transformation whose state is a `ScaleByNewtonCGState`.

    Raises:
      ValueError: If a number is out of its range.
      MissingArgumentError: By ``update``, without parameters or ``value_fn``.
      TreeMismatchError: By ``update``, if trees differ, or ``value_fn`` returns no number.
      TypeError: If a parameter is complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import scale_by_newton_cg
      >>> h = jnp.array([1.0, 10.0])
      >>> tx = scale_by_newton_cg(max_forcing=1e-5)
      >>> x = jnp.array([3.0, 2.0])
      >>> updates, state = tx.update(
      ...     h * x, tx.init(x), x, value_fn=lambda x: jnp.sum(h * x**2) / 2
      ... )
      >>> print(
      ...     jnp.array_str(updates, precision=3), state.num_products
      ... )  # x, for the minimum is 0
      [3. 2.] 2
    """
    check_at_least("scale_by_newton_cg", 1, max_cg_iters=max_cg_iters)

    def init(params: Params) -> OptState:
        structure.check_inexact(params, "params")
        if tree.size(params):
            check_real("scale_by_newton_cg", "params", params)
        dtype = scalar_dtype(params)
        return ScaleByNewtonCGState(
            jnp.zeros([], jnp.int32), jnp.ones([], dtype), jnp.zeros([], dtype)
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        if not all(hasattr(state, field) for field in ScaleByNewtonCGState._fields):
            raise TreeMismatchError(
                f"the state must be a ScaleByNewtonCGState; got {shown(state)}. "
                "Was it made by another init?"
            )
        params, updates, value_fn, extra_args = minimised(params, updates, extra_args)
        part = Part(updates)
        g = wide(part.arrays(updates))
        if not tree.size(g):
            return updates, state
        if curvature is None:
            operator = hessian_operator(value_fn, params)
        else:
            operator = curvature(params, **asked_by(curvature, extra_args))
        product = _restricted(operator, part, params)
        dtype = scalar_dtype(params)
        numbers = jax.lax.stop_gradient((damping, max_forcing))
        rules = _Rules(max_cg_iters, *(jnp.asarray(x, dtype) for x in numbers))
        direction, state = _direction(g, _conjugate_gradients(product, g, rules))
        return part.filled(updates, direction), state

    return GradientTransformationExtraArgs(init, update)


def _restricted(operator: Operator, part: Part, params: Params) -> Callable[[Arrays], Arrays]:
    """The operator on the leaves that have an update, the others staying as they are."""
    zeros = jax.tree.map(zeros_like, params)

    def product(d: Arrays) -> Arrays:
        image = operator(part.filled(zeros, d))
        check_alike("scale_by_newton_cg", ("params", "curvature(params)(v)"), params, image)
        return wide(part.arrays(image))

    return product


def _conjugate_gradients(product: Callable[[Arrays], Arrays], g: Arrays, rules: _Rules) -> _Iterate:
    """Conjugate gradients until they are close enough, or meet no positive curvature."""
    found: _Iterate = loop(
        lambda iterate: ~iterate.done,
        lambda iterate: _advance(iterate, product(iterate.d), rules),
        _begin(g, rules),
    )
    return found


@dispatched_once
def _begin(g: Arrays, rules: _Rules) -> _Iterate:
    norm = global_norm(g).astype(rules.damping.dtype)
    is_zero = norm == 0
    rounding = 4 * float(jnp.finfo(norm.dtype).eps)  # type: ignore[no-untyped-call]
    r = [(x / jnp.where(is_zero, 1, norm)).astype(x.dtype) for x in g]
    return _Iterate(
        count=jnp.zeros([], jnp.int32),
        p=[jnp.zeros_like(x) for x in r],
        r=r,
        square=jnp.ones_like(norm),
        d=r,
        least=jnp.full_like(norm, jnp.inf),
        target=jnp.maximum(jnp.minimum(rules.max_forcing**2, norm), rounding**2),
        done=is_zero | ~jnp.isfinite(norm),
    )


@dispatched_once
def _advance(last: _Iterate, hd: Arrays, rules: _Rules) -> _Iterate:
    """One step, once the product of the matrix with d is known."""

    def dot(a: Arrays, b: Arrays) -> jax.Array:
        return inner(a, b).astype(last.square.dtype)

    d, damping, count = last.d, rules.damping, last.count + 1
    size = dot(d, d)
    curvature = dot(d, hd) / size
    bend = (curvature + damping) * size
    alpha = last.square / jnp.where(bend == 0, last.square, jnp.abs(bend))
    p = add(last.p, alpha, d)
    r = add(add(last.r, -alpha, hd), -alpha * damping, d)
    square = dot(r, r)
    goes_well = jnp.isfinite(alpha) & jnp.isfinite(square)
    is_last = (bend <= 0) | (square <= last.target) | (count == rules.max_iters)
    beta = square / last.square
    new = _Iterate(
        count=count,
        p=p,
        r=r,
        square=square,
        d=add(r, beta, d),
        least=jnp.minimum(last.least, curvature),
        target=last.target,
        done=is_last,
    )
    stopped = last._replace(count=count, done=jnp.ones_like(last.done))
    return jax.tree.map(lambda x, y: jnp.where(goes_well, x, y), new, stopped)  # type: ignore[no-any-return]


@dispatched_once
def _direction(g: Arrays, found: _Iterate) -> tuple[Arrays, ScaleByNewtonCGState]:
    """The direction |g| p; the gradient, at most of norm 1, if even the first product failed."""
    norm = global_norm(g)
    is_found = jnp.isfinite(found.least)
    direction = [
        jnp.where(is_found, norm * p, x / jnp.maximum(norm, 1))
        for p, x in zip(found.p, g, strict=True)
    ]
    least = jnp.where(is_found, found.least, 0)
    return direction, ScaleByNewtonCGState(found.count, jnp.sqrt(found.square), least)


_ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


@exempt("complex64", reason="curvature is that of real parameters")
@exempt(
    "needs_little_memory_on_tpu", reason="conjugate gradients keep four vectors like the gradient"
)
@exempt("sharding_changes_nothing", reason="the search interpolates between nearly equal values")
@needs_extra_args(value_fn=half_square)
@transformation
def newton_cg(
    learning_rate: LearningRate | None = None,
    max_cg_iters: int = 50,
    damping: NonNegative = 0.0,
    max_forcing: NonNegative = 0.5,
    curvature: Curvature | None = None,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformationExtraArgs:
    """Newton's method: steps along -p, of a size that a line search finds; see the module.

    Its ``update`` takes ``value``, ``grad`` and ``value_fn``, of which `scale_by_zoom_linesearch`
    tells. `run` minimises with it, to a tolerance. Each step costs up to `max_cg_iters` products
    with the Hessian, so it pays where `lbfgs` needs very many steps.

    State: 1 number a parameter, for the gradient that the line search keeps.

    Args:
      learning_rate: What the direction is multiplied by before the search: a number, an array of
        shape () or a schedule; 1 with None, as is best with a line search.
      max_cg_iters: As for `scale_by_newton_cg`.
      damping: As for `scale_by_newton_cg`.
      max_forcing: As for `scale_by_newton_cg`.
      curvature: As for `scale_by_newton_cg`.
      linesearch: What makes steps of directions; with None, the learning rate alone.

    Returns:
      A transformation whose state is the tuple of a `ScaleByNewtonCGState`, that of the learning
      rate, and that of the line search.

    Raises:
      ValueError: If a number is out of its range.
      MissingArgumentError: By ``update``, without parameters or ``value_fn``.
      TypeError: If a parameter is complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import newton_cg, run
      >>> def rosenbrock(x):
      ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
      >>> result = run(newton_cg(), rosenbrock, jnp.zeros(2), tol=1e-4)
      >>> print(jnp.array_str(result.params, precision=3))
      [1. 1.]
    """
    return chain(
        scale_by_newton_cg(max_cg_iters, damping, max_forcing, curvature),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
