"""How many connections may be open at a time, for a call as a whole and to each server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from .. import errors
from ..errors import PmppError
from .interrupts import Interrupts
from .manifest import item_name
from .target import Target, normalized

EVERYWHERE = "*"

# A limit, by the names of what has it: a server or host, the call as a whole, or the process.
Bound = tuple[str, ...]
CALL: Bound = ()
PROCESS: Bound = ("process",)

MORE_FILES = "Raise max_files_per_process, and the limit of open files (ulimit -n) of the server."


class Limits(NamedTuple):
    """What the table connection_limit contains.

    Attributes:
        most: the most connections to a server or host, by name; under "*", to each of the
            servers and hosts that have no limit of their own. 0 if nobody may connect there.
        servers: the names among these that are foreign servers of superusers. The owner decides
            where such a server leads, so the limit under "*" does not apply to its hosts.
    """

    most: Mapping[str, int] = {}
    servers: frozenset[str] = frozenset()


class OpenFiles(NamedTuple):
    """How the process counts a connection among its open files.

    Attributes:
        acquire: counts one; returns False if the process can have no more.
        release: is called when the connection is closed.
    """

    acquire: Callable[[], bool] = lambda: True
    release: Callable[[], object] = lambda: None


UNCOUNTED = OpenFiles()


class Limiter:
    """Counts the open connections of a call.

    Args:
        limits: those of the servers and hosts.
        total: the most connections of the call, or None.
        targets: where the connections of each item lead, by its number.
        interrupts: those of the call.
        open_files: counts the connections of all calls of the process.

    Attributes:
        count: how many connections are open.
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
        open_files: OpenFiles = UNCOUNTED,
    ) -> None:
        self._open_files = open_files
        self.count = 0
        self.lacks_files = False
        self._free: dict[Bound, int] = {}
        self._bounds: dict[int, list[Bound]] = {}
        bounds_of = _Bounds(limits)
        for number, target in interrupts.over(targets.items()):
            bounds = bounds_of(target)
            if 0 in bounds.values():
                raise PmppError(
                    f"{item_name(number)}: connections to {target.display_name} are not allowed",
                    sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                    hint="The table pmpp.connection_limit says where calls may connect. Every host "
                    "and hostaddr of a connection string must be allowed.",
                )
            if total is not None:
                bounds[CALL] = total
            self._free.update(bounds)
            self._bounds[number] = list(bounds)

    def acquire(self, item: int) -> Bound | None:
        """Count a connection of an item, by its number.

        Returns:
            None if it may be opened, else the limit that is reached.

        Raises:
            PmppError: if other calls of the process leave this one no connection at all.
        """
        for bound in self._bounds[item]:
            if self._free[bound] <= 0:
                return bound
        if not self._open_files.acquire():
            if self.count:
                self.lacks_files = True
                return PROCESS
            raise PmppError(
                "this session has too many connections open",
                sqlstate=errors.TOO_MANY_CONNECTIONS,
                detail="PostgreSQL counts those of pmpp, dblink and postgres_fdw together.",
                hint="Close the cursors of other calls, and connections of dblink and "
                f"postgres_fdw. {MORE_FILES}",
            )
        self._add(item, 1)
        return None

    def release(self, item: int) -> list[Bound]:
        """Stop counting a connection of an item, which is closed; return the limits that it had."""
        self._open_files.release()
        self._add(item, -1)
        return [*self._bounds[item], PROCESS]

    def close(self) -> None:
        """Stop counting all connections, which are closed."""
        for _ in range(self.count):
            self._open_files.release()
        self.count = 0

    def _add(self, item: int, number: int) -> None:
        self.count += number
        for bound in self._bounds[item]:
            self._free[bound] -= number


class _Bounds:
    """Finds the limits for connections to a target."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._normalized = cache(normalized)
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        for name in limits.most:
            if name != EVERYWHERE:
                self._names[self._normalized(name)].append(name)

    def __call__(self, target: Target) -> dict[Bound, int]:
        """Return the limits, each under the name of those that share it."""
        most, servers = self._limits
        server = target.server
        bounds: dict[Bound, int] = {}
        if server is not None and server in most:
            bounds[(server,)] = most[server]
        is_listed_server = server in most and server in servers
        for host in map(self._normalized, target.hosts):
            names = self._names.get(host, [])
            bounds.update({(name,): most[name] for name in names})
            # A foreign server may have the same name as the host. Its limit is not the host's.
            is_listed = not servers.issuperset(names)
            if EVERYWHERE in most and not (is_listed_server or is_listed):
                bounds[(EVERYWHERE, host)] = most[EVERYWHERE]
        return bounds
