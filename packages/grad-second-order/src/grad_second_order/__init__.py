"""Curvature: products, diagonals, traces, spectra, solves. Line searches, L-BFGS, Newton-CG."""

from grad_second_order.backtracking import (
    BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch,
)
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
from grad_second_order.from_state import (
    value_and_grad_from_state,
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
from grad_second_order.lbfgs import (
    ScaleByLBFGSState,
    lbfgs,
    scale_by_lbfgs,
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
from grad_second_order.newton_cg import (
    ScaleByNewtonCGState,
    newton_cg,
    scale_by_newton_cg,
)
from grad_second_order.per_example import (
    gradient_variance,
    per_example_gradient_norms,
)
from grad_second_order.running import (
    RunResult,
    Status,
    run,
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
from grad_second_order.zoom import (
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
    scale_by_zoom_linesearch,
)

__all__ = [
    "BacktrackingLinesearchInfo",
    "Lanczos",
    "Likelihood",
    "LinearSolution",
    "RunResult",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByLBFGSState",
    "ScaleByNewtonCGState",
    "ScaleByZoomLinesearchState",
    "SpectralDensity",
    "Status",
    "ZoomLinesearchInfo",
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
    "lbfgs",
    "monte_carlo_fisher_operator",
    "monte_carlo_ggn_diagonal",
    "newton_cg",
    "per_example_gradient_norms",
    "run",
    "scale_by_backtracking_linesearch",
    "scale_by_lbfgs",
    "scale_by_newton_cg",
    "scale_by_zoom_linesearch",
    "spectral_density",
    "value_and_grad_from_state",
    "xdiag",
    "xtrace",
]
