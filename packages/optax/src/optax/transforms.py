"""Combining, generic transformations and wrappers."""

from grad_core import (
    EmaState,
    MaskedNode,
    MaskedState,
    PartitionState,
    TraceState,
    add_decayed_weights,
    chain,
    clip_by_global_norm,
    ema,
    masked,
    named_chain,
    partition,
    trace,
)

__all__ = [
    "EmaState",
    "MaskedNode",
    "MaskedState",
    "PartitionState",
    "TraceState",
    "add_decayed_weights",
    "chain",
    "clip_by_global_norm",
    "ema",
    "masked",
    "named_chain",
    "partition",
    "trace",
]
