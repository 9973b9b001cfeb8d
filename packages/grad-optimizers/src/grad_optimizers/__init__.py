"""The named optimizers: one family a module, from its equations to its alias."""

from grad_optimizers.adabelief import (
    ScaleByBeliefState,
    adabelief,
    scale_by_belief,
)
from grad_optimizers.adadelta import (
    ScaleByAdaDeltaState,
    adadelta,
    scale_by_adadelta,
)
from grad_optimizers.adafactor import (
    FactoredState,
    adafactor,
    scale_by_factored_rms,
)
from grad_optimizers.adagrad import (
    ScaleByRssState,
    adagrad,
    scale_by_rss,
)
from grad_optimizers.adam import (
    ScaleByAdamState,
    adam,
    adamw,
    scale_by_adam,
)
from grad_optimizers.adamax import (
    adamax,
    adamaxw,
    scale_by_adamax,
)
from grad_optimizers.adan import (
    ScaleByAdanState,
    adan,
    scale_by_adan,
)
from grad_optimizers.amsgrad import (
    ScaleByAmsgradState,
    amsgrad,
    scale_by_amsgrad,
)
from grad_optimizers.fromage import (
    ScaleByFromageState,
    fromage,
)
from grad_optimizers.lamb import (
    lamb,
)
from grad_optimizers.lars import (
    lars,
)
from grad_optimizers.lion import (
    ScaleByLionState,
    lion,
    scale_by_lion,
)
from grad_optimizers.nadam import (
    nadam,
    nadamw,
)
from grad_optimizers.noisy_sgd import (
    noisy_sgd,
)
from grad_optimizers.novograd import (
    ScaleByNovogradState,
    novograd,
    scale_by_novograd,
)
from grad_optimizers.optimistic import (
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    scale_by_optimistic_gradient,
)
from grad_optimizers.polyak import polyak_sgd, scale_by_polyak
from grad_optimizers.radam import (
    radam,
    scale_by_radam,
)
from grad_optimizers.rmsprop import (
    ScaleByRmsState,
    ScaleByRStdDevState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)
from grad_optimizers.rprop import (
    ScaleByRpropState,
    rprop,
    scale_by_rprop,
)
from grad_optimizers.sgd import (
    sgd,
)
from grad_optimizers.sign import (
    sign_sgd,
    signum,
)
from grad_optimizers.sm3 import (
    ScaleBySM3State,
    scale_by_sm3,
    sm3,
)
from grad_optimizers.yogi import (
    scale_by_yogi,
    yogi,
)

__all__ = [
    "FactoredState",
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByAdanState",
    "ScaleByAmsgradState",
    "ScaleByBeliefState",
    "ScaleByFromageState",
    "ScaleByLionState",
    "ScaleByNovogradState",
    "ScaleByRStdDevState",
    "ScaleByRmsState",
    "ScaleByRpropState",
    "ScaleByRssState",
    "ScaleBySM3State",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "novograd",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "polyak_sgd",
    "radam",
    "rmsprop",
    "rprop",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_factored_rms",
    "scale_by_lion",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_polyak",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_sm3",
    "scale_by_stddev",
    "scale_by_yogi",
    "sgd",
    "sign_sgd",
    "signum",
    "sm3",
    "yogi",
]
