"""The cursor of a ParallelConnection."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import index, methodcaller
from threading import TIMEOUT_MAX, RLock
from typing import TYPE_CHECKING, Any

from .connection_threads import Lane, Threads
from .dbapi import Cursor, InterfaceError, attach, attempt, end_result, stays_interrupted
from .operation import Operation
from .result import Arrange, Result
from .union import LARGEST_BATCH, Order, Union

if TYPE_CHECKING:
    from .parallel_connection import ParallelConnection


class ParallelCursor:
    """A cursor on each connection of a ParallelConnection, used as one.

    It is made by `ParallelConnection.cursor`. In a `with` block it is closed at its end.
    A call that fails cancels what its other connections do for it, waits for them, and raises
    the exception of the driver. A note says on which connection that was, and `other_failures`
    is a list of the exceptions of further connections. There are no more rows to fetch then.

    Attributes:
        connection: the ParallelConnection.
        arraysize: how many rows `fetchmany` returns, unless told; if set to more than 1, also
            how many each connection is asked for at a time, at most.
    """

    # no more: what a driver's cursor has besides must not look as if it could be set
    __slots__ = (
        "__weakref__", "_calling", "_closed", "_cursors", "_result", "_threads", "_timeout",
        "arraysize", "connection",
    )  # fmt: skip

    def __init__(
        self,
        connection: ParallelConnection,
        threads: Threads,
        lanes: Sequence[Lane],
        cursors: Sequence[Cursor],
    ) -> None:
        self.connection = connection
        self.arraysize = 1
        self._threads = threads
        self._cursors = list(zip(lanes, cursors, strict=True))
        self._closed = False
        self._timeout: float | None = None
        self._calling = RLock()  # of threads that share the cursor, one calls at a time
        self._result = Result(threads, self._cursors, Union.as_they_come)

    @property
    def closed(self) -> bool:
        """True after `close`, also that of the ParallelConnection."""
        return self._closed or self.connection.closed

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns of the result, as the first driver describes them that knows them yet."""
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
        merge: Order | None = None,
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
                Rows then come in that order. Keys must be such as Python can compare.
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

        def run(cursor: Cursor) -> bool:
            cursor.execute(query, *args, **kwargs)
            return True

        if merge is None:
            arrange: Arrange = partial(Union.as_they_come, with_source=source)
        else:
            arrange = partial(Union.in_order, order=merge, reverse=reverse, with_source=source)
        self._run(run, arrange, timeout)
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
        sets = list(parameters)

        def run(cursor: Cursor) -> bool:
            cursor.executemany(query, sets, *args, **kwargs)
            return True

        self._run(run, Union.as_they_come, timeout)
        return self

    def nextset(self) -> bool | None:
        """Go on to the next result, of a statement that has several on each connection.

        Its rows come as `execute` was told: with their source, or merged.

        Returns:
            True, or None if no connection has a further result; there are no more rows then.

        Raises:
            InterfaceError: as `fetchone`, and if a driver's cursor has no `nextset`.
            TimeoutError: as `fetchone`.
            Exception: what a driver raises.
        """
        self._threads.require()
        with self._calling:
            self._require_open()
            before = self._result
            before.require_rows()
            for lane, cursor in before.cursors:
                if not hasattr(cursor, "nextset"):
                    raise InterfaceError(f"the cursor of {lane.label} has no nextset")
            following = Result(self._threads, before.cursors, before.arrange)
            self._get(following, methodcaller("nextset"))
            return True if self._result.cursors else None

    def fetchone(self) -> Any:
        """Return the next row, from whichever connection has one, or None if there are no more.

        Raises:
            InterfaceError: if the cursor is closed, the call before has failed, or columns
                differ between connections.
            TimeoutError: if the time is up, after everything has been cancelled.
            Exception: what a driver raises.
        """
        rows = self._take(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, fewer than asked for only if there are no more.

        Args:
            size: how many; `arraysize` unless told.

        Raises:
            Exception: as `fetchone`.
        """
        return self._take(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        """Return all further rows.

        Raises:
            Exception: as `fetchone`.
        """
        return self._take(None)

    def __iter__(self) -> ParallelCursor:
        return self

    def __next__(self) -> Any:
        rows = self._take(1)
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
        lane, cursor = self._cursors[0]
        mogrify = getattr(cursor, "mogrify", None)
        if mogrify is None:
            raise InterfaceError(
                f"the cursor of {lane.label} has no mogrify"
                " (that of psycopg 3 has it if connected with cursor_factory=ClientCursor)"
            )
        with Operation(self._threads) as operation:
            operation.start(lane, partial(mogrify, query, *args, **kwargs))
            return operation.next().result

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def close(self) -> None:
        """Close the cursors of all connections, as soon as they have no rows under way.

        Raises:
            InterfaceError: in a process that was forked.
            Exception: what a driver raises.
        """
        if sys.is_finalizing():
            return
        self._threads.require()
        if self._threads.include_caller:  # nor wait for a call of another thread
            self._start_closing(Operation(self._threads))
            return
        with self._calling, Operation(self._threads) as operation:
            self._start_closing(operation)
            operation.settle()

    def _start_closing(self, operation: Operation) -> None:
        if not self.closed:
            self._closed = True
            for lane, cursor in self._cursors:
                operation.start(lane, cursor.close)

    def _end_result(self) -> None:
        """Give up the rows, and have no result interrupt further statements of its connection."""
        self._result.give_up()
        with Operation(self._threads) as operation:
            for lane, cursor in self._cursors:
                if lane.cancelled and stays_interrupted(lane.connection):
                    operation.start(lane, partial(end_result, cursor))
            operation.settle()

    def __enter__(self) -> ParallelCursor:
        self._require_open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.closed or self._threads.are_gone:
            return
        if error is None or isinstance(error, GeneratorExit):  # a loop that was left is no failure
            self.close()
            return
        try:
            attempt([partial(self._result.cancel, error), self.close])
        except Exception as failure:
            attach(error, [failure])

    def _require_open(self) -> None:
        if self.closed:
            raise InterfaceError("the cursor is closed")

    def _run(
        self, function: Callable[[Cursor], object], arrange: Arrange, timeout: float | None
    ) -> None:
        """Have a statement run on every connection."""
        if timeout is not None and not 0 < timeout <= TIMEOUT_MAX:
            raise ValueError(
                f"timeout must be more than 0 and at most {TIMEOUT_MAX:.0f} seconds, not {timeout}"
            )
        self._threads.require()
        with self._calling:
            self._require_open()
            self._timeout = timeout
            self._get(Result(self._threads, self._cursors, arrange), function)

    def _get(self, result: Result, function: Callable[[Cursor], object]) -> None:
        """Replace the result by another."""
        self._result = result
        result.get(function, self._deadline())

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _take(self, count: int | None) -> list[Any]:
        """Return that many rows, or all."""
        if count is not None:
            count = min(index(count), sys.maxsize)
            if count < 0:
                raise ValueError(f"the number of rows must be at least 0, not {count}")
        self._threads.require()
        with self._calling:
            self._require_open()
            self._result.require_rows()
            largest_batch = self.arraysize if self.arraysize > 1 else LARGEST_BATCH
            return self._result.take(count, self._deadline(), largest_batch)
