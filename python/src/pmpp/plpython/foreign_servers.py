"""Finding out where the connections of a manifest lead.

User mappings can be read by superusers alone. So a function of SQL reads them with the rights of
its definer. It takes no arguments and returns nothing: what it is to read, and what it has read,
are left here, in the memory of the process, which ordinary users cannot reach from SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import errors
from ..core.interrupts import Interrupts
from ..core.manifest import Item
from ..remote import conninfo
from ..remote.conninfo import Caller, Target
from .local_backend import Catalog

_request: tuple[str, str] | None = None
_answer: dict[str, str] | None = None


def resolve(
    plpy: Any, catalog: Catalog, caller: Caller, items: Sequence[Item], interrupts: Interrupts
) -> list[Target]:
    """Resolve the connections of all items.

    Args:
        plpy: the module that PL/Python provides.
        catalog: the local server.
        caller: who asks.
        items: the manifest.
        interrupts: those of the call.

    Raises:
        PmppError: if the caller may not use one of them, or it is not valid.
    """
    names = {item.connection for item in items if conninfo.can_name_server(item.connection)}
    servers = catalog.foreign_servers(names)
    targets = []
    for item in interrupts.over(items):
        where = f"item {item.number}"
        server = servers.get(item.connection)
        if server is None:
            target = conninfo.from_string(where, item.connection, caller)
        else:
            mapping = _user_mapping(plpy, caller, server.name)
            target = conninfo.from_server(where, server, mapping, caller)
        targets.append(target)
    return targets


def answer(catalog: Catalog) -> None:
    """Read the user mapping that is asked for.

    Raises:
        PmppError: if none is.
    """
    global _request, _answer
    if _request is None:
        raise errors.only_by_pmpp()
    request, _request = _request, None
    _answer = catalog.user_mapping(*request)


def _user_mapping(plpy: Any, caller: Caller, server: str) -> dict[str, str] | None:
    """Have the mapping that applies to the caller read."""
    global _request, _answer
    _request = caller.name, server
    try:
        plpy.execute("select pmpp._read_user_mapping()")
        return _answer
    finally:
        _request = _answer = None
