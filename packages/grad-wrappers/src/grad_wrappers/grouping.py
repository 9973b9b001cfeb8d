"""Small leaves of one shape as one array: `grouped`."""

from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    example,
    trace,
    transformation,
)
from grad_core.nodes import node_of
from grad_core.transformations import from_node


@example(trace(0.9))
@transformation
def grouped(
    inner: GradientTransformation, *, max_size: int = 2**14
) -> GradientTransformationExtraArgs:
    """Runs a transformation on stacks of small leaves: same numbers, sooner compiled, faster.

    A tree of a thousand small leaves takes long to compile and to run, since each leaf is a
    computation of its own. Here leaves of one shape and dtype (and, on meshes with explicit axes,
    of one sharding) are stacked, and so are their statistics. Unlike in `flatten`, every rule still
    does with each leaf what it did before: factored moments, trust ratios, masks and norms are
    those of the leaves. Updates go in and come out as the tree that they are.

    Only our own rules that work leaf by leaf are grouped, at any depth in chains, masks, partitions
    and wrappers. What users wrote, and transformations of whole trees, see the tree as it is.

    Costs a copy of small parameters and updates while ``update`` runs.

    Args:
      inner: The transformation to run on stacks.
      max_size: The number of elements of the largest leaf to be stacked, >= 1. Larger ones gain
        nothing, and would be copied.

    Returns:
      A transformation whose state is the inner one's, with dicts of stacks in place of trees like
      the parameters: a stack for each form that several leaves have, ``"24 x float32[64]"``, and
      each other leaf by its path. Pass the parameters to ``update`` if they have other dtypes than
      the updates, or if updates may be None.

    Raises:
      ValueError: If `max_size` is less than 1.
      TreeMismatchError: By ``update``, if the state is one of other leaves.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import trace
      >>> from grad_wrappers import grouped
      >>> params = {"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(5)}
      >>> state = grouped(trace(0.9)).init(params)
      >>> {name: stack.shape for name, stack in state.trace.items()}
      {'2 x float32[3]': (2, 3), 'c': (5,)}
    """
    if max_size < 1:
        raise ValueError(f"grouped: max_size must be at least 1; got {max_size!r}.")
    return from_node(node_of(inner, "grouped").grouped(max_size))
