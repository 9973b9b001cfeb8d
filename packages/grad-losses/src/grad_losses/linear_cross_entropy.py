r"""The cross entropy of a linear head's softmax, without an array of all logits.

With hidden states h, a kernel W, a bias b and a label y for each token:

.. math::

    z = \kappa \tanh((h W + b) / \kappa), \qquad
    l = -\log \mathrm{softmax}(z)_y, \text{ and what smoothing, weights and z-loss add}
"""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, exempt, promises
from grad_losses._checks import integer, positive
from grad_losses._chunked_losses import logits_of
from grad_losses._cross_entropy import (
    cross_entropy_options,
    integer_cross_entropy,
    weights_of,
)
from grad_losses._linear_heads import WIDE, Reduction, chunks_of, head_of, reduced, rows_of, without
from grad_losses._logits import soft_capped


@exempt("works_in_dtype[float16]", reason=WIDE)
@exempt("works_in_dtype[bfloat16]", reason=WIDE)
@example(
    np.array([[0.5, -1.0], [2.0, 0.3], [-0.4, 1.2]], np.float32),
    np.array([[0.2, -0.7, 1.1, 0.4], [-0.5, 0.9, 0.1, 0.6]], np.float32),
    np.array([2, 0, 3]),
)
@promises(shared=("kernel",))
def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    class_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    z_loss: ArrayLike = 0.0,
    soft_cap: ArrayLike | None = None,
    reduction: Reduction = "none",
    chunk_size: int | None = None,
) -> jax.Array:
    """Cross entropy of the softmax of ``hidden @ kernel + bias``, some tokens at a time.

    It is `softmax_cross_entropy_with_integer_labels` of these logits, which are never all in
    memory: those of a chunk of tokens are computed, used and dropped. Logits and sums are float32
    for any narrower dtype. In reverse mode a reduced loss ("mean", "sum") computes its gradients in
    the forward pass, and no logits twice; one per token computes them again. The gradient of the
    kernel is collected in float32: beside it, and the gradient of `hidden`, only chunks are held.

    All derivatives with respect to `hidden`, `kernel` and `bias` exist, in both modes; the other
    arguments are constants. The kernel may be sharded over a mesh along its classes, and is never
    gathered. Where tokens are sharded too, every chunk sums its gradient of the kernel over their
    devices; inside a `jax.shard_map` over the tokens' axis that is done but once.

    Args:
      hidden: The hidden states of tokens, of shape [..., features] and floating point dtype.
      kernel: The output matrix, of shape [features, classes] and floating point dtype.
      labels: The class of each token, of shape [...] and integer dtype. Negative ones count from
        the end. Labels that are no class give NaN: an array's values cannot raise.
      bias: Added to the logits, of shape [classes]; nothing with None.
      label_smoothing: The share of the label that is spread evenly over all classes, in [0, 1].
      class_weights: A weight for each class, of shape [classes] and any real dtype; 1 with None.
        The z-loss is not weighted.
      ignore_index: The label of tokens that cost 0, whatever their hidden states; none with None.
      z_loss: The weight, >= 0, of the square of the logits' log-normalizer.
      soft_cap: The bound, > 0, that logits approach as ``soft_cap * tanh(logits / soft_cap)``; none
        with None.
      reduction: "none" for a loss per token; "sum"; or "mean", weighted by the weights of the
        labels' classes. Ignored tokens do not count, and if all are ignored the mean is 0.
      chunk_size: How many tokens at most have logits at a time. With None so many that their
        logits are no more than 2**24, or than `hidden` has elements, or a sixteenth of `kernel`.

    Returns:
      The losses of shape [...], or the reduced loss of shape [], in float32; in float64 if `hidden`
      or `kernel` is.

    Raises:
      TypeError: If `hidden`, `kernel` or `bias` is not floating point, or `labels`, `ignore_index`
        or `chunk_size` not integer.
      ValueError: If shapes do not fit, or a number or `reduction` is none of those allowed.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import linear_softmax_cross_entropy
      >>> hidden, kernel = jnp.ones((5, 3)), jnp.zeros((3, 4))
      >>> labels = jnp.array([0, 3, 1, -100, -100])
      >>> linear_softmax_cross_entropy(
      ...     hidden, kernel, labels, ignore_index=-100, reduction="mean", chunk_size=2
      ... ).round(4)
      Array(1.3863, dtype=float32)

    Reference:
      Wijmans et al., Cut your losses in large-vocabulary language models, 2024 (arXiv 2411.09009).
      Hsu et al., Liger kernel, 2024 (arXiv 2410.10989), for gradients in the forward pass.
    """
    name = "linear_softmax_cross_entropy"
    head, shape = head_of(name, hidden, kernel, bias)
    labels = integer(name, "labels", labels, "There is one class per token.")
    labels = rows_of(name, "labels", labels, shape)
    logits = jax.eval_shape(logits_of, head)
    options = cross_entropy_options(
        name, logits, label_smoothing, class_weights, ignore_index, z_loss
    )
    if soft_cap is not None:
        positive(name, soft_cap=soft_cap)
    chunks = chunks_of(name, head, chunk_size)

    kept = weights = None
    if options.ignore_index is not None:
        kept = labels != options.ignore_index
        head = without(~kept, head)
    if options.class_weights is not None:
        weights = weights_of(labels, options.class_weights)
    loss = reduced(name, reduction, _loss, chunks, head, labels, (options, soft_cap), kept, weights)
    return loss.reshape(shape) if reduction == "none" else loss


def _loss(logits: jax.Array, labels: jax.Array, shared: Any) -> jax.Array:
    options, soft_cap = shared
    return integer_cross_entropy(soft_capped(logits, soft_cap), labels, options)
