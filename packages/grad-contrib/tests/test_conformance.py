"""Every transformation of grad_contrib keeps what transformations keep."""

import grad_contrib
from grad_testing import TransformationSuite


class TestGradContrib(TransformationSuite):
    package = grad_contrib
