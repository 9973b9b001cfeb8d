r"""Muon: momentum, made orthogonal.

.. math::

    m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
    u_t &= \mathrm{NS}\!\left(\frac{\beta\, m_t}{1 - \beta^{t+1}}
        + \frac{(1 - \beta)\, g_t}{1 - \beta^t}\right)

without Nesterov's :math:`u_t = \mathrm{NS}(m_t / (1 - \beta^t))`. NS brings all singular values of
a matrix close to 1, by a few Newton-Schulz steps, which are matrix products alone,

.. math::

    X \leftarrow a X + (b A + c A^2) X, \qquad A = X X^*,

from an X of norm at most 1. Then updates are multiplied by :math:`\sqrt{\max(1, n_{out} / n_{in})}`
(or by ``consistent_rms`` times :math:`\sqrt{\max(n_{in}, n_{out})}`), and decay and learning rate
follow. What is no matrix is left to AdamW.

Matrices of one shape go through NS together, up to 64 MiB at a time, on a CPU 1 MiB, which its
cache holds; a tall one goes transposed. On meshes with explicit axes they are dealt out to all
devices, each whole on one, where their number allows; on automatic ones, XLA decides.

State: one copy of the matrices, two of what is left to AdamW. Pitfalls: embeddings and output
layers are matrices, too, and better left to AdamW, by `muon_weight_dimension_numbers`; with the
standard coefficients, singular values end between 0.7 and 1.13 rather than at 1, and those below
1e-2 of the norm stay small; the sets ``"dion"`` and ``"polar_express"`` go closer.

References:
  Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
  Liu et al., Muon is scalable for LLM training, 2025 (arXiv 2502.16982), for ``consistent_rms``.
  Bernstein and Newhouse, Old optimizer, new norm: an anthology, 2024 (arXiv 2409.20325), for
    ``adaptive``.
  Ahn et al., Dion: distributed orthonormalized updates, 2025 (arXiv 2504.05295).
  Amsel et al., The Polar Express, 2025 (arXiv 2505.16932).
  Boissin et al., Turbo-Muon, 2025 (arXiv 2512.04632), for ``"aol"``.
  Grishina et al., Accelerating Newton-Schulz iteration for orthogonalization via Chebyshev-type
    polynomials, 2025 (arXiv 2506.10935), for ``"schatten"``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_contrib._matrices import (
    DimensionNumbers,
    is_users,
    matrices_alone,
    numbers_of_leaves,
    shape_of_matrix,
)
from grad_contrib._orthogonal import (
    Coefficients,
    NewtonSchulz,
    Preconditioning,
    coefficient_sets,
    orthogonalized,
)
from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    OptState,
    Params,
    PyTree,
    TreeRule,
    Updates,
    add_decayed_weights,
    chain,
    example,
    first_moment,
    partition,
    rule,
    scale_by_learning_rate,
    transformation,
)
from grad_optimizers import adamw

Numbers: TypeAlias = DimensionNumbers | Callable[[Params], PyTree]


class MuonState(NamedTuple):
    """The number of updates, the momentum, and the coefficients.

    Attributes:
      count: The number of updates.
      mu: The momentum.
      ns_coeffs: The coefficients of Newton-Schulz steps, of shape (3,), or one set for each step.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    ns_coeffs: jax.Array


class _MomentumState(NamedTuple):
    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates


