"""Losses of real predictions."""

from torch_cases import Case, numbers

INPUTS = {"input": numbers(3, 4), "target": numbers(3, 4, seed=1)}
BOTH = ("input", "target")

CASES = {
    "l1": Case("l1_loss", INPUTS, wrt=BOTH),
    "smooth-l1": Case("smooth_l1_loss", INPUTS, wrt=BOTH),
    "smooth-l1-wide": Case("smooth_l1_loss", INPUTS, {"beta": 2.5}),
    "smooth-l1-none": Case("smooth_l1_loss", INPUTS, {"beta": 0.0}),
    "huber": Case("huber_loss", INPUTS, {"delta": 0.7}, wrt=BOTH),
    "mse": Case("mse_loss", INPUTS, wrt=BOTH),
}
