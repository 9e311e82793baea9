"""The sessions of the local server and the locks they wait for, to find deadlocks with.

While a call runs, a worker may have locked any table, also a catalog. These statements read shared
memory only. What else they need is in PostgreSQL's caches once they have run, so `deadlocks` runs
each of them once before the call starts. A condition that is false then keeps their functions from
being called.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..remote.policy import Caller
from ..scheduler.deadlock import Deadlocks, Named, Waiting
from .local_backend import LocalBackend

_BLOCKERS = """
    select p.pid,
           pg_catalog.pg_blocking_pids(p.pid) as for_lock,
           pg_catalog.pg_safe_snapshot_blocking_pids(p.pid) as for_snapshot
      from pg_catalog.unnest($1) p(pid)
"""

# In a transaction, PostgreSQL returns what it returned first, unless that is cleared.
_FORGET_SESSIONS = """
    select pg_catalog.pg_stat_clear_snapshot()
     where pg_catalog.pg_backend_pid() operator(pg_catalog.<>) $1
"""

_SESSIONS = """
    select a.pid, a.application_name as name, a.state operator(pg_catalog.=) 'active' as is_active
      from pg_catalog.pg_stat_get_activity(null) a
     where pg_catalog.pg_backend_pid() operator(pg_catalog.<>) $1
       and a.application_name is not null
"""

_WAITING = """
    select l.mode, l.locktype as type, l.relation::pg_catalog.int8
      from pg_catalog.pg_lock_status() l
     where pg_catalog.pg_backend_pid() operator(pg_catalog.<>) $1
       and l.pid operator(pg_catalog.=) $2
       and not l.granted
     limit 1
"""

_DEADLOCK_TIMEOUT = """
    select extract(
               epoch from pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval
           )::pg_catalog.float8 as seconds
"""

# As the first parameter: no process has this id, so the condition is true.
_NOBODY = ("pg_catalog.int4", 0)


class LocalSessions:
    """What PostgreSQL knows of its sessions, see `scheduler.deadlock.Sessions`."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend

    def blockers(self, pids: Sequence[int]) -> dict[int, list[int]]:
        """Return the processes that each of these waits for, of those that wait for any."""
        rows = self._backend.select(_BLOCKERS, ("pg_catalog.int4[]", list(pids)))
        blockers = {row["pid"]: row["for_lock"] + row["for_snapshot"] for row in rows}
        return {pid: others for pid, others in blockers.items() if others}

    def named(self) -> dict[int, Named]:
        """Return the sessions that the caller may see in full, by their process ids."""
        self._backend.select(_FORGET_SESSIONS, _NOBODY)
        rows = self._backend.select(_SESSIONS, _NOBODY)
        return {row["pid"]: Named(row["name"], bool(row["is_active"])) for row in rows}

    def waiting(self, pid: int) -> Waiting | None:
        """Return the lock that a process waits for."""
        for row in self._backend.select(_WAITING, _NOBODY, ("pg_catalog.int4", pid)):
            return Waiting(row["mode"], row["type"], row["relation"])
        return None


def deadlocks(backend: LocalBackend, caller: Caller) -> Deadlocks:
    """Return what finds workers that wait for the caller."""
    sessions = LocalSessions(backend)
    sessions.blockers([caller.pid])
    own = ("pg_catalog.int4", caller.pid)
    backend.select(_FORGET_SESSIONS, own)
    backend.select(_SESSIONS, own)
    backend.select(_WAITING, own, own)
    (row,) = backend.select(_DEADLOCK_TIMEOUT)
    return Deadlocks(sessions, caller.pid, int(caller.server.port), row["seconds"])
