"""Connectionist temporal classification: blanks, repeats, and labels that do not fit."""

import importlib
from typing import Any

from torch_cases import Array, Case, integers, numbers


def ctc(logits: Any, labels: Any, frames: Any, lengths: Any, **arguments: Any) -> Any:
    """The loss of logits of shape [batch, frames, classes], as ours take them."""
    torch: Any = importlib.import_module("torch")
    log_p = torch.log_softmax(logits, dim=-1).swapaxes(0, 1)
    return torch.nn.functional.ctc_loss(log_p, labels, frames, lengths, **arguments)


def problems(number: int, frames: int, classes: int, labels: int, blank: int) -> dict[str, Array]:
    """Random problems. Of few classes, labels are often repeated, and may need more frames."""
    seed = frames * classes * labels
    indices = integers(number, labels, seed=seed, high=classes - 1)
    return {
        "logits": numbers(number, frames, classes, seed=seed),
        "labels": indices + (indices >= blank),
        "frames": integers(number, seed=seed + 1, low=1, high=frames + 1),
        "lengths": integers(number, seed=seed + 2, high=labels + 1),
    }


CASES = {
    f"{frames}-frames-{classes}-classes-{labels}-labels": Case(
        ctc,
        problems(100, frames, classes, labels, blank),
        {"blank": blank, "zero_infinity": True},
    )
    for frames, classes, labels, blank in ((7, 3, 4, 2), (11, 4, 5, 0))
}
