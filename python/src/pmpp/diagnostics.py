"""What a remote server says besides rows: errors and notices."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from psycopg.pq import DiagnosticField, ExecStatus, abc

from . import errors
from .encoding import codec
from .errors import PmppError

_GOOD = (
    ExecStatus.TUPLES_OK,
    ExecStatus.TUPLES_CHUNK,
    ExecStatus.COMMAND_OK,
    ExecStatus.PIPELINE_SYNC,
)
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_SQLSTATE = re.compile(r"(?!00)[0-9A-Z]{5}")


class Notice(NamedTuple):
    """A notice or warning of a remote.

    Attributes:
        severity: WARNING, NOTICE, INFO, LOG or DEBUG, in English.
    """

    severity: str
    message: str
    detail: str | None
    hint: str | None


def notice(pgconn: abc.PGconn, result: abc.PGresult) -> Notice:
    """Read a notice; libpq lends its result only for the time of a callback."""
    field = _reader(pgconn, result)
    return Notice(
        # the first came with PostgreSQL 9.6; the other may be in another language
        severity=field(DiagnosticField.SEVERITY_NONLOCALIZED)
        or ("WARNING" if field(DiagnosticField.SEVERITY) == "WARNING" else "NOTICE"),
        message=field(DiagnosticField.MESSAGE_PRIMARY) or "",
        detail=field(DiagnosticField.MESSAGE_DETAIL),
        hint=field(DiagnosticField.MESSAGE_HINT),
    )


def failure(
    pgconn: abc.PGconn, result: abc.PGresult, where: object, label: str
) -> PmppError | None:
    """Return the error that a result stands for, None if it has rows or a command tag.

    The error has the remote's own SQLSTATE, message, detail and hint if it has any.

    Args:
        pgconn: the connection.
        result: what came.
        where: the query it answers, for messages.
        label: how messages show the connection.

    Raises:
        PmppError: if it is the start of a COPY, after which nothing else can be received.
    """
    if result.status in _GOOD:
        return None
    if result.status == ExecStatus.EMPTY_QUERY:
        return PmppError(
            "the query is empty", sqlstate=errors.INVALID_PARAMETER_VALUE, detail=sentence(where)
        )
    if result.status in _COPY:
        raise PmppError(
            "COPY FROM STDIN and COPY TO STDOUT cannot be used in a query of pmpp",
            sqlstate=errors.FEATURE_NOT_SUPPORTED,
            detail=sentence(where),
        )
    field = _reader(pgconn, result)
    sqlstate = field(DiagnosticField.SQLSTATE) or ""
    message = field(DiagnosticField.MESSAGE_PRIMARY)
    if not (sqlstate or message or field(DiagnosticField.SEVERITY)):  # of libpq itself
        return lost_connection(label, result.get_error_message(), where)
    detail = field(DiagnosticField.MESSAGE_DETAIL)
    return PmppError(
        message or "the remote gave no message",
        sqlstate=sqlstate if _SQLSTATE.fullmatch(sqlstate) else errors.INTERNAL_ERROR,
        detail=f"{detail}\n{sentence(where)}" if detail else sentence(where),
        hint=field(DiagnosticField.MESSAGE_HINT),
    )


def _reader(pgconn: abc.PGconn, result: abc.PGresult) -> Callable[[DiagnosticField], str | None]:
    """Return a function that reads a field of an error or a notice."""
    encoding = codec(pgconn) or "utf-8"

    def field(code: DiagnosticField) -> str | None:
        value = result.error_field(code)
        return None if value is None else value.decode(encoding, errors="replace")

    return field


def lost_connection(label: str, message: str, where: object) -> PmppError:
    """Return the error for a connection that ended while it was in use."""
    return PmppError(
        f"lost the connection to {label}",
        sqlstate=errors.CONNECTION_FAILURE,
        detail=f"{message}\n{sentence(where)}",
    )


def sentence(where: object) -> str:
    """Return the name of a query as a line of a detail."""
    text = str(where)
    return text[:1].upper() + text[1:]
