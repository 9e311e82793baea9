"""Finding out where the connections of a manifest lead, also through foreign servers.

Only superusers can read user mappings, so a SQL function that has their rights reads them. It takes
no arguments and returns nothing. What it is to read, and what it has read, is kept here, in the
memory of the process, which ordinary users cannot reach from SQL.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from .. import errors
from ..core.interrupts import Interrupts
from ..core.manifest import Item
from ..core.target import Target
from ..remote import conninfo, policy
from ..remote.policy import Caller, ForeignServer
from .local_backend import LocalBackend

# The first query of each call: few connections are servers, and the joins below take long to plan.
# It asks for all names, because a connection of the call as a parameter could be a misplaced
# password, and be logged.
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

# The mapping of the role itself, or else that of PUBLIC.
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

_request: tuple[str, str] | None = None
_answer: dict[str, str] | None = None


def resolve(
    backend: LocalBackend, caller: Caller, items: Sequence[Item], interrupts: Interrupts
) -> list[Target]:
    """Resolve the connections of all items.

    Args:
        backend: the server process.
        caller: the current user and session.
        items: the manifest.
        interrupts: those of the call.

    Raises:
        PmppError: if the caller may not use one of them, or it is not valid.
    """
    names = {item.connection for item in items if conninfo.can_name_server(item.connection)}
    servers = _foreign_servers(backend, names)
    targets = []
    for item in interrupts.over(items):
        server = servers.get(item.connection)
        if server is None:
            target = policy.from_string(item.name, item.connection, caller)
        else:
            mapping = _user_mapping(backend, caller, server.name)
            target = policy.from_server(item.name, server, mapping, caller)
        targets.append(target)
    return targets


def read_requested_mapping(backend: LocalBackend) -> None:
    """Read the user mapping that `resolve` requests, with a superuser's rights.

    Raises:
        PmppError: if it requests none, that is, if a user calls this by hand.
    """
    global _request, _answer
    if _request is None:
        raise errors.only_by_pmpp()
    (role, server), _request = _request, None
    arguments = ("pg_catalog.name", role), ("pg_catalog.name", server)
    for row in backend.select(_USER_MAPPING, *arguments):
        _answer = _options(row["options"])


def _user_mapping(backend: LocalBackend, caller: Caller, server: str) -> dict[str, str] | None:
    """Return the options of the mapping that applies to the caller, None if there is none."""
    global _request, _answer
    _request = caller.name, server
    try:
        backend.select("select pmpp._read_user_mapping()")
        return _answer
    finally:
        _request = _answer = None


def _foreign_servers(backend: LocalBackend, names: Set[str]) -> dict[str, ForeignServer]:
    """Return those of the names that are foreign servers."""
    servers = {row["name"] for row in backend.select(_SERVER_NAMES)} if names else set()
    return {name: _foreign_server(backend, name) for name in names & servers}


def _foreign_server(backend: LocalBackend, name: str) -> ForeignServer:
    (row,) = backend.select(_FOREIGN_SERVER, ("pg_catalog.name", name))
    return ForeignServer(
        name=name,
        options={**_options(row["wrapper_options"]), **_options(row["server_options"])},
        has_usage=row["has_usage"],
        is_postgres_fdw=row["is_postgres_fdw"],
    )


def _options(pairs: Sequence[str] | None) -> dict[str, str]:
    """Split the options of a catalog row, which are "name=value"."""
    return dict(pair.split("=", 1) for pair in pairs or ())
