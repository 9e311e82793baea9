"""How many connections may be open at a time, for a call as a whole and to each server."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple

from .. import errors
from ..errors import PmppError
from ..remote import resolver
from ..remote.conninfo import Target
from .files import UNCOUNTED, Files
from .interrupts import Interrupts

EVERYWHERE = "*"
LONGEST_SOCKET = 108  # bytes in the name of a socket. Links in longer names are not followed
MORE_FILES = "Raise max_files_per_process, and the limit of open files (ulimit -n) of the server."


class Limits(NamedTuple):
    """What the table connection_limit has.

    Attributes:
        most: the most connections to a server or host, by name; under "*", to each of the
            servers and hosts that have no limit of their own. 0 if nobody may connect there.
        servers: the names of those that are foreign servers of superusers. Where these lead is
            for their owners to say, and not under "*".
    """

    most: Mapping[str, int] = {}
    servers: frozenset[str] = frozenset()


class Places:
    """The places for connections of a call, each taken by one while it is open.

    Args:
        limits: those of the servers and hosts.
        total: the most connections of the call, or None.
        targets: where the connections of each item lead, by its number.
        interrupts: those of the call.
        files: counts the connections of all calls of the process.

    Attributes:
        taken: how many there are.
        lacks_files: True if the process could not have another one.

    Raises:
        PmppError: if nobody may connect to one of the targets.
    """

    def __init__(
        self,
        limits: Limits,
        total: int | None,
        targets: Mapping[int, Target],
        interrupts: Interrupts,
        files: Files = UNCOUNTED,
    ) -> None:
        self._files = files
        self.taken = 0
        self.lacks_files = False
        self._free: dict[tuple[str, ...], int] = {}
        self._bounds: dict[int, list[tuple[str, ...]]] = {}
        bounds_of = _Bounds(limits)
        for number, target in interrupts.over(targets.items()):
            bounds = bounds_of(target)
            if 0 in bounds.values():
                raise PmppError(
                    f"item {number}: connections to {target.label} are not allowed",
                    sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                    hint="The table pmpp.connection_limit says where calls may connect. Every host "
                    "and hostaddr of a connection string must be allowed.",
                )
            if total is not None:
                bounds[()] = total
            self._free.update(bounds)
            self._bounds[number] = list(bounds)

    def take(self, item: int) -> bool:
        """Take a place for a connection of an item, by its number; return False if none is free.

        Raises:
            PmppError: if other calls of the process have left none for this one.
        """
        if any(self._free[bound] <= 0 for bound in self._bounds[item]):
            return False
        if not self._files.acquire():
            if self.taken:
                self.lacks_files = True
                return False
            raise PmppError(
                "this session has too many connections open",
                sqlstate=errors.TOO_MANY_CONNECTIONS,
                detail="PostgreSQL counts those of pmpp, dblink and postgres_fdw together.",
                hint="Close the cursors of other calls, and connections of dblink and "
                f"postgres_fdw. {MORE_FILES}",
            )
        self._count(item, 1)
        return True

    def give_back(self, item: int) -> None:
        """Give back the place of a connection that was closed."""
        self._files.release()
        self._count(item, -1)

    def close(self) -> None:
        """Give back all places."""
        for _ in range(self.taken):
            self._files.release()
        self.taken = 0

    def _count(self, item: int, number: int) -> None:
        self.taken += number
        for bound in self._bounds[item]:
            self._free[bound] -= number


class _Bounds:
    """Finds the limits for connections to a target."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._spelling = cache(_spelling)
        self._rows: defaultdict[str, list[str]] = defaultdict(list)  # by the host in one spelling
        for name in limits.most:
            if name != EVERYWHERE:
                self._rows[self._spelling(name)].append(name)

    def __call__(self, target: Target) -> dict[tuple[str, ...], int]:
        """Return the limits, each under the name of those that share it."""
        most, servers = self._limits
        hosts = _hosts(target)
        server = target.names[0] if len(target.names) > len(hosts) else None
        bounds: dict[tuple[str, ...], int] = {}
        if server is not None and server in most:
            bounds[(server,)] = most[server]
        is_named = server in most and server in servers
        for host in map(self._spelling, hosts):
            rows = self._rows.get(host, [])
            bounds.update({(name,): most[name] for name in rows})
            # A host that is called like a server is not what the server's limit is about.
            is_listed = not servers.issuperset(rows)
            if EVERYWHERE in most and not (is_named or is_listed):
                bounds[(EVERYWHERE, host)] = most[EVERYWHERE]
        return bounds


def _hosts(target: Target) -> list[str]:
    """Return every host and address that libpq may connect to, or takes for the name of one."""
    lists = (target.params[keyword].split(",") for keyword in ("host", "hostaddr"))
    return [host for hosts in lists for host in hosts if host]


def _spelling(host: str) -> str:
    """Return how all that differ from a host in spelling only are spelt."""
    if host.startswith("/"):
        return os.path.realpath(host) if len(host) < LONGEST_SOCKET else host
    address = resolver.numeric_address(host)
    if address is None:
        return host if host.startswith("@") else host.lower().rstrip(".")
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    # Who connects to no address reaches the local machine.
    return str(ip) if int(ip) else ("127.0.0.1" if ip.version == 4 else "::1")
