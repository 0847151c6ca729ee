"""The C library told to keep memory that it was given back, instead of having the system clear it anew each time."""

import ctypes
import os

# mallopt's names for its parameters, in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """From now on, keep what is freed for the next to be allocated; gives whether that is so.

    A network's activations are tens of megabytes each. By default glibc has the system map fresh pages for every one,
    and cleared pages cost as much as the convolution that fills them: millions of page faults a batch. Only glibc knows
    this setting; with another C library, or where the user has set one of glibc's own (``MALLOC_...``,
    ``GLIBC_TUNABLES``), nothing is changed.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - whether it is glibc
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # Nothing is mapped apart from the heap, and the heap is never given back.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, NEVER))
