"""Many database connections that look like one.

Every statement runs on all of them at the same time, and the rows are the union of theirs:

    pdb = ParallelConnection([psycopg.connect(dsn) for dsn in dsns])
    cursor = pdb.cursor()
    cursor.execute("select * from orders where price > %s", (100,))
    rows = cursor.fetchall()
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakSet

from .connection_threads import Lane, Threads
from .dbapi import (
    IN_FAILED_TRANSACTION,
    Connection,
    InterfaceError,
    Pool,
    attach,
    attempt,
    describe,
    finish_each,
    roll_back,
    would_not_commit,
)
from .operation import Operation
from .parallel_cursor import ParallelCursor

__all__ = ["InterfaceError", "ParallelConnection", "ParallelCursor"]


class ParallelConnection:
    """Several DB-API connections, used as one.

    It may be used in a `with` block, which at its end commits, or rolls back if it is left by an
    exception, and then closes the connections, as psycopg 3 does.

    Args:
        connections: open connections of any DB-API drivers, also of different ones.
        names: what to call each of them in messages and as the source of rows.
        max_threads: how many of them may be at work at a time; all, unless told.

    Raises:
        ValueError: if there are no connections, one is given twice, or an argument is out of range.
    """

    InterfaceError = InterfaceError

    # no more: what a driver's connection has besides must not look as if it could be set
    __slots__ = (
        "__weakref__", "_cursors", "_cursors_lock", "_lanes", "_threads", "_unclosed",
        "_unreturned",
    )  # fmt: skip

    def __init__(
        self,
        connections: Iterable[Connection],
        *,
        names: Iterable[str] | None = None,
        max_threads: int | None = None,
    ) -> None:
        self._unclosed = list(connections)
        count = len(self._unclosed)
        if not count:
            raise ValueError("no connections were given")
        if len({id(connection) for connection in self._unclosed}) < count:
            raise ValueError("the same connection was given more than once")
        if max_threads is not None and max_threads < 1:
            raise ValueError(f"max_threads must be at least 1, not {max_threads}")
        self._lanes = _lanes(self._unclosed, None if names is None else tuple(names))
        self._unreturned = list(enumerate(self._lanes))
        self._threads = Threads(self._lanes, min(count, max_threads or count))
        self._cursors: WeakSet[ParallelCursor] = WeakSet()
        self._cursors_lock = Lock()

    @property
    def closed(self) -> bool:
        """True after `close` and `putconn`."""
        return self._threads.ended

    def cursor(self, *args: Any, **kwargs: Any) -> ParallelCursor:
        """Open a cursor on each connection and return them as one.

        Args:
            args, kwargs: what to pass on to the `cursor` method of each connection.

        Raises:
            InterfaceError: if this object is closed.
            Exception: what a driver raises.
        """
        cursors = self._together(lambda lane: lane.connection.cursor(*args, **kwargs))
        cursor = ParallelCursor(self, self._threads, self._lanes, cursors)
        with self._cursors_lock:
            self._cursors.add(cursor)
        return cursor

    def commit(self) -> None:
        """Commit on every connection, each by itself: there is no two-phase commit.

        Raises:
            InterfaceError: if this object is closed, or if the transaction of a connection was
                aborted, so that it would roll back; nothing is committed then.
            Exception: what a driver raises. A failure in fetching rows ahead, which no fetch
                has raised yet, is raised here, before anything is committed.
        """
        self._together(_require_sound)
        self._each(lambda lane: lane.connection.commit())

    def rollback(self) -> None:
        """Cancel what runs, give up rows that cursors have not fetched, and roll back everywhere.

        Raises:
            InterfaceError: if this object is closed.
            Exception: what a driver raises; the other connections are rolled back nevertheless.
        """
        self._require_open()
        self._threads.stop()
        with self._cursors_lock:
            cursors = list(self._cursors)
        for cursor in cursors:
            cursor._end_result()
        self._each(_roll_back)

    def close(self) -> None:
        """Cancel what runs, end the threads, and close every connection.

        Raises:
            Exception: what a driver raises; the other connections are closed nevertheless.
        """
        if sys.is_finalizing():  # which closes everything, and a driver may never answer
            return
        self._threads.end()
        finish_each(self._unclosed, lambda connection: connection.close())

    def putconn(self, pools: Sequence[Pool]) -> None:
        """Cancel what runs, end the threads, and give every connection back to its pool.

        A pool rolls back what has not been committed. Each connection is given back once: when
        they have been, further calls do nothing, and `close` does not close them.

        Args:
            pools: the pools, in the order of the connections.

        Raises:
            ValueError: if there is not one pool for each connection; nothing is done then.
            Exception: what a pool raises; the other connections are given back nevertheless.
        """
        if len(pools) != len(self._lanes):
            raise ValueError(f"{len(pools)} pools for {len(self._lanes)} connections")
        self._threads.end()
        self._unclosed.clear()
        finish_each(self._unreturned, lambda last: pools[last[0]].putconn(last[1].connection))

    def __enter__(self) -> ParallelConnection:
        self._require_open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.closed or self._threads.are_gone:
            return
        last = self.commit if error is None else self.rollback
        try:
            attempt([last, self.close])
        except Exception as failure:
            if error is None:
                raise
            attach(error, [failure])
        finally:
            self.close()  # also at a KeyboardInterrupt

    def _require_open(self) -> None:
        if self.closed:
            raise InterfaceError("the ParallelConnection is closed")

    def _start(self, function: Callable[[Lane], Any]) -> Operation:
        """Call a function for every connection."""
        self._require_open()
        operation = Operation(self._threads)
        for lane in self._lanes:
            operation.start(lane, partial(function, lane))
        return operation

    def _together(self, function: Callable[[Lane], Any]) -> list[Any]:
        """Call a function for every connection; if one call fails, cancel the others."""
        with self._start(function) as operation:
            return operation.results()

    def _each(self, function: Callable[[Lane], Any]) -> None:
        """Call a function for every connection, also when a call fails."""
        with self._start(function) as operation:
            operation.settle()


def _lanes(connections: Sequence[Connection], names: Sequence[str] | None) -> list[Lane]:
    if names is None:
        return [
            Lane(connection, index, f"connection {index} ({describe(connection)})")
            for index, connection in enumerate(connections)
        ]
    if len(names) != len(connections):
        raise ValueError(f"{len(names)} names for {len(connections)} connections")
    return [
        Lane(connection, name, f"connection {index} ({name})")
        for index, (connection, name) in enumerate(zip(connections, names, strict=True))
    ]


def _require_sound(lane: Lane) -> None:
    """Make sure that what was done in the transaction can be committed."""
    if lane.untold:
        raise lane.untold
    if lane.has_lost_work or would_not_commit(lane.connection):
        raise InterfaceError(
            "the transaction was ended by a failure or a cancel: call rollback",
            sqlstate=IN_FAILED_TRANSACTION,
        )


def _roll_back(lane: Lane) -> None:
    lane.untold = None
    lane.cancelled = False
    roll_back(lane.connection)
    lane.has_lost_work = False
