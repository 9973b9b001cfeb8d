"""A progress bar for loops that run compiled."""

from collections.abc import Callable
from typing import Any


def progress_of(total: int) -> Callable[[Any, Any, Any, Any], None]:
    """A function ``show(iteration, value, grad_norm, is_last)`` that moves a bar of tqdm.

    The bar starts when the function is called first and ends with the last iteration, so that a
    loop that is compiled once has a bar at each run.
    """
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            "run: progress=True needs the package tqdm; install it, or leave progress out."
        ) from None
    bars: list[Any] = []

    def show(iteration: Any, value: Any, grad_norm: Any, is_last: Any) -> None:
        if not bars:
            bars.append(tqdm(total=total, desc="run"))
        bar = bars[0]
        bar.n = max(bar.n, int(iteration))  # calls may come in another order
        bar.set_postfix_str(f"value {float(value):.6g}, gradient norm {float(grad_norm):.3g}")
        if is_last:
            bars.pop().close()

    return show
