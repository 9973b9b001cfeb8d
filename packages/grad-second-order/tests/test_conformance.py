"""Every transformation of grad_second_order keeps what transformations keep."""

import grad_second_order
from grad_testing import TransformationSuite


class TestGradSecondOrder(TransformationSuite):
    package = grad_second_order
