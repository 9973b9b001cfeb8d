"""Every loss of grad_losses keeps what losses keep."""

import grad_losses
from grad_testing import LossSuite


class TestGradLosses(LossSuite):
    package = grad_losses
