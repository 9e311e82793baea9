"""One connection of a ParallelConnection, and the calls on it.

No two threads use a connection at the same time. The calls on it run in the order in which they
were made, and each has one of three states:

    waiting --a worker thread takes it--> running --it returns or raises--> finished
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from .drivers import Connection, cannot_commit, hint, in_transaction, is_cancel, roll_back
from .errors import IN_FAILED_SQL_TRANSACTION, QUERY_CANCELED, InterfaceError, add_note


class WorkerConnection:
    """A driver's connection, the calls on it, and what they have done to its transaction.

    Args:
        connection: the driver's connection.
        source: the index or the name of the connection, which rows get with `source=True`.
        display_name: how messages name the connection.

    Attributes:
        waiting: the calls that have not begun, the oldest first.
        running: the call that runs, or None.
        pending_error: the error of a failed call, until somebody consumes it.
        cancelled: whether a running call was cancelled since the last rollback.
        has_lost_work: whether a failed call has ended its transaction since the last rollback.
    """

    def __init__(self, connection: Connection, source: int | str, display_name: str) -> None:
        self.connection = connection
        self.source = source
        self.display_name = display_name
        self.waiting: deque[Call] = deque()
        self.running: Call | None = None
        self.pending_error: BaseException | None = None
        self.cancelled = False
        self.has_lost_work = False

    def require_committable(self) -> None:
        """Make sure that a commit would keep what was done in the transaction.

        Raises:
            InterfaceError: if a failure or a cancel has ended the transaction.
            BaseException: the pending error.
        """
        if self.pending_error:
            raise self.pending_error
        if self.has_lost_work or cannot_commit(self.connection):
            raise InterfaceError(
                "the transaction was ended by a failure or a cancel: call rollback",
                sqlstate=IN_FAILED_SQL_TRANSACTION,
            )

    def roll_back(self) -> None:
        """Roll back, and forget the failures of the transaction."""
        self.pending_error = None
        self.cancelled = False
        roll_back(self.connection)
        self.has_lost_work = False


class Call:
    """A function that a worker thread calls while nothing else uses the connection.

    Args:
        worker: the connection.
        function: what to call.
        finished_calls: the queue that gets this call when it is finished.

    Attributes:
        result: what the function has returned.
        error: what the function has raised, or None.
        cancelled: whether the call was cancelled.
        finished: whether the call is finished.
    """

    def __init__(
        self,
        worker: WorkerConnection,
        function: Callable[[], Any],
        finished_calls: SimpleQueue[Call],
    ) -> None:
        self.worker = worker
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.finished = False
        self._function = function
        self._finished_calls = finished_calls

    def run(self) -> None:
        """Call the function, and keep what it returns or raises."""
        connection, pending = self.worker.connection, self.worker.pending_error
        was_in_transaction = in_transaction(connection)
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
            if was_in_transaction and not in_transaction(connection):
                self.worker.has_lost_work = True
            if error is pending:
                return
            note = f"on {self.worker.display_name}"
            add_note(error, f"{note}: {advice}" if (advice := hint(error)) else note)
            # The pending error may be the cause of this one.
            error.__context__ = error.__context__ or pending

    def finish(self) -> None:
        """Put the call into the queue of finished calls."""
        if self.failed():
            self.worker.pending_error = self.error
        self.finished = True
        finished_calls = self._finished_calls
        # If nobody takes the call from the queue, a reference to the queue would be a cycle that
        # keeps both of them and the cursor.
        del self._finished_calls
        finished_calls.put(self)

    def discard(self) -> None:
        """Finish the call without running it."""
        self.cancelled = True
        self.error = InterfaceError(
            f"a call on {self.worker.display_name} was cancelled before it began",
            sqlstate=QUERY_CANCELED,
        )
        self.finish()

    def failed(self) -> bool:
        """Return True if the call raised an error that is not the result of its cancel."""
        error = self.error
        return error is not None and not (self.cancelled and is_cancel(error))

    def consume_error(self) -> BaseException | None:
        """Return the error of the call, which is no longer pending then."""
        if self.worker.pending_error is self.error:
            self.worker.pending_error = None
        return self.error
