"""Losses: one value per example, differentiable twice.

Nothing is reduced over the batch, except by losses of a batch or set as a whole, which say so.
Every loss is computed in at least float32, and returned in the dtype of its input unless it says
otherwise.
"""

from grad_losses.angular_margin import arcface_loss, circle_loss, cosface_loss
from grad_losses.assignment import base_hungarian_algorithm, hungarian_algorithm
from grad_losses.bi_tempered import bi_tempered_loss
from grad_losses.boxes import ciou_loss, diou_loss, giou_loss, iou_loss
from grad_losses.class_imbalance import asymmetric_loss, ldam_loss, softmax_focal_loss
from grad_losses.classification import (
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from grad_losses.cosine import cosine_distance, cosine_similarity
from grad_losses.crps import crps_ensemble, crps_normal
from grad_losses.ctc import ctc_loss, ctc_loss_with_forward_probs
from grad_losses.dice import binary_dice_loss, dice_loss, multiclass_generalized_dice_loss
from grad_losses.divergence import (
    convex_kl_divergence,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)
from grad_losses.fenchel_young import make_fenchel_young_loss
from grad_losses.focal import sigmoid_focal_loss
from grad_losses.general_robust import general_robust_loss
from grad_losses.image_text import clip_loss, siglip_loss
from grad_losses.label_noise import generalized_cross_entropy_loss
from grad_losses.likelihood import gaussian_nll_loss, laplace_nll_loss, poisson_nll_loss
from grad_losses.linear_cross_entropy import linear_softmax_cross_entropy
from grad_losses.linear_distillation import (
    linear_distillation_jensen_shannon,
    linear_distillation_kl_divergence,
)
from grad_losses.listwise_ranking import approx_ndcg_loss, listmle_loss
from grad_losses.lovasz import lovasz_hinge_loss, lovasz_softmax_loss
from grad_losses.margin import (
    hinge_loss,
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    perceptron_loss,
)
from grad_losses.multi_margin import (
    multi_label_margin_loss,
    multi_label_soft_margin_loss,
    multi_margin_loss,
    soft_margin_loss,
)
from grad_losses.ntxent import ntxent
from grad_losses.pair_margin import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    triplet_margin_with_distance_loss,
)
from grad_losses.pairwise_ranking import pairwise_hinge_loss, pairwise_logistic_loss
from grad_losses.policy_gradient import group_advantages, grpo_loss, ppo_clip_loss
from grad_losses.preference import dpo_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss
from grad_losses.ranking_softmax import ranking_softmax_loss
from grad_losses.redundancy import barlow_twins_loss, vicreg_loss
from grad_losses.regression import huber_loss, l2_loss, log_cosh, squared_error
from grad_losses.relative_error import absolute_percentage_error_loss, squared_log_error_loss
from grad_losses.robust import charbonnier_loss, l1_loss, quantile_loss, smooth_l1_loss
from grad_losses.segmentation import focal_tversky_loss, jaccard_loss, tversky_loss
from grad_losses.softmax_variants import (
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    smooth_labels,
)
from grad_losses.sparsemax import multiclass_sparsemax_loss, sparsemax_loss
from grad_losses.supervised_contrastive import supervised_contrastive_loss
from grad_losses.transport import sinkhorn_divergence
from grad_losses.triplet import triplet_margin_loss

__all__ = [
    "absolute_percentage_error_loss",
    "approx_ndcg_loss",
    "arcface_loss",
    "asymmetric_loss",
    "barlow_twins_loss",
    "base_hungarian_algorithm",
    "bi_tempered_loss",
    "binary_dice_loss",
    "charbonnier_loss",
    "ciou_loss",
    "circle_loss",
    "clip_loss",
    "convex_kl_divergence",
    "cosface_loss",
    "cosine_distance",
    "cosine_embedding_loss",
    "cosine_similarity",
    "crps_ensemble",
    "crps_normal",
    "ctc_loss",
    "ctc_loss_with_forward_probs",
    "dice_loss",
    "diou_loss",
    "dpo_loss",
    "focal_tversky_loss",
    "gaussian_nll_loss",
    "general_robust_loss",
    "generalized_cross_entropy_loss",
    "generalized_kl_divergence",
    "giou_loss",
    "group_advantages",
    "grpo_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "hungarian_algorithm",
    "iou_loss",
    "ipo_loss",
    "jaccard_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "kto_loss",
    "l1_loss",
    "l2_loss",
    "laplace_nll_loss",
    "ldam_loss",
    "linear_distillation_jensen_shannon",
    "linear_distillation_kl_divergence",
    "linear_softmax_cross_entropy",
    "listmle_loss",
    "log_cosh",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "make_fenchel_young_loss",
    "margin_ranking_loss",
    "multi_label_margin_loss",
    "multi_label_soft_margin_loss",
    "multi_margin_loss",
    "multiclass_generalized_dice_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "ntxent",
    "orpo_loss",
    "pairwise_hinge_loss",
    "pairwise_logistic_loss",
    "perceptron_loss",
    "poisson_nll_loss",
    "poly_loss_cross_entropy",
    "ppo_clip_loss",
    "quantile_loss",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "siglip_loss",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "simpo_loss",
    "sinkhorn_divergence",
    "smooth_l1_loss",
    "smooth_labels",
    "soft_margin_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
    "sparsemax_loss",
    "squared_error",
    "squared_log_error_loss",
    "supervised_contrastive_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "tversky_loss",
    "vicreg_loss",
]
