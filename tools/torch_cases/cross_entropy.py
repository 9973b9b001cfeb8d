"""Cross entropies with integer labels, of logits and of linear heads."""

import importlib
from typing import Any

from torch_cases import Case, integers, numbers


def linear_cross_entropy(
    hidden: Any, kernel: Any, target: Any, weight: Any, *, reduction: str, **arguments: Any
) -> Any:
    """Of ``hidden @ kernel``."""
    functional: Any = importlib.import_module("torch.nn.functional")
    return functional.cross_entropy(
        hidden @ kernel, target, weight, reduction=reduction, **arguments
    )


LABELS = integers(6, seed=1, high=5)
LABELS[2] = 3
LOGITS = {"input": numbers(6, 5), "target": LABELS}
WEIGHTED = {**LOGITS, "weight": numbers(5, seed=2, low=0)}
LINEAR = {
    "hidden": numbers(6, 3),
    "kernel": numbers(3, 5, seed=3, low=-1, high=1),
    "target": LABELS,
    "weight": WEIGHTED["weight"],
}
ALL = {"label_smoothing": 0.2, "ignore_index": 3}
WRT = ("hidden", "kernel")

CASES = {
    "plain": Case("cross_entropy", LOGITS),
    "ignored": Case("cross_entropy", LOGITS, {"ignore_index": 3}),
    "smoothing": Case("cross_entropy", LOGITS, {"label_smoothing": 0.2}),
    "weights": Case("cross_entropy", WEIGHTED),
    "weights-smoothing-ignored": Case("cross_entropy", WEIGHTED, ALL),
    "linear": Case(linear_cross_entropy, LINEAR, ALL, wrt=WRT),
    "linear-mean": Case(linear_cross_entropy, LINEAR, {**ALL, "reduction": "mean"}, wrt=WRT),
    "linear-sum": Case(linear_cross_entropy, LINEAR, {**ALL, "reduction": "sum"}, wrt=WRT),
}
