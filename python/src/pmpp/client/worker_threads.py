"""The worker threads, which run calls on several connections at the same time.

A worker thread never waits for the thread that made a call: it puts the finished call into the
queue of the call's `CallGroup`, and is free for another connection.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from threading import Condition, RLock, Thread, get_ident

from .cancel import CancelRequests
from .errors import InterfaceError
from .worker_connection import Call, WorkerConnection

# Seconds until a call that still runs is cancelled again. The pause doubles each time.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0

# Seconds until a connection whose call cannot be cancelled is aborted.
_ABORT_AFTER = 10.0


class WorkerThreads:
    """Threads that run the calls on some connections.

    They are started at once. They end when this object is garbage, since they hold no reference
    to it. The finalizer then cancels, once, what still runs, and does not wait for its end.

    Args:
        workers: the connections.
        count: how many threads to start.

    Attributes:
        closed: whether the threads have ended, or are about to.
    """

    def __init__(self, workers: Sequence[WorkerConnection], count: int) -> None:
        self.closed = False
        self._workers = workers
        self._process = os.getpid()
        # The `with` block of a Condition may leave its lock locked after a KeyboardInterrupt. That
        # of an RLock does not.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._ready: SimpleQueue[WorkerConnection | None] = SimpleQueue()
        # The finalizer must not hold other connections: one of them may refer to this object, which
        # then would never be garbage.
        self._busy: set[WorkerConnection] = set()
        self._threads = [
            Thread(
                target=_run_calls,
                args=(self._ready, self._busy, self._lock, self._changed),
                name=f"ParallelConnection {number}",
                daemon=True,
            )
            for number in range(count)
        ]
        self._finalizer = weakref.finalize(
            self, _finalize, self._process, self._busy, self._lock, self._ready, count
        )
        # Python starts no threads at exit, and the finalizer needs them.
        self._finalizer.atexit = False
        for thread in self._threads:
            thread.start()
        self._thread_ids = frozenset(thread.ident for thread in self._threads)

    @property
    def usable(self) -> bool:
        """False in a process that was forked from that of the threads, and when Python ends.

        The threads were stopped at any point then. Locks may stay locked, also those of drivers.
        """
        return os.getpid() == self._process and not sys.is_finalizing()

    @property
    def in_worker_thread(self) -> bool:
        """True in one of these threads, where the garbage collector may call any method.

        The method must not wait for the threads there: it would wait for ever.
        """
        return get_ident() in self._thread_ids

    def submit(self, call: Call) -> None:
        """Run a call after those that were already made on its connection.

        Raises:
            InterfaceError: if the threads are closed.
        """
        self.require_usable()
        with self._lock:
            call.worker.waiting.append(call)
            self._busy.add(call.worker)
            self._ready.put(call.worker)
            # This check comes last, since a signal handler may close the threads at any point.
            if self.closed:
                self.cancel([call])
                raise InterfaceError("the ParallelConnection is closed")

    def cancel(self, calls: Iterable[Call] | None = None) -> None:
        """Discard calls that wait, cancel calls that run, and wait until these are finished.

        In one of these threads, calls that run are not cancelled.

        Args:
            calls: the calls, or None for all calls.
        """
        self.require_usable()
        with self._lock:
            if calls is None:
                calls = [
                    call
                    for worker in self._workers
                    for call in (*worker.waiting, worker.running)
                    if call
                ]
            calls = list(calls)
            for call in calls:
                if call in call.worker.waiting:
                    call.worker.waiting.remove(call)
                    call.discard()
        if not self.in_worker_thread:
            self._cancel_running(calls)

    def _cancel_running(self, calls: Sequence[Call]) -> None:
        """Cancel those calls that run, and wait for them."""
        requests = CancelRequests()
        pause = _FIRST_PAUSE
        abort_at = time.monotonic() + _ABORT_AFTER
        running = True
        while running:
            with self._lock:
                running = self._request_end(calls, requests, abort_at - time.monotonic())
                if running:
                    self._changed.wait(pause)
            requests.log()
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _request_end(
        self, calls: Sequence[Call], requests: CancelRequests, time_left: float
    ) -> bool:
        """Cancel those calls that run, or abort their connections if no time is left.

        Returns:
            False if no call runs any more.
        """
        running = [call for call in calls if call.worker.running is call]
        if not running:
            # A request that is still under way could cancel the next call.
            requests.wait(time_left)
            return False
        for call in running:
            call.cancelled = call.worker.cancelled = True
        workers = [call.worker for call in running]
        # A request is repeated, since the query may not have reached its server yet.
        if time_left > 0:
            requests.send(workers, min(time_left, _LONGEST_PAUSE))
        else:
            for worker in workers:
                requests.abort(worker)
        return True

    def close(self) -> None:
        """Refuse further calls, cancel all calls, end the threads, and wait for their end."""
        self.closed = True
        self.cancel()
        # After a KeyboardInterrupt in here, another call puts more of these than there are threads,
        # which does no harm.
        for _ in self._threads:
            self._ready.put(None)
        self._finalizer.detach()
        if not self.in_worker_thread:
            for thread in self._threads:
                thread.join()

    def require_usable(self) -> None:
        """Raise an InterfaceError if the threads are not usable."""
        if not self.usable:
            raise InterfaceError(
                "a ParallelConnection cannot be used in a forked process, nor when Python ends"
            )


def _run_calls(
    ready: SimpleQueue[WorkerConnection | None],
    busy: set[WorkerConnection],
    lock: RLock,
    changed: Condition,
) -> None:
    """Run calls until the queue returns None."""
    while (worker := ready.get()) is not None:
        with lock:
            if worker.running:
                continue
            if not worker.waiting:
                busy.discard(worker)
                continue
            call = worker.running = worker.waiting.popleft()
        call.run()
        with lock:
            worker.running = None
            if worker.waiting:
                ready.put(worker)
            else:
                busy.discard(worker)
            call.finish()
            changed.notify_all()
        # These names would keep the rows of the call until the next one.
        del worker, call


def _finalize(
    process: int,
    busy: set[WorkerConnection],
    lock: RLock,
    ready: SimpleQueue[WorkerConnection | None],
    count: int,
) -> None:
    """End the threads and cancel what they run, without waiting, unless they are not usable."""
    for _ in range(count):
        ready.put(None)
    if os.getpid() == process and not sys.is_finalizing():
        with lock:
            for worker in busy:
                worker.waiting.clear()
            CancelRequests().send([worker for worker in busy if worker.running], _LONGEST_PAUSE)
