"""Every transformation of grad_wrappers keeps what transformations keep."""

import grad_wrappers
from grad_testing import TransformationSuite


class TestGradWrappers(TransformationSuite):
    package = grad_wrappers
