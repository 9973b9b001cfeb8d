"""Random keys as arguments of factories."""

import warnings
from collections.abc import Hashable
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

RandomKey: TypeAlias = jax.Array | np.ndarray[Any, np.dtype[Any]] | np.integer[Any] | int
"""A random key, of either kind that JAX has, or an integer seed."""


class Seed(NamedTuple):
    """A key as compiled code takes it: an integer, or the integers of a key of some generator."""

    value: Any
    impl: Hashable | None

    @classmethod
    def of(cls, factory: str, key: RandomKey | None, seed: int | None) -> "Seed":
        """The seed that a factory's arguments `key` and `seed`, its old name, tell.

        Raises:
          ValueError: If both are given.
          TypeError: If the key is neither a random key nor an integer.
        """
        if seed is not None:
            if key is not None:
                raise ValueError(
                    f"{factory}: give key or seed, not both; seed is the old name of key."
                )
            _warn(f"{factory}: seed is deprecated; call it key.", DeprecationWarning)
            key = seed
        if key is None:
            _warn(f"{factory}: without a key, the noise is that of key=0, always.", UserWarning)
            key = 0
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            return cls(np.int64(key), None)  # a Python int beyond 32 bits would overflow
        if _is_key(key):
            return cls(jax.random.key_data(key), jax.random.key_impl(key))
        if not hasattr(key, "dtype") or not jnp.issubdtype(key.dtype, jnp.integer):
            raise TypeError(f"{factory}: key must be a random key or an integer; got {key!r}.")
        return cls(key, None)


def key_of(value: Any, impl: Hashable | None) -> jax.Array:
    """The key that a `Seed` stands for."""
    if impl is None and jnp.ndim(value) == 0:
        return jax.random.key(value)
    key: jax.Array = jax.random.wrap_key_data(jnp.asarray(value), impl=impl)
    return key


def _is_key(key: object) -> TypeGuard[jax.Array]:
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _warn(message: str, category: type[Warning]) -> None:
    # From here up: Seed.of, the factory's body, and what calls it, to the user's line.
    warnings.warn(message, category, stacklevel=7)