@rule
def _momentum(beta: Decay, nesterov: bool, mu_dtype: DType | None) -> LeafRule:
    def once(t: jax.Array) -> dict[str, Any]:
        correction = 1 - beta**t
        if not nesterov:
            return {"weight_mu": 1 / correction, "weight_g": None}
        next_correction = 1 - beta ** (t + 1)
        return {"weight_mu": beta / next_correction, "weight_g": (1 - beta) / correction}

    def step(
        g: jax.Array, mu: jax.Array, weight_mu: jax.Array, weight_g: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        mu = beta * mu + (1 - beta) * g
        direction = weight_mu * mu
        return direction if weight_g is None else direction + weight_g * g, mu

    return LeafRule(step, _MomentumState, once=once, mu=first_moment(mu_dtype))


@example(weight_dimension_numbers=matrices_alone)
@rule
def scale_by_muon(
    ns_coeffs: Coefficients = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Numbers | None = None,
    ns_dtype: DType | None = None,
) -> TreeRule:
    r"""Momentum with all singular values close to 1; see the module.

    Args:
      ns_coeffs: The coefficients (a, b, c) of all Newton-Schulz steps; or a sequence of such, the
        last `ns_steps` of which are used, one a step; or the name of one: ``"standard"``,
        ``"dion"`` or ``"polar_express"``.
      ns_steps: The number of steps, >= 1.
      beta: :math:`\beta`, the decay of the momentum, in [0, 1).
      eps: Added to the norms that matrices are divided by.
      mu_dtype: The dtype of the momentum; by default that of the parameters.
      nesterov: Whether to look one gradient ahead.
      adaptive: Whether to multiply each update by its inner product with the momentum.
      preconditioning: What makes singular values at most 1: ``"frobenius"``, division by that norm;
        ``"spectral"``, by the largest singular value (by an SVD: slow); ``"aol"``, scaling rows;
        ``"schatten"``, division by the Schatten-4 norm. The last two come with the first step at no
        cost, and leave singular values larger.
      weight_dimension_numbers: Which axes of an array are those of a matrix: a
        `MuonDimensionNumbers` for all leaves, a tree of them (a prefix of the parameters'), or a
        function of the tree that returns one; where it is None, leaves get the momentum as it is.
        With None alone, all leaves must be matrices.
      ns_dtype: The dtype in which products of matrices are formed, for instance bfloat16; by
        default at least float32.

    Returns:
      A transformation whose state is a `MuonState`.

    Raises:
      ValueError: If there are fewer sets of coefficients than steps, or an argument is out of
        range; by ``init`` and ``update``, if axes are no matrix's.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_muon
      >>> tx = scale_by_muon("polar_express", ns_steps=8)
      >>> params = jnp.zeros((2, 2))
      >>> updates, _ = tx.update(jnp.array([[3.0, 0.0], [0.0, -0.01]]), tx.init(params))
      >>> print(jnp.abs(updates.round(2)))
      [[1. 0.]
       [0. 1.]]
    """
    coefficients = coefficient_sets("scale_by_muon", ns_coeffs, ns_steps)
    momentum: Any = _momentum(beta, nesterov, mu_dtype)

    def finished(x: jax.Array, y: jax.Array | None) -> jax.Array:
        """What becomes of a momentum x and of what is orthogonal, if it is a matrix."""
        if y is None:
            return x
        return jnp.sum(jnp.conj(x) * y) * y if adaptive else y

    def init(params: Params) -> MuonState:
        numbers_of_leaves("scale_by_muon", weight_dimension_numbers, params)
        inner = momentum.init(params)
        return MuonState(inner.count, inner.mu, jnp.asarray(coefficients, jnp.result_type(float)))

    def update(
        updates: Updates, state: MuonState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        wide = jax.tree.map(_wide, updates)
        given: Any = _MomentumState(state.count, state.mu)
        directions, new = momentum.update(wide, given, params)
        leaves, treedef = jax.tree.flatten(directions)
        numbers = numbers_of_leaves("scale_by_muon", weight_dimension_numbers, updates)
        how = NewtonSchulz(ns_steps, preconditioning, ns_dtype)
        made = orthogonalized(leaves, numbers, state.ns_coeffs, eps, how)
        rows = zip(leaves, made, jax.tree.leaves(updates), strict=True)
        kept = [g if x is g else finished(x, y).astype(jnp.result_type(g)) for x, y, g in rows]
        return jax.tree.unflatten(treedef, kept), MuonState(new.count, new.mu, state.ns_coeffs)

    return TreeRule(update, init, compiled=not is_users(weight_dimension_numbers))


def _wide(g: Any) -> Any:
    """A gradient in float32 at least, so that nothing is rounded between momentum and products."""
    dtype = jnp.result_type(g)
    if not jnp.issubdtype(dtype, jnp.inexact) or dtype.itemsize >= 4:
        return g
    return jnp.asarray(g, jnp.float32)


@rule
def _scale_by_shape(
    weight_dimension_numbers: Numbers | None, consistent_rms: NonNegative | None
) -> TreeRule:
    """The factor that makes steps alike over shapes; see the module."""

    def factor(shape: tuple[int, int]) -> Any:
        fan_in, fan_out = shape
        if consistent_rms is None:
            return max(1.0, fan_out / fan_in) ** 0.5 if fan_in else 1.0
        return consistent_rms * float(max(fan_in, fan_out)) ** 0.5

    def scaled(x: Any, number: Any) -> Any:
        if number is None:
            return x
        wide = _wide(x)
        return (wide * factor(shape_of_matrix(x, number))).astype(jnp.result_type(x))

    def update(
        updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        del params
        leaves, treedef = jax.tree.flatten(updates)
        numbers = numbers_of_leaves("muon", weight_dimension_numbers, updates)
        return jax.tree.unflatten(treedef, map(scaled, leaves, numbers)), state

    return TreeRule(update, compiled=not is_users(weight_dimension_numbers))


@example(0.02)
@transformation
def muon(
    learning_rate: LearningRate,
    ns_coeffs: Coefficients = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: LearningRate | None = None,
    muon_weight_dimension_numbers: Numbers | None = None,
    consistent_rms: NonNegative | None = None,
    ns_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Muon for matrices, AdamW for the rest; see the module.

    Args:
      learning_rate: A number, an array of shape () or a schedule.
      ns_coeffs: As for `scale_by_muon`.
      ns_steps: As for `scale_by_muon`.
      beta: As for `scale_by_muon`.
      eps: As for `scale_by_muon`, and AdamW's.
      weight_decay: The multiple of the matrices that is added; the learning rate multiplies it.
      weight_decay_mask: Which matrices to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the momentum and of AdamW's first moment.
      nesterov: Whether to look one gradient ahead, in AdamW too.
      adaptive: As for `scale_by_muon`.
      preconditioning: As for `scale_by_muon`.
      adam_b1: AdamW's decay of the first moment.
      adam_b2: AdamW's decay of the second moment.
      adam_eps_root: AdamW's, inside the root.
      adam_weight_decay: AdamW's decay of weights.
      adam_learning_rate: AdamW's learning rate; with None, `learning_rate`.
      muon_weight_dimension_numbers: Which arrays are matrices, and by which axes: a tree of
        `MuonDimensionNumbers`, a prefix of the parameters', with None for what is AdamW's, or a
        function of the parameters that returns one. With None, all arrays with two axes.
      consistent_rms: What the root mean square of updates is to be, about, for every shape; 0.2 is
        like AdamW's. With None, they are larger the more outputs than inputs there are.
      ns_dtype: As for `scale_by_muon`.

    Returns:
      A transformation whose state is a `PartitionState` with the labels ``"muon"`` and ``"adam"``.

    Raises:
      ValueError: As `scale_by_muon`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import muon
      >>> optimizer = muon(0.02)
      >>> params = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}
      >>> updates, state = optimizer.update(params, optimizer.init(params), params)
      >>> sorted(state.inner_states)
      ['adam', 'muon']
    """
    numbers = muon_weight_dimension_numbers
    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers,
            ns_dtype=ns_dtype,
        ),
        _scale_by_shape(numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
    )
    return partition({"muon": matrices, "adam": others}, functools.partial(_labels, numbers))


def _labels(numbers: Numbers | None, tree: Params) -> PyTree:
    """Whose each leaf is."""
    numbers = matrices_alone if numbers is None else numbers
    known = numbers_of_leaves("muon", numbers, tree, check=False)
    labels = ["adam" if each is None else "muon" for each in known]
    return jax.tree.unflatten(jax.tree.structure(tree), labels)
