"""Calls on several connections that belong together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from .drivers import hit_same_limit
from .errors import InterfaceError, attach_failures, run_all
from .worker_connection import Call, WorkerConnection
from .worker_threads import WorkerThreads


class CallGroup:
    """Calls that belong together, like the tasks of an asyncio.TaskGroup.

    An exception that leaves the `with` block of a group cancels its calls, waits for them, and
    gets their failures attached.

    Args:
        threads: what runs the calls.

    Attributes:
        failed: whether an exception has left such a block.
        deadline: until when to wait for calls, on the clock of `time.monotonic`, or None.
    """

    def __init__(self, threads: WorkerThreads) -> None:
        self.failed = False
        self.deadline: float | None = None
        self._threads = threads
        self._finished_calls: SimpleQueue[Call] = SimpleQueue()
        self._calls: list[Call] = []

    def start(self, worker: WorkerConnection, function: Callable[[], Any]) -> None:
        """Call a function as soon as the connection is free."""
        call = Call(worker, function, self._finished_calls)
        self._calls.append(call)
        self._threads.submit(call)

    def time_left(self) -> float | None:
        """Return how many seconds there are until the deadline, or None if there is none.

        Raises:
            TimeoutError: if the time is up.
        """
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            late = (call.worker.display_name for call in self._calls if not call.finished)
            names = ", ".join(sorted(late))
            raise TimeoutError(f"no answer in time from {names}" if names else "the time is up")
        return left

    def next_finished(self) -> Call:
        """Wait until a call is finished and return it. The first call to finish comes first.

        Raises:
            TimeoutError: if the time is up, even if a call is finished.
            InterfaceError: in a worker thread, which would wait for ever.
            BaseException: what the call has raised.
        """
        if self._threads.in_worker_thread:
            raise InterfaceError("a ParallelConnection cannot be used by its own worker threads")
        call = None
        while call is None:
            with suppress(Empty):
                call = self._finished_calls.get(timeout=self.time_left())
        self._calls.remove(call)
        if error := call.consume_error():
            raise error
        return call

    def results(self) -> list[Any]:
        """Wait for all calls and return their results, in the order in which they were started.

        Raises:
            BaseException: as `next_finished`.
        """
        calls = list(self._calls)
        for _ in calls:
            self.next_finished()
        return [call.result for call in calls]

    def wait_for_all(self) -> None:
        """Wait for all calls, also when some fail.

        Raises:
            Exception: the first failure, with the others attached.
        """
        run_all([self.next_finished for _ in self._calls])

    def __enter__(self) -> CallGroup:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.cancel(error)

    def cancel(self, error: BaseException) -> None:
        """Cancel all calls, wait for them, and attach their failures to an exception."""
        self.failed = True
        calls, self._calls = self._calls, []
        self._threads.cancel(calls)
        failures = [
            call.consume_error()
            for call in calls
            if call.failed() or hit_same_limit(call.error, error)
        ]
        attach_failures(error, [failure for failure in failures if failure])
