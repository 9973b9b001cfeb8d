"""Newton-Schulz steps, on stacks of matrices of one shape."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from grad_contrib._arrays import placed, spec_of, wide
from grad_contrib._matrices import AsMatrices, MuonDimensionNumbers
from grad_core import DType, safe_divide, safe_norm, stacking

Set: TypeAlias = tuple[float, float, float]
Coefficients: TypeAlias = Set | Sequence[Set] | str
Preconditioning: TypeAlias = Literal["frobenius", "spectral", "aol", "schatten"]

_STANDARD = (3.4445, -4.775, 2.0315)
_DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
# The best odd polynomials of degree 5, each on the interval to which those before it lead from
# [1e-3, 1], or on its upper part if that is very wide; the last is repeated.
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
_SLACK = 1.01  # so that a singular value a little over 1 by rounding does not run away

_ELEMENTS_AT_ONCE = 2**24


def coefficient_sets(name: str, coefficients: Coefficients, steps: int) -> np.ndarray:
    """The coefficients as an array: one set for all steps, of shape (3,), or one for each.

    Raises:
      ValueError: If they are not such, or fewer than steps.
    """
    if steps < 1:
        raise ValueError(f"{name}: ns_steps must be at least 1; got {steps}.")
    if isinstance(coefficients, str):
        return _named(name, coefficients, steps)
    sets = np.asarray(coefficients, np.float64)
    if sets.ndim not in (1, 2) or sets.shape[-1] != 3:
        raise ValueError(
            f"{name}: ns_coeffs must be three numbers, or a sequence of such; got an array of "
            f"shape {sets.shape}."
        )
    if sets.ndim == 2 and len(sets) < steps:
        raise ValueError(
            f"{name}: ns_coeffs are {len(sets)} sets of coefficients, too few for {steps} steps: "
            f"pass ns_steps={len(sets)}, or more sets."
        )
    return sets if sets.ndim == 1 else sets[-steps:]


def _named(name: str, preset: str, steps: int) -> np.ndarray:
    if preset == "standard":
        return np.asarray(_STANDARD)
    if preset == "dion":
        return coefficient_sets(name, _DION, steps)
    if preset == "polar_express":
        powers = _SLACK ** np.arange(1, 6, 2)
        sets = [np.asarray(each) / powers for each in _POLAR_EXPRESS[:-1]]
        return np.stack([*sets, *[np.asarray(_POLAR_EXPRESS[-1])] * steps][:steps])
    raise ValueError(
        f"{name}: ns_coeffs {preset!r} is none of 'standard', 'dion' and 'polar_express'."
    )


def orthogonalized(
    leaves: Sequence[Any],
    numbers: Sequence[MuonDimensionNumbers | None],
    sets: jax.Array,
    steps: int,
    preconditioning: Preconditioning,
    eps: Any,
    dtype: DType | None = None,
) -> list[Any]:
    """Arrays with all singular values close to 1; None for what is no array of numbers."""
    made: list[Any] = [None] * len(leaves)
    for group, form in _groups(leaves, numbers):
        stack = stacking.join([form.there(placed(leaves[i], ())) for i in group])
        matrices = _spread(stack.reshape(-1, *form.shape[1:]))
        matrices = newton_schulz(matrices, sets, steps, preconditioning, eps, dtype)
        pieces = stacking.cut(placed(matrices, ()).reshape(stack.shape))
        for i, piece in zip(group, pieces, strict=True):
            made[i] = placed(form.back(piece), spec_of(leaves[i]))
    return made


def _groups(
    leaves: Sequence[Any], numbers: Sequence[MuonDimensionNumbers | None]
) -> Iterator[tuple[list[int], AsMatrices]]:
    """Indices of arrays that go together: alike as stacks of matrices, and not too many."""
    alike: dict[Any, tuple[list[int], AsMatrices]] = {}
    for i, (x, number) in enumerate(zip(leaves, numbers, strict=True)):
        if number is not None and jnp.issubdtype(jnp.result_type(x), jnp.inexact) and x.size:
            form = AsMatrices.of(x.shape, number)
            alike.setdefault((form, jnp.result_type(x)), ([], form))[0].append(i)
    for members, form in alike.values():
        at_once = max(1, _ELEMENTS_AT_ONCE // math.prod(form.shape))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once], form


def newton_schulz(
    x: jax.Array,
    sets: jax.Array,
    steps: int,
    preconditioning: Preconditioning,
    eps: Any,
    dtype: DType | None = None,
) -> jax.Array:
    """Newton-Schulz steps on a stack of matrices, of shape (k, m, n) with m <= n.

    Args:
      x: The stack.
      sets: The coefficients, of shape (3,) or (steps, 3).
      steps: How many steps.
      preconditioning: What brings singular values below 1 first.
      eps: Added to what that divides by.
      dtype: Of the products; None means that of x.

    Returns:
      A stack of the same shape and dtype.
    """
    each = jnp.broadcast_to(sets, (steps, 3)).astype(x.real.dtype)
    if preconditioning in ("frobenius", "spectral"):
        order: Any = None if preconditioning == "frobenius" else 2
        x = safe_divide(x, safe_norm(x, 0.0, order, axis=(1, 2), keepdims=True) + eps)
    else:
        # Squares of the largest numbers overflow.
        x = x / jnp.maximum(jnp.max(jnp.abs(x), (1, 2), keepdims=True), 1)
    result = x.dtype
    x = x.astype(result if dtype is None or jnp.iscomplexobj(x) else dtype)
    for k in range(steps):
        gram = x @ _adjoint(x)
        if k == 0 and preconditioning in ("aol", "schatten"):
            x, gram = _rescaled(x, gram, preconditioning, eps)
        a, b, c = each[k].astype(x.real.dtype)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.astype(result)


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, 1, 2))


def _rescaled(
    x: jax.Array, gram: jax.Array, preconditioning: str, eps: Any
) -> tuple[jax.Array, jax.Array]:
    """Matrices whose singular values are at most 1, and their X X*."""
    size = jnp.abs(wide(gram))
    if preconditioning == "aol":
        squares = jnp.sum(size, axis=2, keepdims=True)
    else:
        squares = safe_norm(size, 0.0, axis=(1, 2), keepdims=True)
    scale = safe_divide(jnp.ones_like(squares), jnp.sqrt(jnp.maximum(squares, eps)))
    scale = scale.astype(x.real.dtype)
    return x * scale, gram * scale * jnp.swapaxes(scale, 1, 2)


def _spread(stack: jax.Array) -> jax.Array:
    """The stack with its matrices dealt out to all devices, if their number allows."""
    mesh = jax.typeof(stack).sharding.mesh
    is_explicit = all(kind == AxisType.Explicit for kind in mesh.axis_types)
    if mesh.empty or not is_explicit or len(stack) % mesh.size:
        return stack
    return placed(stack, (mesh.axis_names,))
