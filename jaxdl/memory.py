"""Host memory: settings of the allocator, and the size of the machine's memory."""

import contextlib
import ctypes
import os

MMAP_MAX, TOP_PAD, TRIM_THRESHOLD = -4, -2, -1  # parameters of mallopt in glibc's malloc.h


def keep() -> None:
    """Makes glibc keep freed memory for reuse; does nothing on other systems.

    A compiled step on a CPU allocates all of its temporary memory at once and frees it at its end.
    By default glibc returns it, and each page is requested from the kernel again: a seventh of the
    time of a VGG-16. Call this after compilation, whose freed memory is better returned.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 256 << 20)


def installed() -> int:
    """Size of this machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
