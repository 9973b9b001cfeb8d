"""Every transformation of grad_core keeps what transformations keep."""

import grad_core
from grad_testing import TransformationSuite


class TestGradCore(TransformationSuite):
    package = grad_core
