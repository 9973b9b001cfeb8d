"""Margin losses: of scores, pairs, triplets and several labels."""

import importlib
from typing import Any

import numpy as np

from torch_cases import Case, integers, numbers

SIGNS = 2 * integers(3, 4, seed=2, high=2) - 1
SIDES = 2 * integers(3, seed=3, high=2) - 1
PAIR = {"input1": numbers(3, 4), "input2": numbers(3, 4, seed=1)}
DISTANCES = {"input": numbers(3, 4, low=0), "target": SIGNS}
TRIPLET = {
    "anchor": numbers(6, 4),
    "positive": numbers(6, 4, seed=1),
    "negative": numbers(6, 4, seed=2),
}
SCORES = {"input": numbers(4, 5), "target": integers(4, seed=1, high=5)}
WEIGHTED = {**SCORES, "weight": numbers(5, seed=2, low=0)}
# Labels in torch are indices; the first -1 ends them.
SETS = {
    "input": numbers(3, 5),
    "target": np.array([[3, 0, -1, 1, 2], [4, -1, -1, -1, -1], [0, 1, 2, 3, 4]]),
}
LABELS = {"input": numbers(3, 4), "target": integers(3, 4, seed=1, high=2)}


def triplet_of_norms(anchor: Any, positive: Any, negative: Any, **arguments: Any) -> Any:
    """The triplet loss of a distance without the eps that torch adds to differences."""
    torch: Any = importlib.import_module("torch")
    return torch.nn.functional.triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda x, y: torch.linalg.vector_norm(x - y, dim=-1),
        **arguments,
    )


def weighted_multi_margin(input: Any, target: Any, weight: Any, **arguments: Any) -> Any:
    """The multi margin loss, with weights, which torch takes after margins."""
    torch: Any = importlib.import_module("torch")
    return torch.nn.functional.multi_margin_loss(input, target, weight=weight, **arguments)


def weighted_multilabel_soft_margin(input: Any, target: Any, weight: Any, reduction: str) -> Any:
    """The soft multilabel margin loss, with weights."""
    torch: Any = importlib.import_module("torch")
    return torch.nn.functional.multilabel_soft_margin_loss(
        input, target, weight, reduction=reduction
    )


CASES = {
    "ranking": Case("margin_ranking_loss", {**PAIR, "target": SIGNS}, wrt=tuple(PAIR)),
    "ranking-margin": Case("margin_ranking_loss", {**PAIR, "target": SIGNS}, {"margin": 1.2}),
    "hinge-embedding": Case("hinge_embedding_loss", DISTANCES),
    "hinge-embedding-margin": Case("hinge_embedding_loss", DISTANCES, {"margin": 2.0}),
    "cosine": Case("cosine_embedding_loss", {**PAIR, "target": SIDES}, wrt=tuple(PAIR)),
    "cosine-margin": Case("cosine_embedding_loss", {**PAIR, "target": -SIDES}, {"margin": -0.4}),
    "triplet": Case("triplet_margin_loss", TRIPLET, {"eps": 0.0}, wrt=tuple(TRIPLET)),
    "triplet-degree": Case("triplet_margin_loss", TRIPLET, {"eps": 0.0, "p": 3.0, "margin": 2.0}),
    "triplet-distance": Case(triplet_of_norms, TRIPLET, {"margin": 2.0}, wrt=tuple(TRIPLET)),
    "triplet-swap": Case(triplet_of_norms, TRIPLET, {"swap": True}, wrt=tuple(TRIPLET)),
    "triplet-eps": Case("triplet_margin_with_distance_loss", TRIPLET, {"swap": True}),
    "multi": Case("multi_margin_loss", SCORES),
    "multi-square": Case("multi_margin_loss", SCORES, {"p": 2, "margin": 0.5}),
    "multi-weights": Case(weighted_multi_margin, WEIGHTED, {"p": 2}),
    "multilabel": Case("multilabel_margin_loss", SETS),
    "multilabel-soft": Case("multilabel_soft_margin_loss", LABELS),
    "multilabel-soft-weights": Case(
        weighted_multilabel_soft_margin, {**LABELS, "weight": numbers(4, seed=2, low=0)}
    ),
    "soft": Case("soft_margin_loss", {"input": numbers(3, 4), "target": SIGNS}),
}
