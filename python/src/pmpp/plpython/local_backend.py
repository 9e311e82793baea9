"""What pmpp asks the local server, through the `plpy` module that PL/Python provides.

Every name and operator in these statements is qualified: they run under the caller's
search_path, since that is what the values of a call are converted under.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import errors
from ..core import settings
from ..core.limits import Limits
from ..core.settings import HINTS, Settings
from ..errors import PmppError
from ..remote.conninfo import Address, Caller, ForeignServer
from ..remote.results import ColumnCast, Values
from ..scheduler.deadlock import Deadlocks, Named, Waiting

_LOCK_FILE = Path("postmaster.pid")
# At which address a server that listens at all of them is called.
_TO_ITSELF = {"*": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}

_CALLER = """
    select current_user::pg_catalog.text as name,
           r.rolsuper as is_superuser,
           pg_catalog.pg_backend_pid() as pid
      from pg_catalog.pg_roles r
     where r.rolname operator(pg_catalog.=) current_user
"""

_OWN_SETTINGS = ", ".join(f"pg_catalog.current_setting('pmpp.{n}', true) as {n}" for n in HINTS)
_SETTINGS = f"select pg_catalog.current_setting('lc_monetary') as lc_monetary, {_OWN_SETTINGS}"

_LIMITS = """
    select l.connection, l.max_workers,
           exists (
               select from pg_catalog.pg_foreign_server s
                 join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) s.srvowner
                where s.srvname::pg_catalog.text operator(pg_catalog.=) l.connection
                  and r.rolsuper
           ) as is_server
      from pmpp.connection_limit l
"""

_SETTING = "select pg_catalog.current_setting($1) as value"
_SET = "select pg_catalog.set_config($1, $2, true)"

_WORK_MEM = "select pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) as bytes"

_SIZE = "select pg_catalog.pg_size_bytes($1) as value"

_SECONDS = "select extract(epoch from $1::pg_catalog.interval)::pg_catalog.float8 as value"

# Asked first in each call: few connections are servers, and the joins below take 0.1 ms to plan.
# All names: a connection of the call as a parameter could be a misplaced password, and be logged.
_SERVER_NAMES = "select s.srvname::pg_catalog.text as name from pg_catalog.pg_foreign_server s"

# Only superusers can create functions in C, so nobody else's wrapper passes for postgres_fdw.
_FOREIGN_SERVER = """
    select w.fdwoptions as wrapper_options,
           s.srvoptions as server_options,
           pg_catalog.has_server_privilege(s.oid, 'usage') as has_usage,
           coalesce(l.lanname operator(pg_catalog.=) 'c'
                    and v.prosrc operator(pg_catalog.=) 'postgres_fdw_validator', false)
               as is_postgres_fdw
      from pg_catalog.pg_foreign_server s
      join pg_catalog.pg_foreign_data_wrapper w on w.oid operator(pg_catalog.=) s.srvfdw
      left join pg_catalog.pg_proc v on v.oid operator(pg_catalog.=) w.fdwvalidator
      left join pg_catalog.pg_language l on l.oid operator(pg_catalog.=) v.prolang
     where s.srvname operator(pg_catalog.=) $1
"""

_USER_MAPPING = """
    select m.umoptions as options
      from pg_catalog.pg_user_mapping m
      join pg_catalog.pg_foreign_server s on s.oid operator(pg_catalog.=) m.umserver
      join pg_catalog.pg_roles r on r.rolname operator(pg_catalog.=) $1
     where s.srvname operator(pg_catalog.=) $2
       and m.umuser operator(pg_catalog.=) any (array[r.oid, 0::pg_catalog.oid])
       and pg_catalog.has_server_privilege(r.oid, s.oid, 'usage')
     order by m.umuser desc
     limit 1
"""

_READ_JSON = "select pmpp._read_json() as key"

# While a call runs, a worker may have locked any table, also a catalog. The following statements
# read shared memory only. What else they need is in PostgreSQL's caches once they have run, and a
# condition that is false when they first run keeps their functions from being called.
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

_CATEGORIES = """
    select pg_catalog.bool_and(t.typcategory operator(pg_catalog.=) 'S') as all_strings
      from pg_catalog.pg_type t
     where t.oid operator(pg_catalog.=) any ($1)
"""

# The assignment cast from one type to another that is more than reading the text again.
_ASSIGNMENT_CAST = """
    with recursive target as (
        select t.oid, t.typtype, t.typbasetype
          from pg_catalog.pg_type t where t.oid operator(pg_catalog.=) $2
        union all
        select t.oid, t.typtype, t.typbasetype
          from target d join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) d.typbasetype
         where d.typtype operator(pg_catalog.=) 'd'
    )
    select pg_catalog.format_type(c.castsource, -1) as source,
           pg_catalog.format_type(c.casttarget, -1) as target
      from target t
      join pg_catalog.pg_cast c on c.casttarget operator(pg_catalog.=) t.oid
     where t.typtype operator(pg_catalog.<>) 'd'
       and c.castsource operator(pg_catalog.=) $1
       and c.castcontext operator(pg_catalog.=) any (array['a', 'i']::pg_catalog."char"[])
       and c.castmethod operator(pg_catalog.=) 'f'
