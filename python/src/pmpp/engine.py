"""The one loop that drives all connections of a call.

There are no threads. Each connection is worked by a generator (`Engine._work`) that says what
it waits for, and the loop resumes whichever is ready. A connection gets its next query before
the results of the last one are converted, so that remotes do not wait for us. Nothing is read
while the consumer is busy with what was delivered: what it has not asked for stays remote.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from selectors import DefaultSelector
from typing import NamedTuple

from psycopg.pq import abc

from .cancel import cancel_all
from .conninfo import Target
from .diagnostics import Notice
from .errors import ConnectError
from .manifest import Item, Task
from .session import Session, Settings
from .waiting import EVENT_READ, Steps, Wait
from .workqueue import WorkQueue

TICK = 0.05  # seconds between two looks for interrupts and passed deadlines

# Bytes of incomplete results from which on only one of them is received at a time. libpq
# before 17 hands over a result only when it is complete, and takes two or three times as much.
CROWDED = 8 * 1024 * 1024


class Delivery(NamedTuple):
    """A result of a query: rows, or a command tag.

    Attributes:
        task: the query.
        result: what it gave.
        encoding: the Python codec of the text in the result.
    """

    task: Task
    result: abc.PGresult
    encoding: str


class Engine:
    """Runs all queries of a manifest.

    Args:
        items: the manifest.
        targets: where the connections of each item lead, in the same order.
        settings: those of the local server.
        check_interrupts: called every TICK seconds; what it raises ends the run.
        on_notice: called with each notice of a remote.
    """

    def __init__(
        self,
        items: Sequence[Item],
        targets: Sequence[Target],
        settings: Settings,
        check_interrupts: Callable[[], None],
        on_notice: Callable[[Notice], None],
    ) -> None:
        self._items = items
        self._targets = {item.number: target for item, target in zip(items, targets, strict=True)}
        self._queue = WorkQueue(items, {n: target.label for n, target in self._targets.items()})
        self._settings = settings
        self._check_interrupts = check_interrupts
        self._on_notice = on_notice
        self._crews = {item.number: _Crew() for item in items}
        self._workers: set[_Worker] = set()
        self._ready: list[_Worker] = []
        self._parked: dict[_Worker, Wait] = {}
        self._favourite: _Worker | None = None
        self._received = 0
        self._notices: deque[Notice] = deque()
        self._delivered: deque[Delivery] = deque()
        self._next_tick = 0.0

    def run(self) -> Iterator[Delivery]:
        """Run the queries and yield their results as they come.

        When it ends, however it ends, nothing runs any more and every connection is closed.

        Raises:
            PmppError: when a connection or a query fails; all others are cancelled.
        """
        self._selector = DefaultSelector()
        try:
            for item in self._items:
                self._open(item, 1 if item.asks_cpus else item.worker_count(cpus=1))
            while self._queue.unfinished:
                self._turn()
                while self._notices:
                    self._on_notice(self._notices.popleft())
                while self._delivered:
                    yield self._delivered.popleft()
        except BaseException:
            sessions = [worker.session for worker in self._workers]
            cancel_all([s.pgconn for s in sessions if s.pgconn is not None and s.is_running])
            raise
        finally:
            for worker in self._workers:
                worker.steps.close()
                worker.session.close()
            self._selector.close()

    def _open(self, item: Item, count: int, *, is_first: bool = True) -> None:
        """Start that many connections of an item, all at once."""
        self._crews[item.number].connecting += count
        target = self._targets[item.number]
        for _ in range(count):
            session = Session(f"item {item.number}", target, self._settings, self._notices.append)
            worker = _Worker(session, self._work(item, session, is_first))
            self._workers.add(worker)
            self._ready.append(worker)

    def _work(self, item: Item, session: Session, is_first: bool) -> Steps[None]:
        """Work one connection, from connecting until no query of its item is left."""
        crew = self._crews[item.number]
        try:
            yield from session.connect()
            crew.connected += 1
        except ConnectError as ex:
            crew.failures.append(ex)
        crew.connecting -= 1
        self._settle(item, crew)
        if session.pgconn is None:
            return
        if is_first and item.asks_cpus:
            cpus = yield from session.ask_cpus()
            self._open(item, item.worker_count(cpus) - 1, is_first=False)
        if not self._queue.has_waiting(item):
            return
        for number, command in enumerate(item.setup_commands, 1):
            yield from session.setup(number, command)
        while task := self._queue.take(item):
            yield from session.query(task, self._deliver_to(task, session.encoding()))
            self._queue.finish()

    def _settle(self, item: Item, crew: _Crew) -> None:
        """See if there are connections enough to go on, when the last of an item is decided."""
        if crew.connecting or not crew.failures:
            return
        if not crew.connected:
            raise crew.failures[0]
        wanted = crew.connected + len(crew.failures)
        message = f"item {item.number}: going on with {crew.connected} of {wanted} connections"
        self._notices.append(Notice("WARNING", message, crew.failures[0].detail, None))
        crew.failures = []

    def _deliver_to(self, task: Task, encoding: str) -> Callable[[abc.PGresult], None]:
        return lambda result: self._delivered.append(Delivery(task, result, encoding))

    def _turn(self) -> None:
        """Wait until something is ready, at most until the next tick, and resume all of it."""
        ready, self._ready = self._ready, []
        wait = 0 if ready else max(0.0, self._next_tick - time.monotonic())
        events = self._selector.select(wait)
        for worker in ready:
            self._resume(worker, worker.steps.send, None)
            self._tick()
        for key, mask in events:
            self._resume(key.data, key.data.steps.send, mask)
            self._tick()
        self._tick()
        self._unpark()

    def _tick(self) -> None:
        """If it is time, look for interrupts and for deadlines that have passed."""
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._check_interrupts()
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
            session.close()
            self._workers.discard(worker)
        else:
            if wait is None:
                self._ready.append(worker)
        self._received += session.received
        if worker is self._favourite and not session.received:
            self._favourite = None
        if wait is not None and self._must_park(worker, wait):
            self._parked[worker] = wait
            wait = None
        # libpq may have opened another socket under the same number while it connects
        if wait != worker.watched or session.pgconn is None:
            self._watch(worker, wait)

    def _must_park(self, worker: _Worker, wait: Wait) -> bool:
        """Return True if a connection is not to receive for now, since results pile up."""
        if not (self._received > CROWDED and wait.events == EVENT_READ and worker.session.pgconn):
            return False
        if self._favourite is None:
            self._favourite = worker
        return worker is not self._favourite

    def _unpark(self) -> None:
        """Let all connections receive again when the one that was preferred is done."""
        if self._favourite is None and self._parked:
            parked, self._parked = self._parked, {}
            for worker, wait in parked.items():
                self._watch(worker, wait)

    def _watch(self, worker: _Worker, wait: Wait | None) -> None:
        if worker.watched is not None:
            self._selector.unregister(worker.watched.fd)
        if wait is not None:
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


class _Crew:
    """The connections of an item: how many are being made, were made, and could not be."""

    def __init__(self) -> None:
        self.connecting = 0
        self.connected = 0
        self.failures: list[ConnectError] = []
