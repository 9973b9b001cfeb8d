"""Newton-Schulz steps, on stacks of matrices of one shape."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from grad_contrib._matrices import AsMatrices, MuonDimensionNumbers
from grad_contrib._placement import placed, sharding_by, spec_of
from grad_core import DType, safe_divide, safe_norm, widen

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


class NewtonSchulz(NamedTuple):
    """How matrices are made orthogonal.

    Attributes:
      steps: How many steps.
      preconditioning: What brings singular values below 1 first.
      dtype: Of the products; None means that of the matrices.
    """

    steps: int
    preconditioning: Preconditioning
    dtype: DType | None = None


class _Stacks(NamedTuple):
    """How matrices go through the steps.

    Attributes:
      arrays: The number of arrays that a stack is made of, at most.
      elements: The number of its elements, at most, unless it is of one array.
      unroll: Whether each step is compiled, rather than a loop.
    """

    arrays: int
    elements: int
    unroll: bool


# The cache of a CPU holds few matrices, and there each cut from a stack takes long to compile.
_ON_CPU = _Stacks(8, 2**18, unroll=False)
_ELSEWHERE = _Stacks(2**24, 2**24, unroll=True)


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
    eps: Any,
    how: NewtonSchulz,
) -> list[Any]:
    """Arrays with all singular values close to 1; None for what is no array of numbers.

    Args:
      leaves: The arrays, and what else there is among the leaves of a tree.
      numbers: The axes of each, or None.
      sets: The coefficients, of shape (3,) or (steps, 3).
      eps: Added to what matrices are divided by.
      how: All else.
    """
    forms = {
        i: AsMatrices.of(x.shape, number)
        for i, (x, number) in enumerate(zip(leaves, numbers, strict=True))
        if number is not None and jnp.issubdtype(jnp.result_type(x), jnp.inexact) and x.size
    }
    made = _orthogonalized([leaves[i] for i in forms], sets, eps, (*forms.values(),), how)
    found = dict(zip(forms, made, strict=True))
    return [found.get(i) for i in range(len(leaves))]


@functools.partial(jax.jit, static_argnames=("forms", "how"))
def _orthogonalized(
    arrays: list[jax.Array],
    sets: jax.Array,
    eps: Any,
    forms: tuple[AsMatrices, ...],
    how: NewtonSchulz,
) -> list[jax.Array]:
    def on(stacks: _Stacks, arrays: list[jax.Array]) -> list[jax.Array]:
        steps = functools.partial(newton_schulz, how=how, unroll=stacks.unroll)
        return _in_stacks(arrays, forms, stacks, lambda x: steps(x, sets, eps))

    on_cpu, elsewhere = (functools.partial(on, stacks) for stacks in (_ON_CPU, _ELSEWHERE))
    if any(sharding_by(x, ()) for x in arrays):
        return elsewhere(arrays)
    made: list[jax.Array] = jax.lax.platform_dependent(arrays, cpu=on_cpu, default=elsewhere)
    return made


def _in_stacks(
    arrays: Sequence[jax.Array],
    forms: Sequence[AsMatrices],
    stacks: _Stacks,
    steps: Callable[[jax.Array], jax.Array],
) -> list[jax.Array]:
    """Arrays that are alike as stacks of matrices go through the steps as one stack, or few."""
    alike: dict[Any, list[int]] = {}
    for i, (x, form) in enumerate(zip(arrays, forms, strict=True)):
        alike.setdefault((form, x.dtype), []).append(i)
    made: dict[int, jax.Array] = {}
    for (form, _), members in alike.items():
        at_once = max(1, min(stacks.arrays, stacks.elements // math.prod(form.shape)))
        for start in range(0, len(members), at_once):
            few = members[start : start + at_once]
            stack = jnp.stack([form.there(placed(arrays[i], ())) for i in few])
            matrices = steps(_spread(stack.reshape(-1, *form.shape[1:])))
            pieces = jnp.unstack(placed(matrices, ()).reshape(stack.shape))
            for i, piece in zip(few, pieces, strict=True):
                made[i] = placed(form.back(piece), spec_of(arrays[i]))
    return [made[i] for i in range(len(arrays))]


@functools.partial(jax.jit, static_argnames=("how", "unroll"))
def newton_schulz(
    x: jax.Array, sets: jax.Array, eps: Any, how: NewtonSchulz, unroll: bool
) -> jax.Array:
    """Newton-Schulz steps on a stack of matrices, of shape (k, m, n) with m <= n.

    Args:
      x: The stack.
      sets: As for `orthogonalized`.
      eps: As for `orthogonalized`.
      how: As for `orthogonalized`.
      unroll: Whether to compile each step, rather than a loop.

    Returns:
      A stack of the same shape and dtype.
    """
    steps, preconditioning, dtype = how
    result = x.dtype
    # Squares of the largest numbers overflow, those of the smallest vanish.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), (1, 2), keepdims=True))
    if preconditioning in ("frobenius", "spectral"):
        tiny = jnp.finfo(result).tiny  # type: ignore[no-untyped-call]
        size = jnp.maximum(size, tiny)
        x = x / size
        x = x / (_norm(x, preconditioning) + eps / size)
    else:
        x = x / jnp.maximum(size, 1)
    x = x.astype(result if dtype is None or jnp.iscomplexobj(x) else dtype)
    each = jnp.broadcast_to(sets, (steps, 3)).astype(x.real.dtype)
    if preconditioning in ("aol", "schatten"):
        x, gram = _rescaled(x, x @ _adjoint(x), preconditioning, eps)
        x, each = _step(x, gram, each[0]), each[1:]

    def step(x: jax.Array, coefficients: jax.Array) -> tuple[jax.Array, None]:
        return _step(x, x @ _adjoint(x), coefficients), None

    x, _ = jax.lax.scan(step, x, each, unroll=unroll)
    return x.astype(result)


def _norm(x: jax.Array, kind: str) -> jax.Array:
    """That of matrices whose largest number is 1, and 1 where all are 0."""
    if kind == "spectral":
        return safe_norm(x, 1.0, 2, axis=(1, 2), keepdims=True)
    squares = jnp.sum(jnp.abs(x) ** 2, axis=(1, 2), keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, 1))


def _step(x: jax.Array, gram: jax.Array, coefficients: jax.Array) -> jax.Array:
    a, b, c = coefficients
    stepped: jax.Array = a * x + (b * gram + c * (gram @ gram)) @ x
    return stepped


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, 1, 2))


def _rescaled(
    x: jax.Array, gram: jax.Array, preconditioning: str, eps: Any
) -> tuple[jax.Array, jax.Array]:
    """Matrices whose singular values are at most 1, and their X X*."""
    size = jnp.abs(widen(gram))
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