"""

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

_plans: dict[tuple[str, ...], Any] = {}


class Owner(NamedTuple):
    """Who may see what a call leaves in the session: a role, until the lock is released."""

    role: int
    lock: int


class Catalog:
    """The local server, as the current user sees it.

    Args:
        plpy: the module of that name.
    """

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy

    def caller(self) -> Caller:
        """Return who calls: the current user, not the one who logged in."""
        (row,) = self._select(_CALLER)
        return Caller(row["name"], row["is_superuser"], row["pid"], local_address())

    def owner(self) -> Owner:
        """Return the current user as owner of what a call leaves in the session.

        Others cannot guess the lock. Who sees it in pg_locks can take it, so pmpp does not wait.
        """
        global _lock
        while True:
            (row,) = self._select(_OWNER, *_lock_key(_lock))
            if row["is_locked"]:
                return Owner(row["role"], _lock)
            _lock = _random()

    def is_owner(self, owner: Owner) -> bool:
        """Return True if the current user owns what a call has left in the session."""
        role = "pg_catalog.oid", owner.role
        (row,) = self._select(_IS_OWNER, *_lock_key(owner.lock), role)
        return bool(row["is_owner"])

    def settings(self) -> Settings:
        """Return the settings of a call.

        Raises:
            PmppError: naming a setting of pmpp whose value cannot be used.
        """
        (row,) = self._select(_SETTINGS)
        return settings.parse(
            row["lc_monetary"],
            row,
            bytes_of=lambda text: int(self._convert(_SIZE, text)),
            seconds_of=lambda text: self._convert(_SECONDS, text),
        )

    def limits(self) -> Limits:
        """Return the limits of servers and hosts."""
        rows = self._select(_LIMITS)
        return Limits(
            {row["connection"]: row["max_workers"] for row in rows},
            frozenset(row["connection"] for row in rows if row["is_server"]),
        )

    def set_config(self, name: str, value: str) -> str:
        """Set a setting until the transaction ends, and return what it was."""
        (row,) = self._select(_SETTING, ("pg_catalog.text", name))
        self._select(_SET, ("pg_catalog.text", name), ("pg_catalog.text", value))
        return str(row["value"])

    def work_mem(self) -> int:
        """Return work_mem in bytes."""
        (row,) = self._select(_WORK_MEM)
        return int(row["bytes"])

    def foreign_servers(self, names: Set[str]) -> dict[str, ForeignServer]:
        """Return those of the names that are foreign servers."""
        servers = {row["name"] for row in self._select(_SERVER_NAMES)} if names else set()
        return {name: self._foreign_server(name) for name in names & servers}

    def _foreign_server(self, name: str) -> ForeignServer:
        (row,) = self._select(_FOREIGN_SERVER, ("pg_catalog.name", name))
        return ForeignServer(
            name=name,
            options={**_options(row["wrapper_options"]), **_options(row["server_options"])},
            has_usage=row["has_usage"],
            is_postgres_fdw=row["is_postgres_fdw"],
        )

    def user_mapping(self, role: str, server: str) -> dict[str, str] | None:
        """Return the options of the mapping that applies to a role, its own or PUBLIC's.

        None if there is none, or if the role has no USAGE on the server. Only superusers can
        read this table: it is called with their rights, see `targets`.
        """
        arguments = ("pg_catalog.name", role), ("pg_catalog.name", server)
        for row in self._select(_USER_MAPPING, *arguments):
            return _options(row["options"])
        return None

    def deadlocks(self, caller: Caller) -> Deadlocks:
        """Return what finds workers that wait for the caller."""
        self.blockers([caller.pid])
        never = ("pg_catalog.int4", caller.pid)
        self._select(_FORGET_SESSIONS, never)
        self._select(_SESSIONS, never)
        self._select(_WAITING, never, never)
        (row,) = self._select(_DEADLOCK_TIMEOUT)
        return Deadlocks(self, caller.pid, int(caller.server.port), row["seconds"])

    def blockers(self, pids: Sequence[int]) -> dict[int, list[int]]:
        """Return the processes that each of these waits for, of those that wait for any."""
        rows = self._select(_BLOCKERS, ("pg_catalog.int4[]", list(pids)))
        blockers = {row["pid"]: row["for_lock"] + row["for_snapshot"] for row in rows}
        return {pid: others for pid, others in blockers.items() if others}

    def named(self) -> dict[int, Named]:
        """Return the sessions that the caller may see in full, by their process ids."""
        always = ("pg_catalog.int4", 0)
        self._select(_FORGET_SESSIONS, always)
        rows = self._select(_SESSIONS, always)
        return {row["pid"]: Named(row["name"], bool(row["is_active"])) for row in rows}

    def waiting(self, pid: int) -> Waiting | None:
        """Return the lock that a process waits for."""
        for row in self._select(_WAITING, ("pg_catalog.int4", 0), ("pg_catalog.int4", pid)):
            return Waiting(row["mode"], row["type"], row["relation"])
        return None

    def read_json(self) -> int:
        """Have the manifest in JSON read that is handed over, and return its key."""
        (row,) = self._select(_READ_JSON)
        return int(row["key"])

    def take_text(self, types: Sequence[int]) -> bool:
        """Return True if all these types are string types or domains over them."""
        (row,) = self._select(_CATEGORIES, ("pg_catalog.oid[]", list(types)))
        return bool(row["all_strings"])

    def assignment_cast(self, source: int, target: int) -> ColumnCast | None:
        """Return what converts the text of values as an assignment would.

        None if the text can be read as it is, or if there is no such cast.
        """
        oids = ("pg_catalog.oid", source), ("pg_catalog.oid", target)
        for row in self._select(_ASSIGNMENT_CAST, *oids):
            return partial(
                self._run_cast,
                f"select v::{row['source']}::{row['target']}::pg_catalog.text as v "
                "from pg_catalog.unnest($1) v",
            )
        return None

    def fit(self, text: str) -> str:
        """Return a text as the encoding of the database can have it.

        PL/Python must not be given other text in a message: the error that PostgreSQL then
        raises jumps over frames of the Python interpreter and leaves it broken. ASCII fits always,
        and is no parameter of a statement, which PostgreSQL may log.
        """
        if text.isascii():
            return text
        try:
            self._select("select $1", ("pg_catalog.text", text))
        except self._plpy.SPIError as ex:
            if local_error(ex).sqlstate != errors.UNTRANSLATABLE_CHARACTER:
                raise  # a cancel must not be lost here
            return text.encode("ascii", "backslashreplace").decode()
        return text

    def check_interrupts(self) -> None:
        """Raise what the server raises when the call is to end.

        Python waits without looking at the server's flags; running a statement looks at them.
        """
        self._select("select 1")

    def _convert(self, sql: str, text: str) -> float:
        """Have PostgreSQL read a value; raise ValueError if it cannot, or if it is negative."""
        try:
            (row,) = self._select(sql, ("pg_catalog.text", text))
        except self._plpy.SPIError as ex:
            if local_error(ex).sqlstate.startswith("22"):
                raise ValueError from None
            raise
        if row["value"] < 0:
            raise ValueError
        return float(row["value"])

    def _run_cast(self, sql: str, values: Values) -> Values:
        try:
            return [row["v"] for row in self._select(sql, ("pg_catalog.text[]", list(values)))]
        except self._plpy.SPIError as ex:
            raise local_error(ex) from None

    def _select(self, sql: str, *arguments: tuple[str, object]) -> Any:
        """Run a statement with typed arguments, prepared once in a session."""
        types = [name for name, _ in arguments]
        key = (sql, *types)
        if key not in _plans:
            _plans[key] = self._plpy.prepare(sql, types)
        return self._plpy.execute(_plans[key], [value for _, value in arguments])


def _random() -> int:
    return int.from_bytes(os.urandom(4)) >> 1


_lock = _random()


def _lock_key(lock: int) -> list[tuple[str, object]]:
    return [("pg_catalog.int4", LOCK_CLASS), ("pg_catalog.int4", lock)]


@cache
def local_address() -> Address:
    """Return where the server of this process listens: its first socket, or else by TCP.

    Ordinary users may not read unix_socket_directories, but the server writes its addresses into
    a file of the data directory, which is the current directory of its processes.
    """
    *_, port, socket_directory, listen_address = _LOCK_FILE.read_text().split("\n")[:6]
    return Address(socket_directory or _TO_ITSELF.get(listen_address, listen_address), port)


def local_error(ex: Any) -> PmppError:
    """Return what the local server raised in a statement of ours, a plpy.SPIError."""
    data = getattr(ex, "spidata", None) or [None] * 10
    _, detail, hint, _, _, *names = data
    return PmppError(
        str(ex),
        sqlstate=getattr(ex, "sqlstate", None) or errors.INTERNAL_ERROR,
        detail=detail,
        hint=hint,
        names=dict(zip(errors.NAMES, names, strict=True)),
    )


def _options(pairs: Sequence[str] | None) -> dict[str, str]:
    """Split the options of a catalog row, which are "name=value"."""
    return dict(pair.split("=", 1) for pair in pairs or ())
