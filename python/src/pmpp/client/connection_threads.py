"""Threads that run the calls on several connections at the same time.

A connection is never used by two threads at a time: its calls wait in its `Lane` and are run in
the order in which they were made. A call goes through these states:

    waiting --a thread takes it--> running --it returns or raises--> done

Threads never wait for those who made a call: what becomes of it goes to the queue of its
`Operation`. So a thread is either at work for a connection or free for the next.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from threading import Condition, RLock, Thread, get_ident
from typing import Any

from .dbapi import (
    QUERY_CANCELED,
    Connection,
    InterfaceError,
    add_note,
    cure,
    in_transaction,
    was_cancelled,
)
from .interrupt import Cancels, cut

_PAUSE = 0.02  # seconds until a call that still runs is cancelled again, doubled each time
_LONGEST_PAUSE = 1.0
_PATIENCE = 10.0  # seconds until a connection whose call cannot be cancelled is cut


class Lane:
    """A connection, and the calls on it.

    Args:
        connection: the connection.
        source: its index or its name, as rows tell where they come from.
        label: how messages show it.

    Attributes:
        untold: the failure of a call whose outcome nobody has asked for yet.
        cancelled: whether a call was cancelled while it ran, since the last rollback.
        has_lost_work: whether a failed call has ended its transaction, since the last rollback.
    """

    def __init__(self, connection: Connection, source: int | str, label: str) -> None:
        self.connection = connection
        self.source = source
        self.label = label
        self.waiting: deque[Call] = deque()
        self.running: Call | None = None
        self.untold: BaseException | None = None
        self.cancelled = False
        self.has_lost_work = False


class Call:
    """A function to be called while no other uses the connection."""

    def __init__(
        self, lane: Lane, function: Callable[[], Any], outcomes: SimpleQueue[Call]
    ) -> None:
        self.lane = lane
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.done = False
        self._function = function
        self._outcomes = outcomes

    def run(self) -> None:
        """Call the function, keep what it returns or raises."""
        connection, untold = self.lane.connection, self.lane.untold
        was_in_transaction = in_transaction(connection)
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
            if was_in_transaction and not in_transaction(connection):
                self.lane.has_lost_work = True
            if error is untold:
                return
            note = f"on {self.lane.label}"
            add_note(error, f"{note}: {hint}" if (hint := cure(error)) else note)
            error.__context__ = error.__context__ or untold  # which may be why this failed too

    def finish(self) -> None:
        """Hand over the outcome."""
        if self.failed():
            self.lane.untold = self.error
        self.done = True
        outcomes = self._outcomes
        del self._outcomes  # or else an outcome nobody takes would keep itself, and its cursor
        outcomes.put(self)

    def drop(self) -> None:
        """End without having run."""
        self.cancelled = True
        self.error = InterfaceError(
            f"a call on {self.lane.label} was cancelled before it began", sqlstate=QUERY_CANCELED
        )
        self.finish()

    def failed(self) -> bool:
        """Return True if it failed by itself and not because it was cancelled."""
        error = self.error
        return error is not None and not (self.cancelled and was_cancelled(error))

    def tell(self) -> BaseException | None:
        """Return what was raised, which is then known."""
        if self.lane.untold is self.error:
            self.lane.untold = None
        return self.error


class Threads:
    """Threads for the calls on some connections.

    They are started at once and end when this object does, which they hold no reference to.
    What runs then is cancelled, once, and not waited for.

    Args:
        lanes: the connections.
        count: how many threads to have.

    Attributes:
        ended: True if they have ended, or are about to.
    """

    def __init__(self, lanes: Sequence[Lane], count: int) -> None:
        self.ended = False
        self._lanes = lanes
        self._process = os.getpid()
        # a `with` block of Condition itself may leave it locked at a KeyboardInterrupt
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._ready: SimpleQueue[Lane | None] = SimpleQueue()
        # the only lanes that the finalizer may hold: a connection may lead back to this object
        self._busy: set[Lane] = set()
        self._threads = [
            Thread(
                target=_work,
                args=(self._ready, self._busy, self._lock, self._changed),
                name=f"ParallelConnection {number}",
                daemon=True,
            )
            for number in range(count)
        ]
        self._dismiss = weakref.finalize(
            self, _dismiss, self._process, self._busy, self._lock, self._ready, count
        )
        self._dismiss.atexit = False  # when no thread can be started any more
        for thread in self._threads:
            thread.start()
        self._own = frozenset(thread.ident for thread in self._threads)

    @property
    def are_gone(self) -> bool:
        """True in a process that was forked from theirs, and when the interpreter ends.

        They have stopped then, wherever they were: locks may stay locked, also those of drivers.
        """
        return os.getpid() != self._process or sys.is_finalizing()

    @property
    def include_caller(self) -> bool:
        """True if asked in one of these threads, where the garbage collector may call anything.

        Waiting for them would never end there.
        """
        return get_ident() in self._own

    def submit(self, call: Call) -> None:
        """Have a call run after those already made on its connection.

        Raises:
            InterfaceError: if the threads have ended.
        """
        self.require()
        with self._lock:
            call.lane.waiting.append(call)
            self._busy.add(call.lane)
            self._ready.put(call.lane)
            if self.ended:  # looked at last: a signal handler may end them at any point
                self.stop([call])
                raise InterfaceError("the ParallelConnection is closed")

    def stop(self, calls: Iterable[Call] | None = None) -> None:
        """Drop calls that wait, cancel those that run, and wait until these have ended.

        In one of these threads, those that run go on.

        Args:
            calls: the calls, or None for all that there are.
        """
        self.require()
        with self._lock:
            if calls is None:
                calls = [
                    call for lane in self._lanes for call in (*lane.waiting, lane.running) if call
                ]
            calls = list(calls)
            for call in calls:
                if call in call.lane.waiting:
                    call.lane.waiting.remove(call)
                    call.drop()
            if not self.include_caller:
                self._end_running(calls)

    def _end_running(self, calls: Sequence[Call]) -> None:
        """Cancel those calls that run, and wait until they have ended. Holds the lock."""
        cancels = Cancels()
        pause = _PAUSE
        patience = time.monotonic() + _PATIENCE
        while running := [call for call in calls if call.lane.running is call]:
            for call in running:
                call.cancelled = call.lane.cancelled = True
            connections = [call.lane.connection for call in running]
            # again and again: a query may not have reached its server yet
            if (left := patience - time.monotonic()) > 0:
                cancels.ask(connections, min(left, _LONGEST_PAUSE))
            else:
                for connection in connections:
                    cut(connection)
            self._changed.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        cancels.wait(patience - time.monotonic())  # or one might end what runs next

    def end(self) -> None:
        """Refuse further calls, cancel those that there are, end the threads, and wait for that."""
        self.ended = True
        self.stop()
        for _ in self._threads:
            self._ready.put(None)  # too many do no harm, after Ctrl-C in here
        self._dismiss.detach()
        if not self.include_caller:
            for thread in self._threads:
                thread.join()

    def require(self) -> None:
        """Raise an InterfaceError if the threads are gone."""
        if self.are_gone:
            raise InterfaceError(
                "a ParallelConnection cannot be used in a forked process, nor when Python ends"
            )


def _work(
    ready: SimpleQueue[Lane | None], busy: set[Lane], lock: RLock, changed: Condition
) -> None:
    """Run calls until dismissed."""
    while (lane := ready.get()) is not None:
        with lock:
            if lane.running:
                continue
            if not lane.waiting:
                busy.discard(lane)
                continue
            call = lane.running = lane.waiting.popleft()
        call.run()
        with lock:
            lane.running = None
            if lane.waiting:
                ready.put(lane)
            else:
                busy.discard(lane)
            call.finish()
            changed.notify_all()
        del lane, call  # which would keep their rows until the next call


def _dismiss(
    process: int, busy: set[Lane], lock: RLock, ready: SimpleQueue[Lane | None], count: int
) -> None:
    """End the threads, and what they do, for which nobody waits, unless they are gone."""
    for _ in range(count):
        ready.put(None)
    if os.getpid() == process and not sys.is_finalizing():
        with lock:
            for lane in busy:
                lane.waiting.clear()
            running = [lane.connection for lane in busy if lane.running]
            Cancels().ask(running, _LONGEST_PAUSE)
