"""The order in which queries are handed out."""

from __future__ import annotations

from pmpp.manifest import Item
from pmpp.workqueue import WorkQueue


def item(number: int, *queries: str) -> Item:
    return Item(number, "c", queries, 1.0, None, (), None)


def test_each_query_is_taken_once_in_order() -> None:
    """The queries of an item leave in the order given, apart from those of other items."""
    first, second = item(1, "a", "b"), item(2, "c")
    queue = WorkQueue([first, second], {1: "one", 2: "two"})
    taken = [queue.take(first), queue.take(second), queue.take(first), queue.take(first)]
    assert [task and (task.label, task.number, task.sql) for task in taken] == [
        ("one", 1, "a"),
        ("two", 1, "c"),
        ("one", 2, "b"),
        None,
    ]


def test_unfinished_counts_until_the_last_is_done() -> None:
    """A query that was taken is unfinished until it is said to be done."""
    only = item(1, "a", "b")
    queue = WorkQueue([only], {1: "one"})
    queue.take(only)
    queue.take(only)
    assert not queue.has_waiting(only)
    assert queue.unfinished == 2
    queue.finish()
    queue.finish()
    assert queue.unfinished == 0
