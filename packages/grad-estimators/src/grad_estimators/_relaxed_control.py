r"""Score function estimates of discrete variables, with control variates that are relaxed.

A sample b is the threshold of :math:`z = \theta + \mathrm{noise}`. Let :math:`\tilde z` be a draw
of z given b, reparameterized too, and c any differentiable function. Then

.. math::

    g = (f(b) - c(\tilde z)) \, \nabla \log p(b) + \nabla c(z) - \nabla c(\tilde z)

is unbiased, and the closer c(z) is to f(b), the less it varies. As its mean does not depend on c,
the gradient of its second moment with respect to the parameters of c is that of its variance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_estimators._logits import Kind, coded_by, logits_of
from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    check_call,
    dot,
    jacobians,
    pulled_back,
    scalar,
    surrogate,
    zero,
)

Control: TypeAlias = Callable[[Kind, Any, jax.Array], Any]
"""c, from the kind of samples, its own parameters, and noisy logits, to a scalar."""


class Estimator(NamedTuple):
    """One of these estimators, but for the parameters of its control variate.

    Attributes:
      term: From `params`, a sample and its g to a scalar; see `pulled_back`.
      params: The parameters of the distribution.
      samples: What f is evaluated at.
      gradients: From the parameters of c to g with respect to the logits, of each sample.
    """

    term: Term
    params: Params
    samples: jax.Array
    gradients: Callable[[Any], jax.Array]

    def jacobians(self, control_params: Any) -> Any:
        """The gradient of each term."""
        return jacobians(self.term, self.params, self.samples, self.gradients(control_params))

    def surrogate(self, control_params: Any) -> jax.Array:
        """The mean of the terms, with the gradient of the variance for `control_params`."""
        mean = surrogate(self.term, self.params, self.samples, self.gradients(control_params))
        if all(isinstance(x, int | float) for x in jax.tree.leaves(control_params)):
            return mean  # none asks for a gradient with respect to Python numbers

        def second_moment(control_params: Any) -> jax.Array:
            gradients = self.gradients(control_params)
            return jnp.sum(gradients**2) / len(gradients)

        control_params = jax.tree.map(jnp.asarray, control_params)
        return mean + dot(jax.grad(second_moment)(control_params), zero(control_params))


def relaxed_control(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control: Control,
    decoded: bool,
) -> Estimator:
    """The estimator with the control variate `control`.

    Args:
      name: The estimator's, for errors.
      function: As in the estimator, and so are the next four.
      params: The parameters.
      dist_builder: Makes the distribution.
      rng: A random key.
      num_samples: How many samples.
      control: The function c.
      decoded: Whether f takes samples of the distribution, rather than codes.
    """
    check_call(name, function, params, dist_builder, rng, num_samples)
    kind, logits = coded_by(name, params, dist_builder)
    first, second = jax.random.split(rng)
    noise = kind.noise(first, num_samples, logits)
    fresh_noise = kind.noise(second, num_samples, logits)
    codes = kind.threshold(logits + noise)
    samples = kind.decoded(codes) if decoded else codes
    f = scalar(name, function)

    def gradients(control_params: Any) -> jax.Array:
        c = scalar(f"{name}: control_variate", lambda z: control(kind, control_params, z))

        def one(sample: jax.Array, b: jax.Array, noise: jax.Array, fresh: jax.Array) -> jax.Array:
            def given_b(logits: jax.Array) -> jax.Array:
                return c(kind.conditional(logits, fresh, b))

            given, d_given = jax.value_and_grad(given_b)(logits)
            d_free = jax.grad(c)(logits + noise)
            g: jax.Array = (f(sample) - given) * (b - kind.mean(logits)) + d_free - d_given
            return g

        every: jax.Array = jax.vmap(one)(samples, codes, noise, fresh_noise)
        return every

    return Estimator(pulled_back(f, dist_builder, logits_of), params, samples, gradients)
