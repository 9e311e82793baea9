"""What a statement returns on several connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from .connection_threads import Lane, Threads
from .dbapi import Cursor, InterfaceError
from .operation import Operation
from .union import Part, Union

Cursors = Sequence[tuple[Lane, Cursor]]

Arrange = Callable[[Union], Iterator[Any]]


class Result:
    """The results of some cursors as one, and the calls that get them and their rows.

    Args:
        threads: what runs the calls.
        cursors: the cursors, each with its connection.
        arrange: what makes one stream of their rows.
    """

    def __init__(self, threads: Threads, cursors: Cursors, arrange: Arrange) -> None:
        self.arrange = arrange
        self._is_there = False
        self._operation = Operation(threads)
        self._present(cursors)

    @property
    def cursors(self) -> Cursors:
        """The cursors that have a result."""
        return [(part.lane, part.cursor) for part in self._parts]

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns, as the first driver describes them that knows them yet."""
        known = (part.cursor.description for part in self._parts)
        return next(filter(None, known), None)

    @property
    def rowcount(self) -> int:
        """The sum of what the drivers say now, or -1 if one of them does not know."""
        counts = [part.cursor.rowcount for part in self._parts] if self._is_there else []
        return -1 if min(counts, default=-1) < 0 else sum(counts)

    def get(self, function: Callable[[Cursor], object], deadline: float | None) -> None:
        """Call what gives a cursor its result, for each of them.

        Args:
            function: what to call, which returns something false if there is no result.
            deadline: until when to wait for it, on the clock of `time.monotonic`, or None.
        """
        with self._operation as operation:
            operation.deadline = deadline
            cursors = self.cursors
            for lane, cursor in cursors:
                operation.start(lane, partial(_get, lane, cursor, function))
            results = list(zip(cursors, operation.results(), strict=True))
            self._present([place for place, has_result in results if has_result])
            for part in self._parts:
                self._union.compare_columns(part)
        self._is_there = True

    def take(self, count: int | None, deadline: float | None, largest_batch: int) -> list[Any]:
        """Return that many rows, or all.

        Args:
            count: how many rows, or None.
            deadline: until when to wait for them, on the clock of `time.monotonic`, or None.
            largest_batch: how many rows to ask a connection for at a time, at most.
        """
        with self._operation as operation:
            operation.deadline = deadline
            self._union.largest_batch = largest_batch
            return list(islice(self._rows, count))

    def require_rows(self) -> None:
        """Make sure that nothing has failed and nobody has given up.

        Raises:
            InterfaceError: if so.
        """
        if self._operation.failed:
            raise InterfaceError(
                "there are no rows, since the last call has failed or was rolled back"
            )

    def give_up(self) -> None:
        """Have no more rows; what runs goes on."""
        self._operation.failed = True

    def cancel(self, error: BaseException) -> None:
        """Have no more rows, cancel what runs, and attach its failures to an exception."""
        self._operation.cancel(error)

    def _present(self, cursors: Cursors) -> None:
        self._parts = [Part(lane, cursor) for lane, cursor in cursors]
        self._union = Union(self._operation, self._parts)
        self._rows = self.arrange(self._union)


def _get(lane: Lane, cursor: Cursor, function: Callable[[Cursor], object]) -> object:
    """Get the result of one cursor; return something false if it has none."""
    has_result = function(cursor)
    lane.untold = None  # so that failure does no more harm
    return has_result
