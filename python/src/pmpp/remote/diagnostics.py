"""What a remote server says besides rows: errors and notices."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from psycopg.pq import DiagnosticField, ExecStatus, abc

from .. import errors
from ..errors import PmppError, lines
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


class Notice(NamedTuple):
    """A notice or warning, of a remote server or of pmpp itself.

    Attributes:
        severity: WARNING, NOTICE, INFO, LOG or DEBUG, in English.
        sqlstate: None for the one that PostgreSQL gives to notices or warnings.
        names: what it is about, by some of `errors.NAMES`.
    """

    severity: str
    message: str
    detail: str | None = None
    hint: str | None = None
    sqlstate: str | None = None
    names: Mapping[str, str] = {}


def warning(error: PmppError) -> Notice:
    """Return a warning that says what an error would."""
    return Notice(
        "WARNING", error.message, error.full_detail, error.hint, error.sqlstate, error.names
    )


def notice(pgconn: abc.PGconn, result: abc.PGresult, where: str) -> Notice:
    """Read a notice; libpq lends its result only for the time of a callback.

    Args:
        pgconn: the connection.
        result: the notice.
        where: what the remote server runs, as a line of a detail.
    """
    field = _reader(pgconn, result)
    sqlstate = field(DiagnosticField.SQLSTATE) or ""
    return Notice(
        # the first came with PostgreSQL 9.6; the other may be in another language
        severity=field(DiagnosticField.SEVERITY_NONLOCALIZED)
        or ("WARNING" if field(DiagnosticField.SEVERITY) == "WARNING" else "NOTICE"),
        message=field(DiagnosticField.MESSAGE_PRIMARY) or "",
        detail=lines(field(DiagnosticField.MESSAGE_DETAIL), where),
        hint=field(DiagnosticField.MESSAGE_HINT),
        sqlstate=sqlstate if _SQLSTATE.fullmatch(sqlstate) else None,
        names=_names(field),
    )


def failure(
    pgconn: abc.PGconn, result: abc.PGresult, where: object, label: str, loss: str | None = None
) -> PmppError | None:
    """Return the error that a result stands for, None if it has rows or a command tag.

    The error has all fields of the remote server's own that it has.

    Args:
        pgconn: the connection.
        result: what came.
        where: the query it answers, for messages.
        label: how messages show the connection.
        loss: why the connection was lost, if it was and that is known.

    Raises:
        PmppError: if it is the start of a COPY, after which nothing else can be received.
    """
    if result.status in _GOOD:
        return None
    if result.status == ExecStatus.EMPTY_QUERY:
        return PmppError(
            "the query is empty", sqlstate=errors.INVALID_PARAMETER_VALUE, context=sentence(where)
        )
    if result.status in _COPY:
        raise PmppError(
            "COPY FROM STDIN and COPY TO STDOUT cannot be used in a query of pmpp",
            sqlstate=errors.FEATURE_NOT_SUPPORTED,
            context=sentence(where),
        )
    field = _reader(pgconn, result)
    sqlstate = field(DiagnosticField.SQLSTATE) or ""
    message = field(DiagnosticField.MESSAGE_PRIMARY)
    if not (sqlstate or message or field(DiagnosticField.SEVERITY)):  # of libpq itself
        return lost_connection(label, loss or result.get_error_message(), where)
    is_error = _SQLSTATE.fullmatch(sqlstate) and not sqlstate.startswith(_SUCCESS)
    return PmppError(
        message or "the remote gave no message",
        sqlstate=sqlstate if is_error else errors.INTERNAL_ERROR,
        detail=field(DiagnosticField.MESSAGE_DETAIL),
        hint=field(DiagnosticField.MESSAGE_HINT),
        context=lines(field(DiagnosticField.CONTEXT), sentence(where)),
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


def lost_connection(label: str, message: str, where: object) -> PmppError:
    """Return the error for a connection that ended while it was in use."""
    return PmppError(
        f"lost the connection to {label}",
        sqlstate=errors.CONNECTION_FAILURE,
        detail=message,
        context=sentence(where),
    )


def sentence(where: object) -> str:
    """Return the name of a query as a line of a context."""
    text = str(where)
    return text[:1].upper() + text[1:]
