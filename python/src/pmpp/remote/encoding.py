"""The encoding of what a remote server sends and reads."""

from __future__ import annotations

from psycopg import ConnectionInfo, NotSupportedError
from psycopg.pq import abc

# Of these, Python takes some characters for others than PostgreSQL does, or lacks them.
_INEXACT = frozenset(
    [
        b"BIG5",
        b"EUC_JIS_2004",
        b"EUC_JP",
        b"EUC_KR",
        b"GBK",
        b"JOHAB",
        b"SHIFT_JIS_2004",
        b"SJIS",
        b"UHC",
    ]
)


def client_encoding(pgconn: abc.PGconn) -> bytes:
    """Return PostgreSQL's name of the encoding; UTF8 if the remote server reports none."""
    return pgconn.parameter_status(b"client_encoding") or b"UTF8"


def codec(pgconn: abc.PGconn) -> str | None:
    """Return the Python codec of the encoding, or None if it has none that is the same."""
    name = client_encoding(pgconn)
    if name in (b"UTF8", b"SQL_ASCII"):
        return "utf-8"
    if name in _INEXACT:
        return None
    try:
        return ConnectionInfo(pgconn).encoding
    except NotSupportedError:
        return None
