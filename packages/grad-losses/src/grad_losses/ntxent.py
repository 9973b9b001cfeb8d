r"""NT-Xent, the normalized, temperature-scaled cross entropy of positive pairs against negatives.

With cosines :math:`s_{ij}` between embeddings, a temperature :math:`\tau`, positive pairs
:math:`P = \{(i, j): i \ne j, y_i = y_j\}` and the negatives :math:`N(i) = \{k: y_k \ne y_i\}`:

.. math::

    L = -\frac{1}{|P|} \sum_{(i, j) \in P}
        \log \frac{e^{s_{ij} / \tau}}{e^{s_{ij} / \tau} + \sum_{k \in N(i)} e^{s_{ik} / \tau}}
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, positive, real
from grad_losses._embeddings import cosines, embedding_matrices, gathered
from grad_losses._logits import log_normalizer, peak


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3], [-0.7, 0.4, 1.1], [0.9, 0.8, -0.2]], np.float32),
    np.array([1, 0, 1, 0]),
)
@promises(per="batch")
def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07) -> jax.Array:
    """The NT-Xent loss of a batch: how badly each embedding tells those of its label from others.

    Args:
      embeddings: Of shape [batch, features] and floating point dtype; only directions matter. A
        vector of zeros has cosine 0 with all others.
      labels: Which embeddings are positive pairs: those of equal labels. Of shape [batch], of any
        real dtype.
      temperature: The number > 0, or array of shape (), that cosines are divided by.

    Returns:
      The mean over all ordered positive pairs, of shape () and the dtype of `embeddings`; 0 without
      positive pairs.

    Raises:
      TypeError: If `embeddings` is not floating point.
      ValueError: If shapes do not fit or `temperature` is a number that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ntxent
      >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
      >>> ntxent(x, jnp.array([3, 3, 5]), temperature=1.0).round(1)
      Array(0.3, dtype=float32)

    Reference:
      Chen et al., A simple framework for contrastive learning of visual representations, 2020,
      https://arxiv.org/abs/2002.05709.
    """
    positive("ntxent", temperature=temperature)
    (embeddings,), _, dtype = embedding_matrices("ntxent", None, embeddings=embeddings)
    labels = real("ntxent", "labels", labels)
    if labels.shape != embeddings.shape[:1]:
        raise ShapeError(
            f"ntxent: labels of shape {labels.shape} must have one label for each of embeddings of "
            f"shape {embeddings.shape}."
        )
    labels = gathered(labels)
    is_same = labels == labels[:, None]
    is_positive = is_same & ~jnp.eye(labels.size, dtype=bool)
    logits = cosines(embeddings, embeddings) / temperature
    negatives = jnp.where(is_same, -jnp.inf, logits)
    shift = peak(negatives, -1)
    rivals = shift + log_normalizer(negatives - shift, -1)
    # -log(e^a / (e^a + e^b)) is softplus(b - a); it is 0 without negatives.
    has_rivals = jnp.any(~is_same, axis=-1, keepdims=True)
    costs = jnp.where(is_positive & has_rivals, jax.nn.softplus(rivals - logits), 0)
    return (jnp.sum(costs) / jnp.maximum(jnp.sum(is_positive), 1)).astype(dtype)
