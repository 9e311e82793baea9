"""What ParallelConnection needs of a DB-API driver, and what each driver does in its own way.

No driver is imported. These functions recognise a driver by the attributes of its objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from .errors import QUERY_CANCELED

# Two values of libpq's PGTransactionStatusType.
_PQTRANS_INERROR, _PQTRANS_UNKNOWN = 3, 4

# The message of sqlite3 for a call that was cancelled.
_INTERRUPTED = "interrupted"


class Cursor(Protocol):
    """What a driver's cursor must have."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns of the result, or None."""

    @property
    def rowcount(self) -> int:
        """The number of rows, or -1."""

    def execute(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a statement."""

    def executemany(self, query: Any, parameters: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a statement with each set of parameters."""

    def fetchmany(self, size: int, /) -> Sequence[Any]:
        """Return the next rows; none when there are no more."""

    def close(self) -> Any:
        """Close the cursor."""


class Connection(Protocol):
    """What a driver's connection must have."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new `Cursor`."""

    def commit(self) -> Any:
        """Commit the transaction."""

    def rollback(self) -> Any:
        """Roll the transaction back."""

    def close(self) -> Any:
        """Close the connection."""


class Pool(Protocol):
    """What a pool of connections must have."""

    def putconn(self, conn: Any) -> Any:
        """Take a connection back."""


def describe(connection: Connection) -> str:
    """Return host, port and database of a connection, or else its class, never a password."""
    # psycopg 3 and psycopg2 have `info`.
    info = getattr(connection, "info", None)
    fields = []
    # The `info` of another driver may lack these, and that of a closed connection raises an error.
    with suppress(Exception):
        fields = [(name, getattr(info, name)) for name in ("host", "port", "dbname")]
    address = " ".join(f"{name}={value}" for name, value in fields if value)
    kind = type(connection)
    return address or f"{kind.__module__}.{kind.__qualname__}"


def in_transaction(connection: Connection) -> object:
    """Return whether a connection of sqlite3 is in a transaction, and None for other drivers."""
    return getattr(connection, "in_transaction", None)


def cannot_commit(connection: Connection) -> bool:
    """Return True if psycopg 3 or psycopg2 would roll back, or has lost the connection."""
    info = getattr(connection, "info", None)
    status = getattr(info, "transaction_status", None)
    return status in (_PQTRANS_INERROR, _PQTRANS_UNKNOWN)


def roll_back(connection: Connection) -> None:
    """Roll back, also what has been rolled back already."""
    # If sqlite3 with autocommit=False has ended the transaction, its rollback does not begin
    # another one.
    is_over = in_transaction(connection) is False and getattr(connection, "autocommit", 0) is False
    if is_over:
        connection.cursor().execute("begin")
    else:
        connection.rollback()


def stays_interrupted(connection: Connection) -> bool:
    """Return True for sqlite3, where an interrupt lasts until all open results have ended."""
    return hasattr(connection, "interrupt")


def end_result(cursor: Cursor) -> None:
    """End the open result of a cursor whose connection was interrupted."""
    # The cursor raises the interrupt.
    with suppress(Exception):
        cursor.fetchmany(1)


def is_cancel(error: BaseException) -> bool:
    """Return True if an error is what the driver raises in a call that was cancelled."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return sqlstate == QUERY_CANCELED or str(error) == _INTERRUPTED


def hit_same_limit(error: BaseException | None, first: BaseException) -> bool:
    """Return True if two calls have run into the same limit of their servers.

    A statement_timeout has the SQLSTATE of a cancel, and only its message distinguishes it from
    one. If the messages are not in English, a cancel by somebody else counts as a limit.
    """
    if error is None or not (is_cancel(error) and is_cancel(first)):
        return False
    was_requested = "user request" in str(first) or str(first) == _INTERRUPTED
    return str(error) == str(first) and not was_requested


def hint(error: BaseException) -> str | None:
    """Return how to avoid an error that a driver raises because another thread calls it."""
    if type(error).__module__ == "sqlite3" and "created in a thread" in str(error):
        return "open it with sqlite3.connect(..., check_same_thread=False)"
    return None
