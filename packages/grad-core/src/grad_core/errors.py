"""Errors that say which transformation, which argument or path, what was found and how to mend it.

Errors raised while an update is traced know only the rule they come from. On their way out each
enclosing transformation adds its name, so that the text starts with what the user wrote
(``adamw``), and mentions the part that failed (``add_decayed_weights``) when it is another.
"""

from collections.abc import Iterator
from contextlib import contextmanager

COMBINATORS = frozenset({"chain", "named_chain", "partition", "masked"})
"""Names that say nothing about what went wrong; errors prefer the names inside them."""


class TransformationError(Exception):
    """The base of errors raised by `init` and `update`; never raised itself."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.owners: list[str] = []

    def __str__(self) -> str:
        telling = [name for name in self.owners if name not in COMBINATORS] or self.owners
        if not telling:
            return self.message
        inner, outer = telling[0], telling[-1]
        part = "" if inner == outer else f" (in its {inner})"
        return f"{outer}{part}: {self.message}"


class TreeMismatchError(TransformationError, ValueError):
    """Two trees that must have the same structure, or two leaves the same shape, do not."""


class LeafTypeError(TransformationError, TypeError):
    """A leaf is of a kind the transformation cannot work on."""


class MissingArgumentError(TransformationError, ValueError, TypeError):
    """`update` was called without the parameters, or an extra argument, that it needs."""


class NotATransformationError(TypeError, AttributeError):
    """Something else was passed where a gradient transformation is needed."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Adds `name` to the owners of a `TransformationError` that passes through."""
    try:
        yield
    except TransformationError as error:
        error.owners.append(name)
        raise


def shown(value: object, limit: int = 80) -> str:
    """`repr(value)` and its type, cut to a length that fits in an error message."""
    text = repr(value)
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return f"{text} ({type(value).__name__})"
