"""What a remote server says besides rows: errors and notices."""

from __future__ import annotations

import re
from collections.abc import Callable

from psycopg.pq import DiagnosticField, ExecStatus, abc

from .. import errors
from ..core.notices import Notice
from ..errors import PmppError, as_context, lines
from .encoding import codec

_GOOD = (
    ExecStatus.TUPLES_OK,
    ExecStatus.TUPLES_CHUNK,
    ExecStatus.COMMAND_OK,
    ExecStatus.PIPELINE_SYNC,
)
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_SUCCESS = "00"
_NAMES = {
    "schema_name": DiagnosticField.SCHEMA_NAME,
    "table_name": DiagnosticField.TABLE_NAME,
    "column_name": DiagnosticField.COLUMN_NAME,
    "datatype_name": DiagnosticField.DATATYPE_NAME,
    "constraint_name": DiagnosticField.CONSTRAINT_NAME,
}
Field = Callable[[DiagnosticField], "str | None"]


def notice(pgconn: abc.PGconn, result: abc.PGresult, context: str) -> Notice:
    """Read a notice; libpq lends its result only for the time of a callback.

    Args:
        pgconn: the connection.
        result: the notice.
        context: what the remote server runs, as a line of a CONTEXT.
    """
    field = _reader(pgconn, result)
    sqlstate = field(DiagnosticField.SQLSTATE) or ""
    return Notice(
        # PostgreSQL 9.6 introduced the first. The other one may be in another language.
        severity=field(DiagnosticField.SEVERITY_NONLOCALIZED)
        or ("WARNING" if field(DiagnosticField.SEVERITY) == "WARNING" else "NOTICE"),
        message=field(DiagnosticField.MESSAGE_PRIMARY) or "",
        detail=lines(field(DiagnosticField.MESSAGE_DETAIL), context),
        hint=field(DiagnosticField.MESSAGE_HINT),
        sqlstate=sqlstate if _SQLSTATE.fullmatch(sqlstate) else None,
        names=_names(field),
    )


def failure(
    pgconn: abc.PGconn,
    result: abc.PGresult,
    context: object,
    display_name: str,
    loss: str | None = None,
) -> PmppError | None:
    """Return the error that a result stands for, None if it has rows or a command tag.

    The error has all fields of the remote server's own that it has.

    Args:
        pgconn: the connection.
        result: what came.
        context: the query that it answers, for messages.
        display_name: how messages show the connection.
        loss: why the connection was lost, if it was and that is known.

    Raises:
        PmppError: if it is the start of a COPY, after which nothing else can be received.
    """
    if result.status in _GOOD:
        return None
    if result.status == ExecStatus.EMPTY_QUERY:
        return PmppError(
            "the query is empty",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
            context=as_context(context),
        )
    if result.status in _COPY:
        raise PmppError(
            "COPY FROM STDIN and COPY TO STDOUT cannot be used in a query of pmpp",
            sqlstate=errors.FEATURE_NOT_SUPPORTED,
            context=as_context(context),
        )
    field = _reader(pgconn, result)
    sqlstate = field(DiagnosticField.SQLSTATE) or ""
    message = field(DiagnosticField.MESSAGE_PRIMARY)
    if not (sqlstate or message or field(DiagnosticField.SEVERITY)):
        # libpq itself has made this result.
        return lost_connection(display_name, loss or result.get_error_message(), context)
    is_error = _SQLSTATE.fullmatch(sqlstate) and not sqlstate.startswith(_SUCCESS)
    return PmppError(
        message or "the remote gave no message",
        sqlstate=sqlstate if is_error else errors.INTERNAL_ERROR,
        detail=field(DiagnosticField.MESSAGE_DETAIL),
        hint=field(DiagnosticField.MESSAGE_HINT),
        context=lines(field(DiagnosticField.CONTEXT), as_context(context)),
        names=_names(field),
    )


def _names(field: Field) -> dict[str, str]:
    """Return what an error or a notice names."""
    return {name: text for name, code in _NAMES.items() if (text := field(code))}


def _reader(pgconn: abc.PGconn, result: abc.PGresult) -> Field:
    """Return a function that reads a field of an error or a notice."""
    encoding = codec(pgconn) or "utf-8"

    def field(code: DiagnosticField) -> str | None:
        value = result.error_field(code)
        return None if value is None else value.decode(encoding, errors="replace")

    return field


def lost_connection(display_name: str, message: str, context: object) -> PmppError:
    """Return the error for a connection that ended while it was in use."""
    return PmppError(
        f"lost the connection to {display_name}",
        sqlstate=errors.CONNECTION_FAILURE,
        detail=message,
        context=as_context(context),
    )
