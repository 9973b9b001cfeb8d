r"""The supervised contrastive loss: examples of one class attract, all others repel.

With cosines :math:`s_{ij}` between embeddings, a temperature :math:`\tau`, all others
:math:`A(i) = \{j \ne i\}` and those of the same class :math:`P(i) = \{p \in A(i): y_p = y_i\}`:

.. math::

    L_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{s_{ip} / \tau}}{\sum_{a \in A(i)} e^{s_{ia} / \tau}}
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, integer, positive
from grad_losses._embeddings import cosines, embedding_matrices, gathered
from grad_losses.classification import softmax_cross_entropy


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3], [-0.7, 0.4, 1.1], [0.9, 0.8, -0.2]], np.float32),
    np.array([1, 0, 1, 0]),
)
@promises(per="batch")
def supervised_contrastive_loss(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """SupCon: how badly each embedding picks those of its class out of all others.

    The loss of an example depends on the whole batch; nothing is averaged over the batch. For
    several views of each example, concatenate the views along the batch and repeat the labels; with
    two views and all labels different this is NT-Xent, the loss of SimCLR.

    Args:
      embeddings: Of shape [batch, features] and floating point dtype; only directions matter. A
        vector of zeros has cosine 0 with all others.
      labels: The class of each example, integers of shape [batch].
      temperature: The number > 0, or array of shape (), that cosines are divided by.
      where: Which examples take part, booleans of shape [batch]; all with None.

    Returns:
      The losses, of shape [batch] and the dtype of `embeddings`; 0 for examples that take no part
      or have no other of their class.

    Raises:
      TypeError: If `embeddings` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, `where` is not boolean or `temperature` not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import supervised_contrastive_loss
      >>> supervised_contrastive_loss(5 * jnp.eye(3), jnp.array([7, 7, 2])).round(4)
      Array([0.6931, 0.6931, 0.    ], dtype=float32)

    Reference:
      Khosla et al., Supervised contrastive learning, 2020, equation 2,
      https://arxiv.org/abs/2004.11362
    """
    name = "supervised_contrastive_loss"
    positive(name, temperature=temperature)
    (embeddings,), mask, dtype = embedding_matrices(name, where, embeddings=embeddings)
    labels = integer(name, "labels", labels, "Number the classes.")
    if labels.shape != mask.shape:
        raise ShapeError(
            f"{name}: labels of shape {labels.shape} must have one integer for each of the "
            f"embeddings of shape {embeddings.shape}."
        )
    labels = gathered(labels)
    others = mask & mask[:, None] & ~jnp.eye(mask.size, dtype=bool)
    positives = others & (labels == labels[:, None])
    logits = cosines(embeddings, embeddings) / temperature
    counts = jnp.maximum(jnp.sum(positives, axis=1, keepdims=True), 1)
    share = positives / counts.astype(logits.dtype)
    return softmax_cross_entropy(logits, share, where=others).astype(dtype)
