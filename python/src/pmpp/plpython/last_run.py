"""What became of the queries of a call, as rows for SQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

from ..core.interrupts import Interrupts
from ..core.queue import DONE, Task, WorkQueue

Row = tuple[object, ...]


def last_run(queue: WorkQueue, fit: Callable[[str], str], interrupts: Interrupts) -> list[Row]:
    """Return a row for every query of a call, with the columns of the SQL function last_run().

    Args:
        queue: the queries.
        fit: makes a remote's text one that the local database can have.
        interrupts: those of the caller.
    """
    return [_row(task, queue.epoch, fit) for task in interrupts.over(queue.tasks)]


def unfinished(queue: WorkQueue, interrupts: Interrupts) -> list[Row]:
    """Return a manifest of the queries that are not done, as a query_manifest[]."""
    left: dict[int, list[Task]] = {}
    for task in interrupts.over(queue.tasks):
        if task.status != DONE:
            left.setdefault(task.item.number, []).append(task)
    return [
        (
            tasks[0].item.connection,
            [task.sql for task in tasks],
            tasks[0].item.cpu_multiplier,
            tasks[0].item.num_workers,
            list(tasks[0].item.setup_commands) or None,
            tasks[0].item.result_format,
        )
        for tasks in left.values()
    ]


def _row(task: Task, epoch: float, fit: Callable[[str], str]) -> Row:
    started = duration = None
    if task.started is not None:
        started = datetime.fromtimestamp(epoch + task.started, timezone.utc).isoformat()
        ended = time.monotonic() if task.ended is None else task.ended
        duration = f"{ended - task.started:.6f} s"
    error = task.error
    return (
        task.item.number,
        task.number,
        task.label,
        task.sql,
        task.status,
        error and error.sqlstate,
        error and fit(error.message),
        error and error.detail and fit(error.detail),
        error and error.hint and fit(error.hint),
        error and error.context and fit(error.context),
        task.rows,
        task.tag and task.tag.decode(errors="replace"),
        started,
        duration,
        task.pid,
    )
