"""How this process takes and gives back memory. How much there is of it, scanline/machine.py says."""

from __future__ import annotations

import ctypes
from typing import Final

M_ARENA_MAX: Final = -8  # malloc.h
M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 2**18  # more than the 64 images of a usual batch


def share_memory_pools() -> None:
    """Keep glibc from giving each thread a pool of its own (M_ARENA_MAX in mallopt(3)). Call it before they start.

    With many pools, what one thread has freed is of no use to another, and resident memory wanders: under full load by
    7.5 % in half an hour, with one pool by 2 %. What the lock of that pool costs could not be measured.

    Large arrays stay out of the pool and go back to the machine when they are freed. By itself glibc raises the size
    from which they do (M_MMAP_THRESHOLD) to the largest that it has seen: 24 streams of calls of 1,024 images took
    1,055 MB like that, and take 440 MB so.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such pools
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def return_memory() -> None:
    """Give memory that is free but kept for later back to the machine (malloc_trim(3)); takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
