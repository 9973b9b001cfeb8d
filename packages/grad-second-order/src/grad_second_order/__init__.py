"""Curvature: products with Hessians and their kin, diagonals, traces, spectra, solves."""

from grad_second_order.diagonals import (
    exact_diagonal,
    hutchinson_diagonal,
    xdiag,
)
from grad_second_order.fisher import (
    empirical_fisher_diagonal,
    empirical_fisher_operator,
    fisher_diag,
    fisher_diagonal,
    fisher_operator,
    monte_carlo_fisher_operator,
)
from grad_second_order.gauss_newton import (
    ggn_diagonal,
    ggn_operator,
    monte_carlo_ggn_diagonal,
)
from grad_second_order.hessian import (
    hessian_diag,
    hessian_diagonal,
    hessian_operator,
    hvp,
)
from grad_second_order.lanczos import (
    Lanczos,
    SpectralDensity,
    dominant_eigenpair,
    lanczos_eigenvalues,
    lanczos_tridiagonal,
    spectral_density,
)
from grad_second_order.likelihoods import (
    Likelihood,
    bernoulli_likelihood,
    categorical_likelihood,
    gaussian_likelihood,
)
from grad_second_order.linear_solve import (
    LinearSolution,
    asymmetry,
    conjugate_gradient,
)
from grad_second_order.per_example import (
    gradient_variance,
    per_example_gradient_norms,
)
from grad_second_order.sophia import (
    gauss_newton_bartlett_diagonal,
    hutchinson_hessian_diagonal,
)
from grad_second_order.traces import (
    hutch_plus_plus,
    hutchinson_trace,
    xtrace,
)

__all__ = [
    "Lanczos",
    "Likelihood",
    "LinearSolution",
    "SpectralDensity",
    "asymmetry",
    "bernoulli_likelihood",
    "categorical_likelihood",
    "conjugate_gradient",
    "dominant_eigenpair",
    "empirical_fisher_diagonal",
    "empirical_fisher_operator",
    "exact_diagonal",
    "fisher_diag",
    "fisher_diagonal",
    "fisher_operator",
    "gauss_newton_bartlett_diagonal",
    "gaussian_likelihood",
    "ggn_diagonal",
    "ggn_operator",
    "gradient_variance",
    "hessian_diag",
    "hessian_diagonal",
    "hessian_operator",
    "hutch_plus_plus",
    "hutchinson_diagonal",
    "hutchinson_hessian_diagonal",
    "hutchinson_trace",
    "hvp",
    "lanczos_eigenvalues",
    "lanczos_tridiagonal",
    "monte_carlo_fisher_operator",
    "monte_carlo_ggn_diagonal",
    "per_example_gradient_norms",
    "spectral_density",
    "xdiag",
    "xtrace",
]
