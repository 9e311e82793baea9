"""The cursor of a ParallelConnection."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from operator import index, methodcaller
from threading import TIMEOUT_MAX, RLock
from typing import TYPE_CHECKING, Any

from .call_group import CallGroup
from .drivers import Cursor, end_result, stays_interrupted
from .errors import InterfaceError, attach_failures, run_all
from .result import Read, Result
from .row_stream import LARGEST_BATCH, MergeKey, RowStream
from .worker_connection import WorkerConnection
from .worker_threads import WorkerThreads

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from .parallel_connection import ParallelConnection


class ParallelCursor:
    """A cursor on each connection of a ParallelConnection, used as one.

    `ParallelConnection.cursor` makes it. The end of a `with` block closes it.
    If a call fails on one connection, pmpp cancels it on the others, waits for them, and raises
    the exception of the driver. A note names the connection, and `other_failures` is a list of
    the exceptions of further connections. There are no more rows to fetch then.

    Attributes:
        connection: the ParallelConnection.
        arraysize: the default size of `fetchmany`; if set to more than 1, also how many rows are
            fetched from a connection at a time, at most.
    """

    # Without slots, a program could set an attribute of a driver's cursor here, such as itersize,
    # and nothing would happen.
    __slots__ = (
        "__weakref__", "_closed", "_cursors", "_lock", "_result", "_threads", "_timeout",
        "arraysize", "connection",
    )  # fmt: skip

    def __init__(
        self,
        connection: ParallelConnection,
        threads: WorkerThreads,
        workers: Sequence[WorkerConnection],
        cursors: Sequence[Cursor],
    ) -> None:
        self.connection = connection
        self.arraysize = 1
        self._threads = threads
        self._cursors = list(zip(workers, cursors, strict=True))
        self._closed = False
        self._timeout: float | None = None
        # Threads of the program may share the cursor. One at a time calls a method.
        self._lock = RLock()
        self._result = Result(threads, self._cursors, RowStream.as_they_come)

    @property
    def closed(self) -> bool:
        """True after `close`, also that of the ParallelConnection."""
        return self._closed or self.connection.closed

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns of the result, as described by the first driver that knows them yet."""
        return self._result.description

    @property
    def rowcount(self) -> int:
        """The sum of what the drivers say after a statement, or -1 if one does not know."""
        return self._result.rowcount

    def execute(
        self,
        query: Any,
        *args: Any,
        timeout: float | None = None,
        source: bool = False,
        merge: MergeKey | None = None,
        reverse: bool = False,
        **kwargs: Any,
    ) -> ParallelCursor:
        """Run a statement on every connection, and return when all have run it.

        Args:
            query: the statement.
            args, kwargs: its parameters, and what else the `execute` of the drivers takes.
            timeout: how many seconds this call may take, and later each call that fetches rows.
            source: whether to return each row as a pair: the name of its connection, or its
                index if connections have no names, and the row.
            merge: for a result that is in order on each connection, what it is ordered by: the
                index or the name of a column, or a function that returns the key of a row.
                Rows then come in that order. Python must be able to compare the keys.
            reverse: whether that order is descending.

        Returns:
            This cursor.

        Raises:
            InterfaceError: if the cursor is closed, or columns differ between connections.
            TimeoutError: if the time is up, after everything has been cancelled.
            ValueError: if `reverse` is given without `merge`, or an argument is out of range.
            Exception: what a driver raises.
        """
        if merge is None and reverse:
            raise ValueError("reverse=True is of no use without merge")
        if merge is None:
            read: Read = partial(RowStream.as_they_come, with_source=source)
        else:
            read = partial(RowStream.merged, key=merge, reverse=reverse, with_source=source)
        self._run(read, timeout, "execute", query, *args, **kwargs)
        return self

    def executemany(
        self,
        query: Any,
        parameters: Iterable[Any],
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> ParallelCursor:
        """Run a statement with each set of parameters, all of them on every connection.

        Args:
            query: the statement.
            parameters: the sets of parameters.
            args, kwargs: what else the `executemany` of the drivers takes.
            timeout: as for `execute`.

        Returns:
            This cursor.

        Raises:
            Exception: as `execute`.
        """
        read = RowStream.as_they_come
        self._run(read, timeout, "executemany", query, list(parameters), *args, **kwargs)
        return self

    def nextset(self) -> bool | None:
        """Go on to the next result, of a statement that has several on each connection.

        The arguments `source` and `merge` of `execute` apply to its rows too.

        Returns:
            True, or None if no connection has a further result; there are no more rows then.

        Raises:
            InterfaceError: as `fetchone`, and if a driver's cursor has no `nextset`.
            TimeoutError: as `fetchone`.
            Exception: what a driver raises.
        """
        self._threads.require_usable()
        with self._lock:
            self._require_open()
            before = self._result
            before.require_valid()
            for worker, cursor in before.cursors:
                if not hasattr(cursor, "nextset"):
                    raise InterfaceError(f"the cursor of {worker.display_name} has no nextset")
            self._result = Result(self._threads, before.cursors, before.read)
            self._result.run(methodcaller("nextset"), self._deadline())
            return True if self._result.cursors else None

    def fetchone(self) -> Any:
        """Return the next row, from whichever connection has one, or None if there are no more.

        Raises:
            InterfaceError: if the cursor is closed, the call before has failed, or columns
                differ between connections.
            TimeoutError: if the time is up, after everything has been cancelled.
            Exception: what a driver raises.
        """
        rows = self._fetch(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, fewer than asked for only if there are no more.

        Args:
            size: how many; None means `arraysize`.

        Raises:
            Exception: as `fetchone`.
        """
        return self._fetch(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        """Return all further rows.

        Raises:
            Exception: as `fetchone`.
        """
        return self._fetch(None)

    def __iter__(self) -> ParallelCursor:
        return self

    def __next__(self) -> Any:
        rows = self._fetch(1)
        if not rows:
            raise StopIteration
        return rows[0]

    def mogrify(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the statement as the first connection would send it.

        Args:
            query: the statement.
            args, kwargs: its parameters.

        Raises:
            InterfaceError: if the cursor is closed, or the driver's cursor has no `mogrify`.
            Exception: what the driver raises.
        """
        self._require_open()
        worker, cursor = self._cursors[0]
        mogrify = getattr(cursor, "mogrify", None)
        if mogrify is None:
            raise InterfaceError(
                f"the cursor of {worker.display_name} has no mogrify"
                " (that of psycopg 3 has it if connected with cursor_factory=ClientCursor)"
            )
        with CallGroup(self._threads) as calls:
            calls.start(worker, partial(mogrify, query, *args, **kwargs))
            return calls.next_finished().result

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def close(self) -> None:
        """Close the cursors of all connections, after the batches that are being fetched.

        Raises:
            InterfaceError: in a process that was forked.
            Exception: what a driver raises.
        """
        if sys.is_finalizing():
            return
        self._threads.require_usable()
        if self._threads.in_worker_thread:
            # A worker thread must not wait, neither for the others nor for the lock.
            self._start_closing(CallGroup(self._threads))
            return
        with self._lock, CallGroup(self._threads) as calls:
            self._start_closing(calls)
            calls.wait_for_all()

    def _start_closing(self, calls: CallGroup) -> None:
        if not self.closed:
            self._closed = True
            for worker, cursor in self._cursors:
                calls.start(worker, cursor.close)

    def _drop_result(self) -> None:
        """Invalidate the result, and end its interrupt, which would hit further statements."""
        self._result.invalidate()
        with CallGroup(self._threads) as calls:
            for worker, cursor in self._cursors:
                if worker.cancelled and stays_interrupted(worker.connection):
                    calls.start(worker, partial(end_result, cursor))
            calls.wait_for_all()

    def __enter__(self) -> ParallelCursor:
        self._require_open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.closed or not self._threads.usable:
            return
        # Python raises GeneratorExit in a generator whose reader has left its loop, which is not a
        # failure.
        if error is None or isinstance(error, GeneratorExit):
            self.close()
            return
        try:
            run_all([partial(self._result.cancel, error), self.close])
        except Exception as failure:
            attach_failures(error, [failure])

    def _require_open(self) -> None:
        if self.closed:
            raise InterfaceError("the cursor is closed")

    def _run(
        self,
        read: Read,
        timeout: float | None,
        method: str,
        query: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Run a statement with a method of every cursor, and replace the result."""
        if timeout is not None and not 0 < timeout <= TIMEOUT_MAX:
            raise ValueError(
                f"timeout must be more than 0 and at most {TIMEOUT_MAX:.0f} seconds, not {timeout}"
            )
        self._threads.require_usable()
        self._require_open()
        _logger.debug("%s on %d connections: %s", method, len(self._cursors), _shown(query))

        def run(cursor: Cursor) -> bool:
            getattr(cursor, method)(query, *args, **kwargs)
            return True

        with self._lock:
            self._require_open()
            self._timeout = timeout
            self._result = Result(self._threads, self._cursors, read)
            self._result.run(run, self._deadline())

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _fetch(self, count: int | None) -> list[Any]:
        """Return that many rows, or all."""
        if count is not None:
            count = min(index(count), sys.maxsize)
            if count < 0:
                raise ValueError(f"the number of rows must be at least 0, not {count}")
        self._threads.require_usable()
        with self._lock:
            self._require_open()
            self._result.require_valid()
            largest_batch = self.arraysize if self.arraysize > 1 else LARGEST_BATCH
            return self._result.fetch(count, self._deadline(), largest_batch)


def _shown(query: Any) -> object:
    """Return how the log shows a statement: its text, or the class of an object."""
    # A composed statement of psycopg contains values, which may be secrets.
    return query if isinstance(query, str | bytes) else type(query)
