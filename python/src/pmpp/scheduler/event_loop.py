"""The one loop that drives all connections of a call.

It has no threads. A generator drives each connection and yields what it waits for. The loop resumes
the generators that are ready. If chunks with large rows pile up, the loop pauses all but one
of the connections that receive them, so that the rest of the rows stays on the remote servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from selectors import DefaultSelector

from ..core.waiting import EVENT_READ, NOTHING, Steps, Wait
from ..remote.connection import Connection

# Seconds between two looks for interrupts and passed deadlines.
TICK = 0.05

# Bytes received and not delivered, of all connections, above which the loop pauses those that have
# more than LARGE.
HIGH_WATER = 8 * 1024 * 1024
LARGE = 64 * 1024


class Loop:
    """Drives connections.

    Args:
        on_tick: called every TICK seconds; an exception that it raises ends the turn.
    """

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self._on_tick = on_tick
        self._next_tick = 0.0
        self._selector = DefaultSelector()
        self._workers: set[_Worker] = set()
        self._ready: list[_Worker] = []
        self._received = 0  # bytes, of all connections
        self._paused: dict[_Worker, Wait] = {}
        # The only connection with more than LARGE that receives, if others are paused.
        self._unpaused: _Worker | None = None
        self._unpaused_had = 0  # bytes, at the last tick

    def start(self, connection: Connection, steps: Steps[None]) -> None:
        """Add a connection and the generator that drives it."""
        worker = _Worker(connection, steps)
        self._workers.add(worker)
        self._ready.append(worker)

    def connections(self) -> list[Connection]:
        """Return all connections that are driven."""
        return [worker.connection for worker in self._workers]

    def close(self) -> None:
        """End all generators and close all connections."""
        for worker in self._workers:
            worker.steps.close()
            worker.connection.close()
        self._selector.close()

    def throw(self, connection: Connection, error: Exception) -> None:
        """Raise an error in the generator that drives a connection, where it waits."""
        worker = next(worker for worker in self._workers if worker.connection is connection)
        self._paused.pop(worker, None)
        self._ready = [other for other in self._ready if other is not worker]
        self._resume(worker, worker.steps.throw, error)

    def turn(self, *, wait: bool = True) -> None:
        """Wait until something is ready, at most until the next tick, and resume all of it."""
        ready, self._ready = self._ready, []
        timeout = max(0.0, self._next_tick - time.monotonic()) if wait and not ready else 0
        events = self._selector.select(timeout)
        for worker in ready:
            self._resume(worker, worker.steps.send, None)
            self._tick()
        for key, mask in events:
            self._resume(key.data, key.data.steps.send, mask)
            self._tick()
        self._tick()
        self._unpause()

    def _tick(self) -> None:
        """If it is time, call `on_tick` and look for deadlines that have passed."""
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._on_tick()
            self._rotate()
            for worker in [w for w in self._workers if w.is_late(now)]:
                self._resume(worker, worker.steps.throw, TimeoutError())

    def _resume(self, worker: _Worker, step: Callable[..., Wait | None], argument: object) -> None:
        """Resume a generator, and watch what it then waits for."""
        connection = worker.connection
        self._received -= connection.received
        try:
            wait = step(argument)
        except StopIteration:
            wait = None
            self._workers.discard(worker)
        else:
            if wait is None:
                self._ready.append(worker)
        self._received += connection.received
        if worker is self._unpaused and not connection.received:
            self._unpaused = None
        if wait is not None and self._must_pause(worker, wait):
            self._paused[worker] = wait
            wait = None
        # libpq may have opened another socket with the same number while it connects.
        if wait != worker.watched or connection.pgconn is None:
            self._watch(worker, wait)

    def _must_pause(self, worker: _Worker, wait: Wait) -> bool:
        """Return True if a connection is not to receive until the unpaused one has delivered."""
        connection = worker.connection
        is_large = connection.pgconn and connection.received > LARGE
        if not (self._received > HIGH_WATER and wait.events == EVENT_READ and is_large):
            return False
        if self._unpaused is None:
            self._unpaused = worker
            self._unpaused_had = -1
        return worker is not self._unpaused

    def _rotate(self) -> None:
        """Let another connection receive if the unpaused one got nothing since the last tick.

        Its query may be waiting for a lock that the query of a paused connection holds.
        """
        if self._unpaused is not None:
            received = self._unpaused.connection.received
            if received == self._unpaused_had:
                self._unpaused = None
            self._unpaused_had = received

    def _unpause(self) -> None:
        """Once the unpaused connection has delivered, let the next one receive, or all of them."""
        while self._unpaused is None and self._paused:
            worker = next(iter(self._paused))
            if self._received > HIGH_WATER:
                self._unpaused = worker
                self._unpaused_had = -1
            self._watch(worker, self._paused.pop(worker))

    def _watch(self, worker: _Worker, wait: Wait | None) -> None:
        if worker.watched is not None and worker.watched.fd != NOTHING:
            self._selector.unregister(worker.watched.fd)
        if wait is not None and wait.fd != NOTHING:
            self._selector.register(wait.fd, wait.events, worker)
        worker.watched = wait


class _Worker:
    """A connection in the loop, and what the loop watches for it."""

    def __init__(self, connection: Connection, steps: Steps[None]) -> None:
        self.connection = connection
        self.steps = steps
        self.watched: Wait | None = None

    def is_late(self, now: float) -> bool:
        """Return True if what it waits for should have come by now."""
        wait = self.watched
        return wait is not None and wait.deadline is not None and now > wait.deadline
