r"""Schedule-free learning: averaging in place of momentum and of a decaying learning rate.

A base optimizer makes the steps :math:`u_t` of a sequence :math:`z`, from gradients at :math:`y`;
a weighted mean :math:`x` of :math:`z` is what to evaluate. With the learning rate :math:`\gamma_t`:

.. math::

    z_{t+1} &= z_t + u_t, \qquad u_t \text{ from } \nabla f(y_t) \\
    w_t &= (\max_{s \le t} |\gamma_s|)^r, \qquad c_t = w_t / \sum_{s \le t} w_s \\
    x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1} \\
    y_{t+1} &= (1 - \beta_1) z_{t+1} + \beta_1 x_{t+1}

The parameters are :math:`y`, the state keeps :math:`z`, and x follows from both, as :math:`z +
(y - z) / \beta_1`. So y moves by :math:`(1 - b) u_t - (1 - b / \beta_1) (y_t - z_t)`, with
:math:`b = \beta_1 (1 - c_t)`, which does not divide by :math:`\beta_1` where that does not change.

Pitfalls. The parameters are not what to evaluate: that is `schedule_free_eval_params`, and batch
statistics belong to it too. The base optimizer should have no momentum of its own, and the learning
rate should warm up, but not decay. Nothing may scale or clip the updates afterwards, or y and z
part. With :math:`\beta_1 = 0`, which is the base optimizer alone, x cannot be had from y and z.

References:
  Defazio et al., The road less scheduled, 2024 (arXiv 2405.15682), algorithm 1 and section 4.
"""

from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from grad_core import (
    Decay,
    DType,
    GradientTransformation,
    LeafRule,
    LearningRate,
    MaskedNode,
    NonNegative,
    OptState,
    Params,
    TreeMismatchError,
    TreeRule,
    Updates,
    add_decayed_weights,
    chain,
    copy_of,
    example,
    exempt,
    rule,
    safe_divide,
    safe_increment,
    scalar_dtype,
    scale_by_learning_rate,
    transformation,
)
from grad_optimizers import scale_by_rms, sgd
from grad_schedules import warmup_constant_schedule

Tree = TypeVar("Tree")


class ScheduleFreeState(NamedTuple):
    """Where the sequences stand.

    Attributes:
      b1: The weight of x in y, of shape ().
      weight_sum: The sum of the weights so far, of shape ().
      step_count: The number of the next update, from 1.
      max_lr: The largest learning rate so far, of shape ().
      base_optimizer_state: The state of the base optimizer.
      z: The sequence that it moves, a tree like the parameters.
    """

    b1: jax.Array
    weight_sum: jax.Array
    step_count: jax.Array
    max_lr: jax.Array
    base_optimizer_state: OptState
    z: Params


class _Iterates(NamedTuple):
    z: Params


