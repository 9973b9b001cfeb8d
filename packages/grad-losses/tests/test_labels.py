"""Labels that are no class, as -100 for examples to leave out: NaN, until they are masked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_losses

LOGITS = np.array([[0.5, -1.0, 0.2], [0.1, 0.7, -0.3], [-0.4, 0.3, 0.8]], np.float32)
COUNTS = np.array([9, 4, 2])


@jax.jit
def ctc(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """CTC of sequences of two labels, the second of which is 1."""
    frames, pairs = jnp.stack([logits] * 4, axis=1), jnp.stack([labels, labels**0], axis=1)
    return grad_losses.ctc_loss(frames, jnp.zeros((3, 4)), pairs, jnp.zeros((3, 2)))


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "ctc_loss": ctc,
    "ldam_loss": lambda z, y: grad_losses.ldam_loss(z, y, COUNTS),
    **{
        name: getattr(grad_losses, name)
        for name in (
            "arcface_loss",
            "bi_tempered_loss",
            "cosface_loss",
            "generalized_cross_entropy_loss",
            "multi_margin_loss",
            "multiclass_hinge_loss",
            "multiclass_perceptron_loss",
            "multiclass_sparsemax_loss",
            "softmax_cross_entropy_with_integer_labels",
            "softmax_focal_loss",
        )
    },
}


def test_unsigned_labels() -> None:
    y = np.array([1, 0, 2])
    for name in set(LOSSES) - {"ctc_loss"}:
        np.testing.assert_array_equal(
            LOSSES[name](LOGITS, y.astype(np.uint32)), LOSSES[name](LOGITS, y), name
        )


@pytest.mark.parametrize("name", LOSSES)
def test_masked_afterwards(name: str) -> None:
    def masked(labels: list[int]) -> tuple[jax.Array, jax.Array]:
        """Not compiled: what XLA makes of products of 0 and NaN depends on what is around them."""
        value, pull = jax.vjp(lambda z: LOSSES[name](z, np.array(labels)), LOGITS)
        return value, pull(jnp.array([1.0, 0.0, 1.0]))[0]

    value, gradient = masked([1, -100, 2])
    want, want_gradient = masked([1, 1, 2])
    np.testing.assert_array_equal(np.isnan(value), [False, True, False])
    np.testing.assert_allclose(value[::2], want[::2], rtol=1e-6)
    np.testing.assert_array_equal(gradient[1], 0)
    np.testing.assert_allclose(gradient[::2], want_gradient[::2], rtol=1e-6)
