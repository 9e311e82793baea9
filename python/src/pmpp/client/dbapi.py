"""What ParallelConnection needs of a DB-API driver, and what each driver does in its own way.

No driver is imported: they are known by what their objects can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..errors import PmppError

QUERY_CANCELED = "57014"


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
    try:
        shown = [(name, getattr(info, name)) for name in ("host", "port", "dbname")]
    except Exception:  # another driver's info, or a closed connection
        kind = type(connection)
        return f"{kind.__module__}.{kind.__qualname__}"
    return " ".join(f"{name}={value}" for name, value in shown if value)


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


def cure(error: BaseException) -> str | None:
    """Return what helps against an error that comes of calling from another thread."""
    if type(error).__module__ == "sqlite3" and "created in a thread" in str(error):
        return "open it with sqlite3.connect(..., check_same_thread=False)"
    return None


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, also before Python 3.11, which brought add_note."""
    error.__notes__ = [*getattr(error, "__notes__", ()), note]


def attach(error: BaseException, others: Sequence[BaseException]) -> None:
    """Add further failures to the one that is raised: as notes, and as its `other_failures`."""
    for other in others:
        lines = [f"also failed: {type(other).__name__}: {other}", *getattr(other, "__notes__", ())]
        add_note(error, "\n    ".join(lines))
    error.other_failures = [*getattr(error, "other_failures", ()), *others]  # type: ignore[attr-defined]


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
