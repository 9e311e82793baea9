"""How many files a session may have open, as PostgreSQL counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Files(NamedTuple):
    """How to count a connection among the open files of the process.

    Attributes:
        acquire: counts one; returns False if the process can have no more.
        release: is called when the connection is closed.
    """

    acquire: Callable[[], bool]
    release: Callable[[], object]


UNCOUNTED = Files(lambda: True, lambda: None)


def of_server() -> Files:
    """Return PostgreSQL's own count, which dblink and postgres_fdw use too.

    PostgreSQL closes files of tables, which it opens again when it needs them, so that the
    connections of a session can be as many as a third of the files that it may open. A server
    process that can open no file may not even be able to write its log.
    """
    import ctypes

    acquire = ctypes.pythonapi.AcquireExternalFD
    release = ctypes.pythonapi.ReleaseExternalFD
    acquire.argtypes, acquire.restype = (), ctypes.c_bool
    release.argtypes, release.restype = (), None
    return Files(acquire, release)
