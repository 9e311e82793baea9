"""Reports of how far a call has come."""

from __future__ import annotations

import time
from collections import Counter

from ..remote.diagnostics import Notice
from .queue import DONE, FAILED, RUNNING, WorkQueue


class Progress:
    """Tells now and then how far a call has come.

    Args:
        queue: the queries.
        interval: how many seconds to let pass between two reports, 0 for none.
    """

    def __init__(self, queue: WorkQueue, interval: float) -> None:
        self._queue = queue
        self._interval = interval
        self._began = self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return True if it is time for a report."""
        return self._interval > 0 and time.monotonic() >= self._last + self._interval

    def report(self, connections: int) -> Notice:
        """Return a report.

        Args:
            connections: how many are open.
        """
        self._last = time.monotonic()
        tasks = self._queue.tasks
        count = Counter(task.status for task in tasks)
        return Notice(
            "NOTICE",
            f"queries: {count[DONE]} of {len(tasks)} done, {count[RUNNING]} running,"
            f" {count[FAILED]} failed; rows: {sum(task.rows for task in tasks)};"
            f" connections: {connections}; {self._last - self._began:.1f} s",
        )
