"""Calls on several connections that belong together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from .connection_threads import Call, Lane, Threads
from .dbapi import InterfaceError, attach, attempt, share_limit


class Operation:
    """Calls that belong together: used in a `with` block, which cancels them when it is left by
    an exception, waits for them, and attaches their failures to the exception.

    Args:
        threads: what runs the calls.

    Attributes:
        failed: True if such a block was left by an exception.
        deadline: until when to wait for calls, on the clock of `time.monotonic`, or None.
    """

    def __init__(self, threads: Threads) -> None:
        self.failed = False
        self.deadline: float | None = None
        self._threads = threads
        self._outcomes: SimpleQueue[Call] = SimpleQueue()
        self._calls: list[Call] = []

    def start(self, lane: Lane, function: Callable[[], Any]) -> None:
        """Call a function as soon as the connection is free."""
        call = Call(lane, function, self._outcomes)
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
            busy = ", ".join(sorted(call.lane.label for call in self._calls if not call.done))
            raise TimeoutError(f"no answer in time from {busy}" if busy else "the time is up")
        return left

    def next(self) -> Call:
        """Wait until a call has ended and return it, in the order in which they end.

        Raises:
            TimeoutError: if the time is up, even if one has ended.
            InterfaceError: in one of the threads, since it would wait for ever.
            BaseException: what the call has raised.
        """
        if self._threads.include_caller:
            raise InterfaceError("a ParallelConnection cannot be used by its own threads")
        call = None
        while call is None:
            with suppress(Empty):
                call = self._outcomes.get(timeout=self.time_left())
        self._calls.remove(call)
        if error := call.tell():
            raise error
        return call

    def results(self) -> list[Any]:
        """Wait for all and return what they return, in the order in which they were started.

        Raises:
            BaseException: as `next`.
        """
        calls = list(self._calls)
        for _ in calls:
            self.next()
        return [call.result for call in calls]

    def settle(self) -> None:
        """Wait for all, also when some fail.

        Raises:
            Exception: the first failure, with the others attached.
        """
        attempt([self.next for _ in self._calls])

    def __enter__(self) -> Operation:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.cancel(error)

    def cancel(self, error: BaseException) -> None:
        """Cancel all calls, wait for them, and attach their failures to an exception."""
        self.failed = True
        calls, self._calls = self._calls, []
        self._threads.stop(calls)
        failures = [
            call.tell() for call in calls if call.failed() or share_limit(call.error, error)
        ]
        attach(error, [failure for failure in failures if failure])
