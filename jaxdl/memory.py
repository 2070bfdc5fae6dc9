"""The memory of this process."""

import contextlib
import ctypes
import os

MMAP_MAX, TOP_PAD, TRIM_THRESHOLD = -4, -2, -1  # numbers of glibc's malloc.h


def keep() -> None:
    """Has glibc keep what is freed from now on, for later; on other systems does nothing.

    A compiled step on a CPU asks for all of its temporary memory at once, and frees it at its end.
    By default each of its pages then comes from the kernel anew: a seventh of a VGG-16's time. What
    compiling frees is better not kept, so this is for when that is done.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 256 << 20)


def installed() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
