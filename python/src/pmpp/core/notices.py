"""Notices and warnings: what a call tells its caller besides rows and errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import PmppError
from .queue import DONE, FAILED, RUNNING, WorkQueue


class Notice(NamedTuple):
    """A notice or warning, of a remote server or of pmpp itself.

    Attributes:
        severity: WARNING, NOTICE, INFO, LOG or DEBUG, in English.
        sqlstate: None for the one that PostgreSQL gives to notices or warnings.
        names: the database objects that it names, by some of `errors.NAMES`.
    """

    severity: str
    message: str
    detail: str | None = None
    hint: str | None = None
    sqlstate: str | None = None
    names: Mapping[str, str] = {}


def warning(error: PmppError) -> Notice:
    """Return a warning with the fields of an error."""
    return Notice(
        "WARNING", error.message, error.full_detail, error.hint, error.sqlstate, error.names
    )


class Progress:
    """Reports now and then how far a call is.

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