@rule
def interpolation(b1: Decay, state_dtype: DType | None) -> LeafRule:
    """Turns the step of z into that of y, given the weight c and the `last_b1` that made y."""

    def once(c: jax.Array, last_b1: jax.Array) -> dict[str, Any]:
        now = jnp.asarray(b1, last_b1.dtype)
        ratio = jnp.where(last_b1 == 0, 1, safe_divide(now, last_b1))  # 1 but for a changing b1
        return {"to_step": 1 - b1 + b1 * c, "to_z": 1 - ratio + ratio * c}

    def step(
        g: jax.Array, p: jax.Array, z: jax.Array, to_step: jax.Array, to_z: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return to_step * g - to_z * (p - z), z + g

    def first_z(p: Any) -> jax.Array:
        dtype = jnp.result_type(p) if state_dtype is None else state_dtype
        is_complex = jnp.issubdtype(jnp.result_type(p), jnp.complexfloating)
        return copy_of(p).astype(jnp.promote_types(dtype, jnp.complex64) if is_complex else dtype)

    return LeafRule(step, _Iterates, once=once, z=first_z)


@example(sgd(0.05), 0.05)
@rule
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> TreeRule:
    """Makes an optimizer schedule-free: it moves z, and the parameters move to (1 - b1) z + b1 x.

    State: one number a parameter, of `state_dtype`, beside that of the base optimizer. The x that
    16-bit parameters give is as coarse as they are. In a 16-bit z small steps are lost too, which
    ``state_dtype=jnp.float32`` prevents.

    Args:
      base_optimizer: What makes the steps of z, its learning rate included; without momentum.
      learning_rate: That learning rate, a number, an array of shape () or a schedule; it weights
        the steps in the mean. A schedule should warm up, but not decay. The first update uses its
        value at 0.
      b1: The weight of x in y, in [0, 1].
      weight_lr_power: The power r of the largest learning rate so far that is the weight of a step.
      state_dtype: The dtype of z (its complex counterpart, for complex parameters); the parameter's
        with None.

    Returns:
      A transformation whose state is a `ScheduleFreeState`; for `schedule_free_eval_params`. Its
      ``update`` needs the parameters.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_contrib import schedule_free, schedule_free_eval_params
      >>> from grad_core import apply_updates, scale
      >>> tx = schedule_free(scale(-0.1), learning_rate=0.1, b1=0.5)
      >>> params = 2.0
      >>> state = tx.init(params)
      >>> for _ in range(2):  # z is 1, then 0; x, their mean, is 1, then 0.5
      ...     updates, state = tx.update(10.0, state, params)
      ...     params = apply_updates(params, updates)
      >>> print(params, schedule_free_eval_params(state, params))
      0.25 0.5

    Reference:
      Defazio et al., The road less scheduled, 2024, algorithm 1.
    """
    mixing: Any = interpolation(b1, state_dtype)

    def init(params: Params) -> ScheduleFreeState:
        dtype = scalar_dtype(params)
        return ScheduleFreeState(
            b1=jnp.asarray(b1, dtype),
            weight_sum=jnp.zeros([], dtype),
            step_count=jnp.ones([], jnp.int32),
            max_lr=jnp.zeros([], dtype),
            base_optimizer_state=base_optimizer.init(params),
            z=mixing.init(params).z,
        )

    def update(
        updates: Updates, state: ScheduleFreeState, params: Params, **extra_args: Any
    ) -> tuple[Updates, ScheduleFreeState]:
        updates, base_state = base_optimizer.update(
            updates, state.base_optimizer_state, params, **extra_args
        )
        rate = learning_rate(state.step_count - 1) if callable(learning_rate) else learning_rate
        max_lr = jnp.maximum(state.max_lr, jnp.abs(rate)).astype(state.max_lr.dtype)
        weight = max_lr**weight_lr_power
        weight_sum = (state.weight_sum + weight).astype(state.weight_sum.dtype)
        c = safe_divide(weight, weight_sum)
        new: Any
        updates, new = mixing.update(updates, _Iterates(state.z), params, c=c, last_b1=state.b1)
        return updates, ScheduleFreeState(
            b1=jnp.asarray(b1, state.b1.dtype),
            weight_sum=weight_sum,
            step_count=safe_increment(state.step_count),
            max_lr=max_lr,
            base_optimizer_state=base_state,
            z=new.z,
        )

    return TreeRule(
        update,
        init,
        needs_params=True,
        inner_state=attrgetter("base_optimizer_state"),
        count=lambda state: state.step_count - 1,
    )


def schedule_free_eval_params(state: OptState, params: Tree) -> Tree:
    """The parameters to evaluate, x = z + (y - z) / b1, where y are those that are trained.

    They are found through any nesting of `schedule_free` and its aliases: in chains, masks,
    partitions (each part of the parameters has its own), `MultiSteps`, other wrappers.

    Args:
      state: The state of the whole optimizer.
      params: The current parameters. They stand where there is nothing to average (leaves that are
        masked out), and tell the dtypes.

    Returns:
      A tree like `params`, of their dtypes. With a `b1` of 0 it is z.

    Raises:
      ValueError: If there is no schedule-free state, or there are two of one parameter.
      TreeMismatchError: If `params` are not those that the state was made for.

    Example:
      >>> from grad_contrib import schedule_free_eval_params, schedule_free_sgd
      >>> from grad_core import chain, clip_by_global_norm
      >>> optimizer = chain(clip_by_global_norm(1.0), schedule_free_sgd(0.1))
      >>> params = {"w": 1.0}
      >>> schedule_free_eval_params(optimizer.init(params), params)
      {'w': Array(1., dtype=float32)}

    Reference:
      Defazio et al., The road less scheduled, 2024, section 4.
    """
    leaves = jax.tree.leaves(state, is_leaf=_is_schedule_free)
    columns = [_evaluated(each, params) for each in leaves if _is_schedule_free(each)]
    if not columns:
        raise ValueError(
            "schedule_free_eval_params: this state holds none of schedule_free; give the state "
            "that the update of the whole optimizer returned."
        )
    treedef: Any
    paths, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_none)
    rows = zip(paths, *columns, strict=True)
    evaluated: Tree = treedef.unflatten([_one_of(path, p, row) for (path, p), *row in rows])
    return evaluated


def _is_schedule_free(x: object) -> bool:
    return isinstance(x, ScheduleFreeState)


def _is_none(x: object) -> bool:
    return x is None


def _evaluated(state: ScheduleFreeState, params: Params) -> list[Any]:
    """X of each leaf of the parameters; a `MaskedNode` where it has none."""
    treedef: Any
    leaves, treedef = jax.tree.flatten(params, is_leaf=_is_none)
    if getattr(state.z, "ndim", None) == 1 and not jax.tree_util.treedef_is_leaf(treedef):
        vector, unravel = ravel_pytree(params)  # the state was made by `flatten`
        if vector.shape == state.z.shape:  # type: ignore[attr-defined]
            evaluated = unravel(_outer(vector, state.z, state.b1))
            return jax.tree.leaves(evaluated, is_leaf=_is_none)
    try:
        zs = treedef.flatten_up_to(state.z)
    except ValueError as error:
        raise TreeMismatchError(
            "schedule_free_eval_params: params must have the structure of those that the state was "
            f"made for: {str(error).partition(chr(10))[0]}"
        ) from None
    return [_outer(y, z, state.b1) for y, z in zip(leaves, zs, strict=True)]


