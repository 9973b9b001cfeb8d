"""What may change without notice."""

from optax.experimental import aggregating

__all__ = ["aggregating"]
