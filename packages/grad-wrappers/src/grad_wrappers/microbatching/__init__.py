"""Evaluating a function on a large batch, one microbatch after another.

A batch of n * m rows is n microbatches of m rows, and what a function makes of each is
accumulated::

    carry = init(x_0)
    for i in range(n):
        carry = update(carry, fun(microbatch i), i)
    result = finalize(carry)

so that memory is needed for one microbatch and one accumulator. Microbatch i holds the rows i,
i + n, i + 2 n, ...: a batch that is sharded over devices stays so, and no row moves. The function
is traced once, and the loop is a `jax.lax.scan`, which can be differentiated.
"""

from grad_wrappers.microbatching.accumulators import AccumulationType, Accumulator
from grad_wrappers.microbatching.functions import microbatch
from grad_wrappers.microbatching.per_example import micro_grad, micro_vmap
from grad_wrappers.microbatching.splitting import reshape_batch_axis

__all__ = [
    "AccumulationType",
    "Accumulator",
    "micro_grad",
    "micro_vmap",
    "microbatch",
    "reshape_batch_axis",
]