def _outer(y: Any, z: Any, b1: jax.Array) -> Any:
    """X from y and z, in the dtype of y."""
    if y is None or isinstance(z, MaskedNode):
        return MaskedNode()
    wide = jnp.promote_types(jnp.result_type(y, z), jnp.float32)
    gap = jnp.asarray(y, wide) - jnp.asarray(z, wide)
    return (z + safe_divide(gap, b1.astype(gap.real.dtype))).astype(jnp.result_type(y))


def _one_of(path: Any, p: Any, found: list[Any]) -> Any:
    there = [x for x in found if not isinstance(x, MaskedNode)]
    if len(there) > 1:
        raise ValueError(
            f"schedule_free_eval_params: there are {len(there)} schedule-free states for "
            f"params{jax.tree_util.keystr(path)}; give the part of the state that holds one."
        )
    return there[0] if there else p


@example(0.05)
@transformation
def schedule_free_sgd(
    learning_rate: LearningRate = 1.0,
    warmup_steps: int | None = None,
    b1: Decay = 0.9,
    weight_decay: LearningRate | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
) -> GradientTransformation:
    """Schedule-free gradient descent.

    State: one number a parameter, 4 bytes for float32, as for descent with momentum.

    Args:
      learning_rate: A number, an array of shape () or a schedule; larger than one for momentum.
      warmup_steps: Over how many steps the learning rate rises linearly from 0; with a schedule,
        None.
      b1: As for `schedule_free`, and so are the others.
      weight_decay: The multiple of y that is added to gradients.
      weight_lr_power: The power of the learning rate that weights the steps.
      state_dtype: The dtype of z.

    Returns:
      A transformation whose state is a `ScheduleFreeState`; for `schedule_free_eval_params`.

    Raises:
      ValueError: If there are `warmup_steps` beside a schedule.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import schedule_free_sgd
      >>> optimizer = schedule_free_sgd(0.5)
      >>> params = jnp.array([1.0, 2.0])
      >>> optimizer.update(jnp.ones(2), optimizer.init(params), params)[0]
      Array([-0.5, -0.5], dtype=float32)

    Reference:
      Defazio et al., The road less scheduled, 2024, algorithm 1.
    """
    rate = _warmed("schedule_free_sgd", learning_rate, warmup_steps)
    base = sgd(rate)
    if weight_decay is not None:
        base = chain(add_decayed_weights(weight_decay), base)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


@example(0.05)
@exempt(
    "needs_little_memory_on_tpu",
    reason="for one leaf z is read and written around AdamW's own step",
)
@transformation
def schedule_free_adamw(
    learning_rate: LearningRate = 0.0025,
    warmup_steps: int | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: LearningRate = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Schedule-free AdamW: steps -lr (g / (sqrt(v) + eps) + w y) of z, in place of momentum.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16, as for AdamW.

    Args:
      learning_rate: A number, an array of shape () or a schedule; 1 to 10 times AdamW's.
      warmup_steps: Over how many steps the learning rate rises linearly from 0; with a schedule,
        None.
      b1: As for `schedule_free`, and so are `weight_lr_power` and `state_dtype`.
      b2: Decay of the second moment v, in [0, 1], which is debiased.
      eps: Added to its root.
      weight_decay: The multiple w of y that is added to the direction.
      weight_lr_power: The power of the learning rate that weights the steps.
      state_dtype: The dtype of z.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScheduleFreeState`; for `schedule_free_eval_params`.

    Raises:
      ValueError: If there are `warmup_steps` beside a schedule.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import schedule_free_adamw
      >>> optimizer = schedule_free_adamw(0.1)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads = jnp.array([3.0, -0.01])
      >>> optimizer.update(grads, optimizer.init(params), params)[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Reference:
      Defazio et al., The road less scheduled, 2024, algorithm 1 (section 4.2).
    """
    rate = _warmed("schedule_free_adamw", learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed(factory: str, learning_rate: LearningRate, warmup_steps: int | None) -> LearningRate:
    """The learning rate, after a linear rise from 0."""
    if warmup_steps is None:
        return learning_rate
    if callable(learning_rate):
        raise ValueError(
            f"{factory}: warmup_steps must be None where learning_rate is a schedule; got "
            f"{warmup_steps}. Let the schedule warm up by itself."
        )
    return warmup_constant_schedule(0.0, learning_rate, warmup_steps)
