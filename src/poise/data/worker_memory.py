"""Memory of the processes that load images."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt(3)


def keep_freed_memory(_worker: int = 0) -> None:
    """Make the C library reuse freed memory in this process instead of returning it to the system (glibc on Linux).

    An image passes through tensors of several megabytes. By default each of them is mapped anew, and the kernel clears
    it page by page, which takes about a third of the time. The process keeps the most memory that it has needed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
