"""Give memory back to the operating system.

The C library keeps freed memory for later; after a session with large weights that is hundreds of megabytes which
count as the process's own while the next session is opened.
"""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable

__all__ = ["trim"]


def trim(*, graphs: bool = False) -> None:
    """Return what is free to the operating system, where the C library can (glibc); costs milliseconds.

    Args:
        graphs: Also collect whole graphs that nothing refers to any more. Their nodes and values refer to each other,
            and by the time a pipeline ends they have grown old: only a full collection finds them.
    """
    gc.collect(2 if graphs else 0)
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        function: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc: nothing to do
        return lambda _: None
    return function
