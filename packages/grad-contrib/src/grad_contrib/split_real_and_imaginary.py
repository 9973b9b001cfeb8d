r"""Complex parameters as pairs of real ones.

The inner transformation sees :math:`\mathrm{Re}\,\theta` and :math:`\mathrm{Im}\,\theta` as two
leaves. An Adam, for one, then has two second moments, of :math:`(\mathrm{Re}\,g)^2` and
:math:`(\mathrm{Im}\,g)^2`, where otherwise it has the one of :math:`|g|^2`. So optimizers that are
made for real numbers can be used; but turning a parameter in the complex plane then changes what
is done to it. It costs nothing beside the inner state.

The gradient that JAX gives of a real loss is the conjugate of the direction of ascent: put
`conjugate` before this.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    TreeRule,
    Updates,
    example,
    rule,
    zeros_like,
)
from grad_optimizers import adam


class SplitRealAndImaginaryArrays(NamedTuple):
    """A complex array as two real ones."""

    real: jax.Array
    imaginary: jax.Array


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation, for the split parameters."""

    inner_state: OptState


@example(adam(0.01))
@rule
def split_real_and_imaginary(inner: GradientTransformation) -> TreeRule:
    """Shows complex parameters to a transformation as pairs of real ones; real ones as they are.

    Args:
      inner: The transformation of real parameters. In trees that it sees, and in its state, a
        complex array is a named tuple with the fields ``real`` and ``imaginary``.

    Returns:
      A transformation whose state is a `SplitRealAndImaginaryState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import split_real_and_imaginary
      >>> from grad_core import scale_by_sign
      >>> tx = split_real_and_imaginary(scale_by_sign())
      >>> tx.update(jnp.array([3 - 4j]), tx.init(jnp.array([0j])))[0]
      Array([1.-1.j], dtype=complex64)
    """

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(_split(params)))

    def update(
        updates: Updates,
        state: SplitRealAndImaginaryState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        beside = None if params is None else _split(params)
        new, inner_state = inner.update(_split(updates), state.inner_state, beside, **extra_args)
        return _merged(new), SplitRealAndImaginaryState(inner_state)

    return TreeRule(update, init, takes_params=True)


def _split(tree: PyTree) -> PyTree:
    def split(x: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.complexfloating):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            real = zeros_like(x).real
            return SplitRealAndImaginaryArrays(real, real)
        x = jnp.asarray(x)
        return SplitRealAndImaginaryArrays(x.real, x.imag)

    return jax.tree.map(split, tree)


def _merged(tree: PyTree) -> PyTree:
    def merge(x: Any) -> Any:
        return jax.lax.complex(x.real, x.imaginary) if _is_pair(x) else x

    return jax.tree.map(merge, tree, is_leaf=_is_pair)


def _is_pair(x: object) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)
