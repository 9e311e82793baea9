"""Loading psycopg, and with it libpq, into a server process.

psycopg's wheel contains a libpq and an OpenSSL. PostgreSQL loads libraries into the global scope,
so the libpq that dblink or the server itself uses would be found first, and two versions of libpq
would be mixed. RTLD_DEEPBIND has the wheel's libraries look among themselves first.

RTLD_DEEPBIND also has them look for malloc in the C library first. If the process uses another
allocator (LD_PRELOAD of jemalloc, for example), memory that one of the two has allocated would be
freed by the other, which ends the process.
"""

from __future__ import annotations

import os
import sys

from .. import errors
from ..errors import PmppError

# libpq 17 is the first that has rows in chunks and cancels without blocking.
OLDEST = 170000
# In bytes. When a block of up to 32 MB is freed, malloc raises the size from which it gives blocks
# back to the kernel.
_PROBE = 33 << 20

_MISSING = "psycopg or its compiled part is missing"

# Where this package and psycopg are installed.
_DIRECTORY = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def load() -> None:
    """Import psycopg.

    Raises:
        ImportError: if psycopg or its compiled part is not there.
        PmppError: if the process has another malloc than that of the C library, or if the libpq of
            the system is too old.
    """
    flags = sys.getdlopenflags()
    if _is_wheel():
        _check_malloc()
        _name_authorities()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        from psycopg import pq
    except AttributeError:
        # Without its compiled part, the module psycopg_c.pq is a directory of sources.
        raise ImportError(_MISSING) from None
    finally:
        sys.setdlopenflags(flags)
    if pq.__impl__ == "python" or not (pq.__file__ or "").startswith(_DIRECTORY):
        raise ImportError(_MISSING)
    if pq.version() < OLDEST:
        raise PmppError(
            f"libpq {pq.version_pretty(pq.version())} is too old",
            sqlstate=errors.OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="pmpp needs libpq 17 or later. Build it with make LIBPQ=wheel.",
        )


def _is_wheel() -> bool:
    """Return True if psycopg is the wheel, with a libpq of its own."""
    return os.path.isdir(os.path.join(_DIRECTORY, "psycopg_binary"))


def _name_authorities() -> None:
    """Have the wheel's OpenSSL find the certificates of the system, for sslrootcert=system.

    It would look for them in the directory in which it was built.
    """
    import ssl

    paths = ssl.get_default_verify_paths()
    for variable, path in (("SSL_CERT_FILE", paths.cafile), ("SSL_CERT_DIR", paths.capath)):
        if path:
            os.environ.setdefault(variable, path)


def _check_malloc() -> None:
    """Raise a PmppError if Python's memory is not allocated by the C library."""
    import ctypes

    class Mallinfo2(ctypes.Structure):
        _fields_ = tuple(
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        )

    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Mallinfo2
    malloc, free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
    malloc.argtypes, malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    free.argtypes, free.restype = (ctypes.c_void_p,), None

    def allocated() -> int:
        info = libc.mallinfo2()
        return int(info.uordblks + info.hblkhd)

    before = allocated()
    probe = malloc(_PROBE)
    if not probe:
        raise MemoryError
    grown = allocated() - before
    free(probe)
    if grown < _PROBE:
        raise PmppError(
            "the server process does not use malloc of the C library",
            sqlstate=errors.OBJECT_NOT_IN_PREREQUISITE_STATE,
            detail="The libpq that comes with pmpp would end the process.",
            hint="Start the server without the other allocator (see LD_PRELOAD), or build pmpp "
            "with make LIBPQ=system.",
        )
