"""An interrupt ends every loop over what a caller gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import manifest_entry
from pmpp.core.interrupts import EVERY, Interrupts
from pmpp.core.limits import Limiter, Limits
from pmpp.core.manifest import Item, parse
from pmpp.core.queue import WorkQueue
from pmpp.core.settings import Settings
from pmpp.core.target import Address, Target
from pmpp.errors import PmppError
from pmpp.plpython import foreign_servers, last_run
from pmpp.remote.policy import Caller
from pmpp.scheduler.engine import Engine

MANY = ["select 1"] * EVERY


class Interrupted(Exception):
    """What the server would raise for a cancel."""


def interrupt() -> None:
    raise Interrupted


TARGET = Target("x", {"host": "", "hostaddr": ""}, must_use_password=False)
INTERRUPTED, UNINTERRUPTED = Interrupts(interrupt), Interrupts(lambda: None)


def entry(**fields: object) -> dict[str, object]:
    return manifest_entry(**{"connection": "port=1", "queries": ["q"], **fields})


def items(count: int, queries: list[str]) -> list[Item]:
    return parse([entry(queries=queries)] * count, UNINTERRUPTED)


class Local:
    """A server process whose database has no foreign servers."""

    def select(self, sql: str) -> list[dict[str, Any]]:
        return []


def resolve(given: list[Item], interrupts: Interrupts) -> None:
    local: Any = Local()
    foreign_servers.resolve(
        local, Caller("admin", True, 42, Address("/nowhere", "1")), given, interrupts
    )


def queue_of(given: list[Item], interrupts: Interrupts) -> WorkQueue:
    return WorkQueue(given, {item.number: "" for item in given}, interrupts)


def fail_all(interrupts: Interrupts) -> None:
    (only,) = items(1, MANY)
    queue = queue_of([only], UNINTERRUPTED)
    queue._interrupts = interrupts
    queue.fail_waiting(only, PmppError("x"))


LOOPS: dict[str, Callable[[Interrupts], object]] = {
    "queries": lambda i: parse([entry(queries=MANY)], i),
    "setup commands": lambda i: parse([entry(setup_commands=MANY)], i),
    "items": lambda i: parse([entry()] * EVERY, i),
    "connections": lambda i: resolve(items(EVERY, ["q"]), i),
    "limits": lambda i: Limiter(Limits(), None, dict.fromkeys(range(EVERY), TARGET), i),
    "queue": lambda i: queue_of(items(1, MANY), i),
    "failing": fail_all,
    "last_run": lambda i: last_run.rows(queue_of(items(1, MANY), UNINTERRUPTED), str, i),
    "unfinished": lambda i: last_run.unfinished(queue_of(items(1, MANY), UNINTERRUPTED), i),
}


def test_engine_looks_for_interrupts_in_each_of_its_loops() -> None:
    """The engine checks for interrupts in each of its loops over items and queries."""
    checks = []
    Engine(
        items(EVERY, ["q"]), [TARGET] * EVERY, Settings(), Limits(), lambda: checks.append(1), print
    )
    assert len(checks) == 5


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_every_loop_looks_for_interrupts(loop: Callable[[Interrupts], object]) -> None:
    """Each loop over what a caller gives ends when the call is cancelled."""
    loop(UNINTERRUPTED)
    with pytest.raises(Interrupted):
        loop(INTERRUPTED)
