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
from .manifest import Item, Task
from .session import Session, Wait, Waiting
from .workqueue import WorkQueue

TICK = 0.05  # seconds between two looks for interrupts and passed deadlines


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
        check_interrupts: called every TICK seconds; what it raises ends the run.
        on_notice: called with each notice of a remote.
    """

    def __init__(
        self,
        items: Sequence[Item],
        targets: Sequence[Target],
        check_interrupts: Callable[[], None],
        on_notice: Callable[[Notice], None],
    ) -> None:
        self._items = items
        self._targets = {item.number: target for item, target in zip(items, targets, strict=True)}
        self._queue = WorkQueue(items, {n: target.label for n, target in self._targets.items()})
        self._check_interrupts = check_interrupts
        self._on_notice = on_notice
        self._notices: deque[Notice] = deque()
        self._delivered: deque[Delivery] = deque()
        self._workers: set[_Worker] = set()
        self._ready: list[_Worker] = []
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
            cancel_all([w.session.pgconn for w in self._workers if w.session.is_running])
            raise
        finally:
            for worker in self._workers:
                worker.session.close()
            self._selector.close()

    def _work(self, item: Item, session: Session, is_first: bool) -> Waiting:
        """Work one connection, from connecting until no query of its item is left."""
        yield from session.connect()
        if is_first and item.asks_cpus:
            cpus = yield from session.ask_cpus()
            self._open(item, item.worker_count(cpus) - 1, is_first=False)
        if not self._queue.has_waiting(item):
            return
        for number, command in enumerate(item.setup_commands, 1):
            yield from session.setup(number, command)
        while task := self._queue.take(item):
            yield from session.query(task, self._deliver_to(task, session.encoding))
            self._queue.finish()

    def _deliver_to(self, task: Task, encoding: str) -> Callable[[abc.PGresult], None]:
        return lambda result: self._delivered.append(Delivery(task, result, encoding))

    def _open(self, item: Item, count: int, *, is_first: bool = True) -> None:
        """Start that many connections of an item, all at once."""
        for _ in range(count):
            session = Session(
                f"item {item.number}", self._targets[item.number], self._notices.append
            )
            worker = _Worker(session, self._work(item, session, is_first))
            self._workers.add(worker)
            self._ready.append(worker)

    def _turn(self) -> None:
        """Wait until something is ready, at most until the next tick, and resume all of it."""
        ready, self._ready = self._ready, []
        wait = 0 if ready else max(0.0, self._next_tick - time.monotonic())
        events = self._selector.select(wait)
        for worker in ready:
            self._resume(worker, worker.steps.send, None)
        for key, mask in events:
            self._resume(key.data, key.data.steps.send, mask)
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._check_interrupts()
            for worker in [w for w in self._workers if w.session.is_late(now)]:
                self._resume(worker, worker.steps.throw, TimeoutError())

    def _resume(self, worker: _Worker, step: Callable[..., Wait], argument: object) -> None:
        try:
            wait = step(argument)
        except StopIteration:
            self._watch(worker, None)
            worker.session.close()
            self._workers.discard(worker)
            return
        # libpq may have opened another socket under the same number while it connects
        if wait != worker.watched or not worker.session.is_connected:
            self._watch(worker, wait)
        if wait is None:
            self._ready.append(worker)

    def _watch(self, worker: _Worker, wait: Wait) -> None:
        if worker.watched is not None:
            self._selector.unregister(worker.watched[0])
        if wait is not None:
            self._selector.register(*wait, worker)
        worker.watched = wait


class _Worker:
    """A connection in the loop, and what the loop watches for it."""

    def __init__(self, session: Session, steps: Waiting) -> None:
        self.session = session
        self.steps = steps
        self.watched: Wait = None
