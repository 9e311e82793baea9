"""What became of the queries of the last call of a session, as rows for SQL.

They are for the role that made the call, until DISCARD ALL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

from ..core.interrupts import Interrupts
from ..core.queue import DONE, Task, WorkQueue
from .local_backend import LocalBackend

Row = tuple[object, ...]

# DISCARD ALL, and what poolers send in its place, release the advisory locks of a session. Nothing
# else does, not even a rollback. So a lock shows if what a call has left is still for its client.
_OWNER = """
    select r.oid as role, pg_catalog.pg_try_advisory_lock_shared($1, $2) as is_locked
      from pg_catalog.pg_roles r
     where r.rolname operator(pg_catalog.=) current_user
"""

_IS_OWNER = """
    select exists (
        select from pg_catalog.pg_roles r
         where r.rolname operator(pg_catalog.=) current_user and r.oid operator(pg_catalog.=) $3
    ) and exists (
        select from pg_catalog.pg_locks l
         where l.locktype operator(pg_catalog.=) 'advisory'
           and l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()
           and l.classid operator(pg_catalog.=) $1::pg_catalog.int8
           and l.objid operator(pg_catalog.=) $2::pg_catalog.int8
           and l.objsubid operator(pg_catalog.=) 2
    ) as is_owner
"""

LOCK_CLASS = 0x706D7070  # "pmpp"


class Owner(NamedTuple):
    """Who may see what a call leaves in the session: a role, until the lock is released."""

    role: int
    lock: int


def _random() -> int:
    return int.from_bytes(os.urandom(4)) >> 1


_lock = _random()


def _lock_key(lock: int) -> list[tuple[str, object]]:
    return [("pg_catalog.int4", LOCK_CLASS), ("pg_catalog.int4", lock)]


def owner(backend: LocalBackend) -> Owner:
    """Return the current user as owner of what a call leaves in the session.

    Others cannot guess the lock. Who sees it in pg_locks can take it, so pmpp does not wait.
    """
    global _lock
    while True:
        (row,) = backend.select(_OWNER, *_lock_key(_lock))
        if row["is_locked"]:
            return Owner(row["role"], _lock)
        _lock = _random()


def is_owner(backend: LocalBackend, owner: Owner) -> bool:
    """Return True if the current user owns what a call has left in the session."""
    role = "pg_catalog.oid", owner.role
    (row,) = backend.select(_IS_OWNER, *_lock_key(owner.lock), role)
    return bool(row["is_owner"])


def rows(queue: WorkQueue, fit: Callable[[str], str], interrupts: Interrupts) -> list[Row]:
    """Return a row for every query of a call, with the columns of the SQL function last_run().

    Args:
        queue: the queries.
        fit: makes a remote server's text one that the local database can have.
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
        task.display_name,
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
