"""What ParallelConnection needs of a DB-API driver, and what each driver does in its own way.

No driver is imported: they are known by what their objects can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ..errors import PmppError

T = TypeVar("T")

QUERY_CANCELED = "57014"
IN_FAILED_TRANSACTION = "25P02"

_IN_ERROR, _UNKNOWN = 3, 4  # of libpq's PGTransactionStatusType


class InterfaceError(PmppError):
    """A use of ParallelConnection that cannot be right; what a driver refuses it raises itself."""


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
    """Return where a connection leads to, never with a password, or else its class."""
    info = getattr(connection, "info", None)  # of psycopg 3 and psycopg2
    shown = []
    with suppress(Exception):  # another driver's info, or a closed connection
        shown = [(name, getattr(info, name)) for name in ("host", "port", "dbname")]
    place = " ".join(f"{name}={value}" for name, value in shown if value)
    kind = type(connection)
    return place or f"{kind.__module__}.{kind.__qualname__}"


def in_transaction(connection: Connection) -> object:
    """Return what sqlite3 tells of that, false if there is none; other drivers tell nothing."""
    return getattr(connection, "in_transaction", None)


def would_not_commit(connection: Connection) -> bool:
    """Return True if psycopg 3 or psycopg2 would roll back, or has lost the connection."""
    info = getattr(connection, "info", None)
    return getattr(info, "transaction_status", None) in (_IN_ERROR, _UNKNOWN)


def roll_back(connection: Connection) -> None:
    """Roll back, also what has been rolled back already."""
    is_over = in_transaction(connection) is False and getattr(connection, "autocommit", 0) is False
    if is_over:  # sqlite3 with autocommit=False, which then neither rolls back nor begins
        connection.cursor().execute("begin")
    else:
        connection.rollback()


def stays_interrupted(connection: Connection) -> bool:
    """Return True if an interrupt lasts until all results of the connection have ended."""
    return hasattr(connection, "interrupt")  # of sqlite3


def end_result(cursor: Cursor) -> None:
    """Have the cursor of an interrupted connection notice that."""
    with suppress(Exception):
        cursor.fetchmany(1)


def was_cancelled(error: BaseException) -> bool:
    """Return True if an error is what the driver raises in a call that was cancelled."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return sqlstate == QUERY_CANCELED or str(error) == "interrupted"


def share_limit(error: BaseException | None, first: BaseException) -> bool:
    """Return True if two calls have run into the same limit of their servers.

    A statement_timeout has the SQLSTATE of a cancel, and only its message tells it from one: in
    English, while in other languages a cancel by somebody else is taken for a limit.
    """
    if error is None or not (was_cancelled(error) and was_cancelled(first)):
        return False
    was_asked_for = "user request" in str(first) or str(first) == "interrupted"
    return str(error) == str(first) and not was_asked_for


def cure(error: BaseException) -> str | None:
    """Return what helps against an error that comes of calling from another thread."""
    if type(error).__module__ == "sqlite3" and "created in a thread" in str(error):
        return "open it with sqlite3.connect(..., check_same_thread=False)"
    return None


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, also before Python 3.11, which brought add_note."""
    with suppress(Exception):  # one that takes no attributes
        error.__notes__ = [*getattr(error, "__notes__", ()), note]


def attach(error: BaseException, others: Sequence[BaseException]) -> None:
    """Add further failures to the one that is raised: as notes, and as its `other_failures`."""
    for other in others:
        lines = [f"also failed: {type(other).__name__}: {other}", *getattr(other, "__notes__", ())]
        add_note(error, "\n    ".join(lines))
    failures = [*getattr(error, "other_failures", ()), *others]
    with suppress(Exception):
        error.other_failures = failures  # type: ignore[attr-defined]


def finish_each(items: list[T], function: Callable[[T], Any]) -> None:
    """Call a function with each item, the last one first, and remove it.

    A signal handler or another thread may do the same meanwhile.

    Raises:
        Exception: the first failure, with the others attached; what has failed is done too.
        KeyboardInterrupt: at once; another call goes on where this one was.
    """

    def finish_last() -> None:
        try:
            item = items.pop()
        except IndexError:  # others were faster
            return
        try:
            function(item)
        except Exception:
            raise
        except BaseException:
            items.append(item)
            raise

    attempt(finish_last for _ in range(len(items)))


def attempt(functions: Iterable[Callable[[], Any]]) -> None:
    """Call all of them, then raise the first failure with the others attached."""
    failures = []
    for function in functions:
        try:
            function()
        except Exception as failure:
            failures.append(failure)
    if failures:
        attach(failures[0], failures[1:])
        raise failures[0]
