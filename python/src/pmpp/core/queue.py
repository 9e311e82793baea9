"""The queue of a call: which query a free connection gets next, and what became of each.

Pure bookkeeping, without connections. A query goes through these states:

    not started --take()--> running --finish()--> done --roll_back()--> rolled back
         |                     |-----fail()-----> failed
         |---fail_waiting()---------------------> failed
                               |---abandon()----> cancelled

One that is done leaves that state by fail() or cancel() if its rows cannot be delivered.
The queries of an item leave the queue in the order given, each exactly once, to whichever
connection of that item asks first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property

from ..errors import PmppError
from .interrupts import Interrupts
from .manifest import Item
from .statements import shown

NOT_STARTED = "not started"
RUNNING = "running"
DONE = "done"
ROLLED_BACK = "rolled back"
FAILED = "failed"
CANCELLED = "cancelled"


class Task:
    """One query of an item, where it runs, and what became of it.

    Args:
        item: the item it belongs to.
        number: its place in the item, from 1.
        sql: its text.
        display_name: how messages show its connection.

    Attributes:
        status: one of the states above.
        started, ended: when it did, on the clock of `time.monotonic`.
        pid: the process id of the remote server that runs it.
        rows: how many rows its results have; 0 if it did not get done.
        tag: the command tag of its last result, if it got done.
        error: why it failed.
    """

    def __init__(self, item: Item, number: int, sql: str, display_name: str) -> None:
        self.item = item
        self.number = number
        self.sql = sql
        self.display_name = display_name
        self.status = NOT_STARTED
        self.started: float | None = None
        self.ended: float | None = None
        self.pid: int | None = None
        self.rows = 0
        self.tag: bytes | None = None
        self.error: PmppError | None = None

    def __str__(self) -> str:
        """Name the query as error messages do."""
        return self._name

    @cached_property
    def _name(self) -> str:
        # A query may be long, and may give many notices.
        return f"query {self.number} of {self.item.name} on {self.display_name}: {shown(self.sql)}"


class WorkQueue:
    """All queries of a manifest.

    Args:
        items: the manifest.
        display_names: for each item's number, how messages show its connection.
        interrupts: those of the call.

    Attributes:
        tasks: all queries, in the order of the manifest.
        unfinished: how many queries are not started or running.
        epoch: when the clock of `time.monotonic` was at 0, in seconds since 1970.
    """

    def __init__(
        self, items: Sequence[Item], display_names: Mapping[int, str], interrupts: Interrupts
    ) -> None:
        self._interrupts = interrupts
        self.tasks = [
            Task(item, number, sql, display_names[item.number])
            for item in items
            for number, sql in enumerate(interrupts.over(item.queries), 1)
        ]
        self.unfinished = len(self.tasks)
        self.epoch = time.time() - time.monotonic()
        self._waiting: dict[int, deque[Task]] = {item.number: deque() for item in items}
        for task in interrupts.over(self.tasks):
            self._waiting[task.item.number].append(task)

    def has_waiting(self, item: Item) -> bool:
        """Return True if a query of this item has not been taken yet."""
        return bool(self._waiting[item.number])

    def take(self, item: Item) -> Task | None:
        """Return the next query of this item, or None if all have been taken."""
        waiting = self._waiting[item.number]
        if not waiting:
            return None
        task = waiting.popleft()
        task.status = RUNNING
        task.started = time.monotonic()
        return task

    def finish(self, task: Task) -> None:
        """Count a query as done."""
        self._end(task, DONE)

    def fail(self, task: Task, error: PmppError) -> None:
        """Count a query as failed."""
        self._fail(task, error.shortened())

    def cancel(self, task: Task) -> None:
        """Count a query as cancelled."""
        self._end(task, CANCELLED)

    def fail_waiting(self, item: Item, error: PmppError) -> None:
        """Count all queries of an item that have not been taken as failed."""
        waiting = self._waiting[item.number]
        shortened = error.shortened()
        for _ in self._interrupts.over(range(len(waiting))):
            self._fail(waiting.popleft(), shortened)

    def roll_back(self, task: Task) -> None:
        """Count a query that is done as rolled back. Its rows have been delivered."""
        if task.status == DONE:
            task.status = ROLLED_BACK

    def abandon(self) -> None:
        """Count all queries that are running as cancelled."""
        for task in self.tasks:
            if task.status == RUNNING:
                self.cancel(task)

    def failure_of_all(self) -> PmppError | None:
        """Return an error if there is no query that has not failed."""
        first = self.tasks[0].error
        if first is None or any(task.error is None for task in self.tasks):
            return None
        count = len(self.tasks)
        return PmppError(
            f"all {count} queries failed, the first with: {first.message}"
            if count > 1
            else first.message,
            sqlstate=first.sqlstate,
            detail=first.detail,
            hint=first.hint,
            context=first.context,
            names=first.names,
        )

    def _fail(self, task: Task, error: PmppError) -> None:
        task.error = error
        self._end(task, FAILED)

    def _end(self, task: Task, status: str) -> None:
        if task.status in (NOT_STARTED, RUNNING):
            task.ended = time.monotonic() if task.started is not None else None
            self.unfinished -= 1
        task.status = status
        if status != DONE:
            # Rows that came before are not delivered.
            task.rows, task.tag = 0, None
