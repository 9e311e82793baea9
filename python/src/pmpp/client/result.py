"""What a statement returns on several connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from .call_group import CallGroup
from .drivers import Cursor
from .errors import InterfaceError
from .row_stream import Fetcher, RowStream
from .worker_connection import WorkerConnection
from .worker_threads import WorkerThreads

Cursors = Sequence[tuple[WorkerConnection, Cursor]]

# What begins to read a stream of rows: one of its methods, with the arguments of the caller.
Read = Callable[[RowStream], Iterator[Any]]


class Result:
    """The results of several cursors as one, and the calls that run the statement and fetch rows.

    Args:
        threads: what runs the calls.
        cursors: the cursors, each with its connection.
        read: what reads the stream of their rows.
    """

    def __init__(self, threads: WorkerThreads, cursors: Cursors, read: Read) -> None:
        self.read = read
        self._has_run = False
        self._calls = CallGroup(threads)
        self._set_cursors(cursors)

    @property
    def cursors(self) -> Cursors:
        """The cursors that have a result, each with its connection."""
        return [(fetcher.worker, fetcher.cursor) for fetcher in self._fetchers]

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns, as described by the first driver that knows them yet."""
        known = (cursor.description for _, cursor in self.cursors)
        return next(filter(None, known), None)

    @property
    def rowcount(self) -> int:
        """The sum of what the drivers say now, or -1 if one of them does not know."""
        counts = [cursor.rowcount for _, cursor in self.cursors] if self._has_run else []
        return -1 if min(counts, default=-1) < 0 else sum(counts)

    def run(self, function: Callable[[Cursor], object], deadline: float | None) -> None:
        """Call a function that gives a cursor its result, for each cursor.

        Args:
            function: what to call. It returns something false if there is no result.
            deadline: until when to wait for it, on the clock of `time.monotonic`, or None.
        """
        with self._calls as calls:
            calls.deadline = deadline
            cursors = self.cursors
            for worker, cursor in cursors:
                calls.start(worker, partial(_run_on, worker, cursor, function))
            outcomes = zip(cursors, calls.results(), strict=True)
            self._set_cursors([pair for pair, has_result in outcomes if has_result])
            for fetcher in self._fetchers:
                self._stream.compare_columns(fetcher)
        self._has_run = True

    def fetch(self, count: int | None, deadline: float | None, largest_batch: int) -> list[Any]:
        """Return that many rows, or all.

        Args:
            count: how many rows, or None.
            deadline: until when to wait for them, on the clock of `time.monotonic`, or None.
            largest_batch: how many rows to fetch from a connection at a time, at most.
        """
        with self._calls as calls:
            calls.deadline = deadline
            self._stream.largest_batch = largest_batch
            return list(islice(self._rows, count))

    def require_valid(self) -> None:
        """Make sure that no call has failed and nobody has called `invalidate`.

        Raises:
            InterfaceError: if so.
        """
        if self._calls.failed:
            raise InterfaceError(
                "there are no rows, since the last call has failed or was rolled back"
            )

    def invalidate(self) -> None:
        """Refuse to return further rows. Calls that run go on."""
        self._calls.failed = True

    def cancel(self, error: BaseException) -> None:
        """Invalidate the result, cancel its calls, and attach their failures to an exception."""
        self._calls.cancel(error)

    def _set_cursors(self, cursors: Cursors) -> None:
        self._fetchers = [Fetcher(worker, cursor) for worker, cursor in cursors]
        self._stream = RowStream(self._calls, self._fetchers)
        self._rows = self.read(self._stream)


def _run_on(
    worker: WorkerConnection, cursor: Cursor, function: Callable[[Cursor], object]
) -> object:
    """Call the function for one cursor, and return what it returns."""
    has_result = function(cursor)
    # A call that succeeds shows that the failure did not break the connection.
    worker.pending_error = None
    return has_result
