"""Every transformation of grad_optimizers keeps what transformations keep."""

import grad_optimizers
from grad_testing import TransformationSuite


class TestGradOptimizers(TransformationSuite):
    package = grad_optimizers
