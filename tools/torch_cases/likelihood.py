"""Negative log likelihoods."""

import numpy as np

from torch_cases import Case, integers, numbers

MEANS = {"input": numbers(3, 4), "target": numbers(3, 4, seed=1)}
VARIANCES = {**MEANS, "var": numbers(3, 4, seed=2, low=0)}
SHARED = {**MEANS, "var": numbers(3, 1, seed=2, low=0)}
ALL = ("input", "target", "var")
COUNTS = integers(3, 4, seed=1, high=6).astype(float)
LOG_RATES = {"input": numbers(3, 4), "target": COUNTS}
RATES = {"input": numbers(3, 4, low=0), "target": COUNTS}
ZERO_RATES = {"input": np.zeros(2), "target": np.array([0.0, 2.0])}

CASES = {
    "gaussian": Case("gaussian_nll_loss", VARIANCES, wrt=ALL),
    "gaussian-full": Case("gaussian_nll_loss", VARIANCES, {"full": True}),
    "gaussian-shared": Case("gaussian_nll_loss", SHARED, wrt=ALL),
    "gaussian-floor": Case("gaussian_nll_loss", VARIANCES, {"eps": 1.5}, wrt=ALL),
    "poisson": Case("poisson_nll_loss", LOG_RATES, wrt=("input", "target")),
    "poisson-full": Case("poisson_nll_loss", LOG_RATES, {"full": True}),
    "poisson-rates": Case("poisson_nll_loss", RATES, {"log_input": False}),
    "poisson-rates-full": Case("poisson_nll_loss", RATES, {"log_input": False, "full": True}),
    "poisson-zero-rates": Case("poisson_nll_loss", ZERO_RATES, {"log_input": False, "eps": 1e-3}),
}
