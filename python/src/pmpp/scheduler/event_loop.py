"""The one loop that drives all connections of a call.

It has no threads. Each connection is worked by a generator that says what it waits for, and
the loop resumes whichever is ready. If chunks with large rows pile up, the loop pauses all but one
of the connections that receive them, so that the rest of the rows stays on the remote servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from selectors import DefaultSelector

from ..core.waiting import EVENT_READ, NOTHING, Steps, Wait
from ..remote.connection import Session

TICK = 0.05  # seconds between two looks for interrupts and passed deadlines

# Bytes received and not delivered, of all connections, above which the loop pauses those that have
# more than LARGE.
HIGH_WATER = 8 * 1024 * 1024
LARGE = 64 * 1024


class Loop:
    """Drives connections.

    Args:
        on_tick: called every TICK seconds; what it raises ends the turn.
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

    def start(self, session: Session, steps: Steps[None]) -> None:
        """Take in a connection and the generator that works it."""
        worker = _Worker(session, steps)
        self._workers.add(worker)
        self._ready.append(worker)

    def sessions(self) -> list[Session]:
        """Return all connections that are at work."""
        return [worker.session for worker in self._workers]

    def close(self) -> None:
        """End all generators and close all connections."""
        for worker in self._workers:
            worker.steps.close()
            worker.session.close()
        self._selector.close()

    def throw(self, session: Session, error: Exception) -> None:
        """Raise an error in the generator that works a connection, where it waits."""
        worker = next(worker for worker in self._workers if worker.session is session)
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
        """Let a connection take its next step, and see to what it then waits for."""
        session = worker.session
        self._received -= session.received
        try:
            wait = step(argument)
        except StopIteration:
            wait = None
            self._workers.discard(worker)
        else:
            if wait is None:
                self._ready.append(worker)
        self._received += session.received
        if worker is self._unpaused and not session.received:
            self._unpaused = None
        if wait is not None and self._must_pause(worker, wait):
            self._paused[worker] = wait
            wait = None
        # libpq may have opened another socket under the same number while it connects
        if wait != worker.watched or session.pgconn is None:
            self._watch(worker, wait)

    def _must_pause(self, worker: _Worker, wait: Wait) -> bool:
        """Return True if a connection is not to receive until the unpaused one has delivered."""
        session = worker.session
        is_large = session.pgconn and session.received > LARGE
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
            received = self._unpaused.session.received
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

    def __init__(self, session: Session, steps: Steps[None]) -> None:
        self.session = session
        self.steps = steps
        self.watched: Wait | None = None

    def is_late(self, now: float) -> bool:
        """Return True if what it waits for should have come by now."""
        wait = self.watched
        return wait is not None and wait.deadline is not None and now > wait.deadline
