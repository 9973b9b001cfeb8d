"""What aligns: CTC, by its value, gradient and probabilities on the way, and assignments."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.cases import Bound, Case, Family, call, case
from parity.families.losses import classes, numbers
from parity.problem import compiled_quickly

Array = np.ndarray[Any, Any]
CTC = ("losses.ctc_loss", "losses.ctc_loss_with_forward_probs")
ASSIGNMENTS = ("assignment.hungarian_algorithm", "assignment.base_hungarian_algorithm")


def names() -> Iterable[str]:
    """CTC and assignments."""
    return CTC + ASSIGNMENTS


def paddings(*lengths: int, longest: int) -> Array:
    """1 after the length of each row, up to the longest."""
    return (np.arange(longest) >= np.array(lengths)[:, None]).astype(int)


def results(bound: Bound, dtype: str) -> Any:
    """What there is to compare, its first argument being in a dtype."""
    first = jnp.asarray(bound.args[0], dtype)
    if len(bound.args) == 1:
        return pairs(*bound.function(first))

    def total(logits: jax.Array) -> Any:
        found = bound.function(logits, *bound.args[1:], **bound.kwargs)
        loss, *logs = found if isinstance(found, tuple) else (found,)
        weights = jnp.arange(1.0, 1 + len(loss), dtype=dtype)
        return jnp.vdot(weights, loss), {"loss": loss, "probabilities": list(map(jnp.exp, logs))}

    run = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=compiled_quickly())
    (_, found), gradient = run(first)
    return {**found, "gradient": gradient}


def pairs(rows: jax.Array, columns: jax.Array) -> Any:
    """Pairs in the order of rows: the released library has them in any order."""
    order = jnp.argsort(rows)
    return {"rows": rows[order], "columns": columns[order]}


LOGITS, FAR = (call(numbers, 4, 7, 5, scale=scale) for scale in (1.0, 8.0))
FRAMES, ALL = call(paddings, 7, 6, 4, 0, longest=7), call(paddings, 7, 7, 7, 7, longest=7)
LABELS, FEW = call(classes, 4, 3, below=4), call(classes, 4, 3, below=2)  # few: repeated
LENGTHS, FULL = call(paddings, 3, 2, 1, 0, longest=3), call(paddings, 3, 3, 3, 3, longest=3)
SHORT = call(paddings, 3, 2, 1, 0, longest=7)  # too short for some labels

CASES: list[Case] = [
    each
    for name in CTC
    for each in (
        case(name, LOGITS, FRAMES, LABELS, LENGTHS, blank_id=4),
        case(name, FAR, ALL, FEW, FULL, blank_id=2),
        case(name, LOGITS, FRAMES, FEW, LENGTHS, blank_id=3, log_epsilon=-1e4),
        # With the default, float32 would leave gradients three digits.
        case(name, LOGITS, SHORT, FEW, FULL, blank_id=4, log_epsilon=-30.0),
    )
] + [
    case(name, call(numbers, *shape, scale=scale))
    for name in ASSIGNMENTS
    for shape, scale in (((1, 1), 1.0), ((6, 6), 1.0), ((4, 9), 100.0), ((8, 3), 1e-3))
]
FAMILY = Family(names, CASES, results)
