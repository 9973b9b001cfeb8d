"""Every schedule of grad_schedules keeps what schedules keep."""

import grad_schedules
from grad_testing import ScheduleSuite


class TestGradSchedules(ScheduleSuite):
    package = grad_schedules
