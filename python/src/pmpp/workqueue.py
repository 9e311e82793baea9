"""The queue of a call: which query a free connection gets next.

Pure bookkeeping, without connections. A query goes through these states:

    waiting --take()--> running --finish()--> done

The queries of an item leave the queue in the order given, each exactly once, to whichever
connection of that item asks first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from .manifest import Item, Task


class WorkQueue:
    """All queries of a manifest.

    Args:
        items: the manifest.
        labels: for each item's number, how messages show its connection.
    """

    def __init__(self, items: Sequence[Item], labels: Mapping[int, str]) -> None:
        self._waiting = {
            item.number: deque(
                Task(item, number, sql, labels[item.number])
                for number, sql in enumerate(item.queries, 1)
            )
            for item in items
        }
        self.unfinished = sum(map(len, self._waiting.values()))

    def has_waiting(self, item: Item) -> bool:
        """Return True if a query of this item has not been taken yet."""
        return bool(self._waiting[item.number])

    def take(self, item: Item) -> Task | None:
        """Return the next query of this item, or None if all have been taken."""
        waiting = self._waiting[item.number]
        return waiting.popleft() if waiting else None

    def finish(self) -> None:
        """Count one of the queries that were taken as done."""
        self.unfinished -= 1
