"""The queue: the order of queries, and what becomes of each."""

from __future__ import annotations

from pmpp.core.interrupts import Interrupts
from pmpp.core.manifest import Item
from pmpp.core.queue import Task, WorkQueue
from pmpp.core.statements import SHOWN_LENGTH
from pmpp.errors import PmppError

UNINTERRUPTED = Interrupts(lambda: None)


def item(number: int, *queries: str) -> Item:
    return Item(number, "c", queries, 1.0, None, (), None)


def test_each_query_is_taken_once_in_order() -> None:
    """The queries of an item leave in the order given, apart from those of other items."""
    first, second = item(1, "a", "b"), item(2, "c")
    queue = WorkQueue([first, second], {1: "one", 2: "two"}, UNINTERRUPTED)
    taken = [queue.take(first), queue.take(second), queue.take(first), queue.take(first)]
    assert [task and (task.display_name, task.number, task.sql) for task in taken] == [
        ("one", 1, "a"),
        ("two", 1, "c"),
        ("one", 2, "b"),
        None,
    ]


def test_unfinished_counts_until_the_last_has_ended() -> None:
    """A query that was taken is unfinished until it is said to be done or to have failed."""
    only = item(1, "a", "b")
    queue = WorkQueue([only], {1: "one"}, UNINTERRUPTED)
    a, b = queue.take(only), queue.take(only)
    assert a
    assert b
    assert not queue.has_waiting(only)
    assert queue.unfinished == 2
    queue.finish(a)
    queue.fail(b, PmppError("e"))
    assert queue.unfinished == 0
    assert [task.status for task in queue.tasks] == ["done", "failed"]


def test_failure_is_kept_without_its_traceback() -> None:
    """The queue keeps the fields of a failure for last_run(), and no frames."""
    queue = WorkQueue([item(1, "a")], {1: "one"}, UNINTERRUPTED)
    try:
        raise PmppError("m", sqlstate="22012", detail="d", hint="h")
    except PmppError as ex:
        queue.fail(queue.tasks[0], ex)
    error = queue.tasks[0].error
    assert error
    assert (error.message, error.sqlstate, error.detail, error.hint) == ("m", "22012", "d", "h")
    assert error.__traceback__ is None


def test_abandoned_queries() -> None:
    """What runs when a call ends is cancelled; what waits has not been started."""
    only = item(1, "a", "b", "c")
    queue = WorkQueue([only], {1: "one"}, UNINTERRUPTED)
    first = queue.take(only)
    queue.take(only)
    assert first
    queue.finish(first)
    queue.abandon()
    assert [task.status for task in queue.tasks] == ["done", "cancelled", "not started"]


def test_failure_of_all() -> None:
    """A call has failed as a whole only if no query did anything else."""
    first, second = item(1, "a"), item(2, "b")
    queue = WorkQueue([first, second], {1: "one", 2: "two"}, UNINTERRUPTED)
    queue.fail_waiting(first, PmppError("x", sqlstate="08001", hint="h"))
    assert queue.failure_of_all() is None
    queue.fail_waiting(second, PmppError("y"))
    error = queue.failure_of_all()
    assert error
    assert (error.message, error.sqlstate, error.hint) == (
        "all 2 queries failed, the first with: x",
        "08001",
        "h",
    )


def test_long_queries_are_shortened() -> None:
    """A message shows a long query on one line and shortened."""
    shown = str(Task(item(1), 3, "select\n" + "x" * 1000, "server s"))
    assert shown.startswith("query 3 of item 1 on server s: select xxx")
    assert shown.endswith("x...")
    assert len(shown) < SHOWN_LENGTH + 50
