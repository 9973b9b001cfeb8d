r"""Contrastive losses of pairs, such as images and their captions: CLIP and SigLIP.

With cosines :math:`s_{ij}` between the i-th image and the j-th text, a temperature :math:`\tau` and
a bias :math:`b`, the loss of the i-th pair is

.. math::

    \mathrm{clip}_i &= -\tfrac12 \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ij} / \tau}}
        -\tfrac12 \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ji} / \tau}} \\
    \mathrm{siglip}_i &= -\log \sigma(s_{ii} / \tau + b)
        - \sum_{j \ne i} \log \sigma(-s_{ij} / \tau - b)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, positive
from grad_losses._embeddings import cosines, embedding_matrices
from grad_losses.classification import (
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)

_IMAGES = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3], [-0.7, 0.4, 1.1]], np.float32)
_TEXTS = np.array([[0.3, -0.6, 1.5], [0.8, 0.9, -0.4], [-0.2, 1.0, 0.6]], np.float32)


@example(_IMAGES, _TEXTS)
@promises(per="batch")
def clip_loss(
    images: ArrayLike,
    texts: ArrayLike,
    *,
    temperature: ArrayLike = 0.07,
    where: ArrayLike | None = None,
) -> jax.Array:
    """CLIP: the cross entropy of finding the text of each image, and the image of each text.

    The loss of a pair depends on the whole batch; nothing is averaged over the batch.

    Args:
      images: Embeddings of shape [batch, features] and floating point dtype; only directions
        matter. A vector of zeros has cosine 0 with all others.
      texts: Embeddings of the same shape; each belongs to the image in the same place.
      temperature: The number > 0, or array of shape (), that cosines are divided by. To learn it,
        pass ``jnp.exp(log_temperature)``.
      where: Which pairs take part, booleans of shape [batch]; all with None.

    Returns:
      The losses, of shape [batch], in the dtype that images and texts promote to; 0 for pairs that
      take no part.

    Raises:
      TypeError: If `images` or `texts` is not floating point.
      ValueError: If shapes do not fit, `where` is not boolean or `temperature` not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import clip_loss
      >>> clip_loss(jnp.eye(2), 5 * jnp.ones((2, 2))).round(4)
      Array([0.6931, 0.6931], dtype=float32)

    Reference:
      Radford et al., Learning transferable visual models from natural language supervision, 2021,
      figure 3, https://arxiv.org/abs/2103.00020
    """
    name = "clip_loss"
    positive(name, temperature=temperature)
    (images, texts), mask, dtype = embedding_matrices(name, where, images=images, texts=texts)
    logits = cosines(images, texts) / temperature
    pairs = jnp.arange(mask.size)
    cross_entropy = softmax_cross_entropy_with_integer_labels
    by_image = cross_entropy(logits, pairs, axis=1, where=mask)
    by_text = cross_entropy(logits, pairs, axis=0, where=mask[:, None])
    return jnp.where(mask, 0.5 * (by_image + by_text), 0).astype(dtype)


@example(_IMAGES, _TEXTS)
@promises(per="batch")
def siglip_loss(
    images: ArrayLike,
    texts: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    bias: ArrayLike = -10.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """SigLIP: the cross entropy of telling, of each image and each text, if they belong together.

    The loss of an image is the sum over all texts of the batch; its mean over the batch is the loss
    of the paper.

    Args:
      images: Embeddings of shape [batch, features] and floating point dtype; only directions
        matter. A vector of zeros has cosine 0 with all others.
      texts: Embeddings of the same shape; each belongs to the image in the same place.
      temperature: The number > 0, or array of shape (), that cosines are divided by. To learn it,
        pass ``jnp.exp(log_temperature)``. It and `bias` are the paper's first values.
      bias: A number or array of shape (), added to the logits. Most pairs do not belong together,
        hence a negative one.
      where: Which pairs take part, booleans of shape [batch]; all with None.

    Returns:
      The losses, of shape [batch], in the dtype that images and texts promote to; 0 for pairs that
      take no part.

    Raises:
      TypeError: If `images` or `texts` is not floating point.
      ValueError: If shapes do not fit, `where` is not boolean or `temperature` not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import siglip_loss
      >>> siglip_loss(jnp.eye(2), jnp.eye(2), temperature=1.0, bias=0.0).round(4)
      Array([1.0064, 1.0064], dtype=float32)

    Reference:
      Zhai et al., Sigmoid loss for language image pre-training, 2023, algorithm 1,
      https://arxiv.org/abs/2303.15343
    """
    name = "siglip_loss"
    positive(name, temperature=temperature)
    between(name, -math.inf, math.inf, bias=bias)
    (images, texts), mask, dtype = embedding_matrices(name, where, images=images, texts=texts)
    logits = cosines(images, texts) / temperature + bias
    loss = sigmoid_binary_cross_entropy(logits, jnp.eye(mask.size, dtype=logits.dtype))
    return jnp.where(mask, jnp.sum(loss, axis=1, where=mask), 0).astype(dtype)
