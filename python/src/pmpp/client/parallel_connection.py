"""Several database connections that look like one.

Every statement runs on all connections at the same time, and returns the rows of all of them:

    pdb = ParallelConnection([psycopg.connect(dsn) for dsn in dsns])
    cursor = pdb.cursor()
    cursor.execute("select * from orders where price > %s", (100,))
    rows = cursor.fetchall()
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakSet

from .call_group import CallGroup
from .drivers import Connection, Pool, describe
from .errors import InterfaceError, attach_failures, drain, run_all
from .parallel_cursor import ParallelCursor
from .worker_connection import WorkerConnection
from .worker_threads import WorkerThreads

_logger = logging.getLogger(__name__)

__all__ = ["InterfaceError", "ParallelConnection", "ParallelCursor"]


class ParallelConnection:
    """Several DB-API connections, used as one.

    A `with` block commits, or rolls back if an exception leaves it, and then closes the
    connections, as psycopg 3 does.

    Args:
        connections: open connections of any DB-API drivers, also of different drivers.
        names: the names of the connections in messages and as the source of rows.
        max_threads: how many connections may run a call at the same time; None means all.

    Raises:
        ValueError: if there are no connections, one is given twice, or an argument is out of range.
    """

    InterfaceError = InterfaceError

    # Without slots, a program could set an attribute of a driver's connection here, such as
    # autocommit, and nothing would happen.
    __slots__ = (
        "__weakref__", "_cursors", "_cursors_lock", "_threads", "_unclosed", "_unreturned",
        "_workers",
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
        self._workers = _workers(self._unclosed, None if names is None else tuple(names))
        self._unreturned = list(enumerate(self._workers))
        self._threads = WorkerThreads(self._workers, min(count, max_threads or count))
        self._cursors: WeakSet[ParallelCursor] = WeakSet()
        self._cursors_lock = Lock()
        _logger.debug("opened over %s", ", ".join(worker.display_name for worker in self._workers))

    @property
    def closed(self) -> bool:
        """True after `close` and `putconn`."""
        return self._threads.closed

    def cursor(self, *args: Any, **kwargs: Any) -> ParallelCursor:
        """Open a cursor on each connection and return them as one.

        Args:
            args, kwargs: what to pass on to the `cursor` method of each connection.

        Raises:
            InterfaceError: if this object is closed.
            Exception: what a driver raises.
        """
        cursors = self._call_all(lambda worker: worker.connection.cursor(*args, **kwargs))
        cursor = ParallelCursor(self, self._threads, self._workers, cursors)
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
        _logger.debug("commit on %d connections", len(self._workers))
        self._call_all(WorkerConnection.require_committable)
        self._call_all_despite_failures(lambda worker: worker.connection.commit())

    def rollback(self) -> None:
        """Cancel running calls, drop the results of all cursors, and roll back every connection.

        Raises:
            InterfaceError: if this object is closed.
            Exception: what a driver raises; the other connections are rolled back nevertheless.
        """
        self._require_open()
        _logger.debug("rollback on %d connections", len(self._workers))
        self._threads.cancel()
        with self._cursors_lock:
            cursors = list(self._cursors)
        for cursor in cursors:
            cursor._drop_result()
        self._call_all_despite_failures(WorkerConnection.roll_back)

    def close(self) -> None:
        """Cancel running calls, end the threads, and close every connection.

        Raises:
            Exception: what a driver raises; the other connections are closed nevertheless.
        """
        # The interpreter closes all connections when it ends. A driver might never answer then.
        if sys.is_finalizing():
            return
        if self._unclosed:
            _logger.debug("closing %d connections", len(self._unclosed))
        self._threads.close()
        drain(self._unclosed, lambda connection: connection.close())

    def putconn(self, pools: Sequence[Pool]) -> None:
        """Cancel running calls, end the threads, and return every connection to its pool.

        A pool rolls back what has not been committed. Each connection is returned once: after
        that, further calls do nothing, and `close` does not close the connections.

        Args:
            pools: the pools, in the order of the connections.

        Raises:
            ValueError: if there is not one pool for each connection; nothing is done then.
            Exception: what a pool raises; the other connections are returned nevertheless.
        """
        if len(pools) != len(self._workers):
            raise ValueError(f"{len(pools)} pools for {len(self._workers)} connections")
        if self._unreturned:
            _logger.debug("returning %d connections to their pools", len(self._unreturned))
        self._threads.close()
        self._unclosed.clear()
        drain(self._unreturned, lambda last: pools[last[0]].putconn(last[1].connection))

    def __enter__(self) -> ParallelConnection:
        self._require_open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.closed or not self._threads.usable:
            return
        last = self.commit if error is None else self.rollback
        try:
            run_all([last, self.close])
        except Exception as failure:
            if error is None:
                raise
            attach_failures(error, [failure])
        finally:
            # A KeyboardInterrupt may have left connections open.
            self.close()

    def _require_open(self) -> None:
        if self.closed:
            raise InterfaceError("the ParallelConnection is closed")

    def _start(self, function: Callable[[WorkerConnection], Any]) -> CallGroup:
        """Start to call a function for every connection."""
        self._require_open()
        group = CallGroup(self._threads)
        for worker in self._workers:
            group.start(worker, partial(function, worker))
        return group

    def _call_all(self, function: Callable[[WorkerConnection], Any]) -> list[Any]:
        """Call a function for every connection; if one call fails, cancel the others."""
        with self._start(function) as group:
            return group.results()

    def _call_all_despite_failures(self, function: Callable[[WorkerConnection], Any]) -> None:
        """Call a function for every connection; if one call fails, go on with the others."""
        with self._start(function) as group:
            group.wait_for_all()


def _workers(
    connections: Sequence[Connection], names: Sequence[str] | None
) -> list[WorkerConnection]:
    if names is not None and len(names) != len(connections):
        raise ValueError(f"{len(names)} names for {len(connections)} connections")
    workers = []
    for index, connection in enumerate(connections):
        source = index if names is None else names[index]
        name = describe(connection) if names is None else names[index]
        workers.append(WorkerConnection(connection, source, f"connection {index} ({name})"))
    return workers
