"""Setting of the C allocator to keep freed memory instead of returning it to the system."""

import ctypes
import os

# mallopt's names for its parameters, in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
MAX_INT32 = 2**31 - 1


def keep_memory() -> bool:
    """Keep freed memory for later allocations, and return whether the allocator can do so.

    A network's activations are tens of megabytes each. By default glibc has the system map fresh pages for every one,
    and clearing pages costs as much as the convolution that fills them: millions of page faults a batch. Only glibc has
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
    # All allocations come from the heap, and the heap is never trimmed.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, MAX_INT32))
