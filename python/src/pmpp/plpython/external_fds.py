"""PostgreSQL's count of the files that other code in a server process has open."""

from __future__ import annotations

import ctypes

from ..core.limits import OpenFiles


def open_files() -> OpenFiles:
    """Return PostgreSQL's own count, which dblink and postgres_fdw use too.

    PostgreSQL closes files of tables, which it opens again when it needs them, so that the
    connections of a session can be as many as a third of the files that it may open. A server
    process that can open no file may not even be able to write its log.
    """
    acquire = ctypes.pythonapi.AcquireExternalFD
    release = ctypes.pythonapi.ReleaseExternalFD
    acquire.argtypes, acquire.restype = (), ctypes.c_bool
    release.argtypes, release.restype = (), None
    return OpenFiles(acquire, release)
