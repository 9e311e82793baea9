"""How many connections may be open at a time, for a call as a whole and to each server."""

from __future__ import annotations

import resource
from collections.abc import Mapping

from . import errors
from .conninfo import Target
from .errors import PmppError

EVERYWHERE = "*"

_open_in_process = 0


class Places:
    """The places for connections of a call, each taken by one while it is open.

    All calls of the process together have as many as a third of the files that it may open, as
    with dblink: a server that can open no more may not even be able to write its log.

    Args:
        limits: the most connections to a server or host, by name; under "*", to each of the
            servers and hosts that have no limit of their own.
        total: the most connections of the call, or None.
        targets: where the connections of each item lead, by its number.
    """

    def __init__(
        self, limits: Mapping[str, int], total: int | None, targets: Mapping[int, Target]
    ) -> None:
        # less than 0 if there is no limit
        self._most_in_process = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3
        self._taken = 0
        self._free: dict[tuple[str, ...], int] = {}
        self._bounds: dict[int, list[tuple[str, ...]]] = {}
        for number, target in targets.items():
            limited = [name for name in target.names if name in limits]
            bounds: dict[tuple[str, ...], int] = {(name,): limits[name] for name in limited}
            if not limited and EVERYWHERE in limits:
                for name in target.names or [""]:
                    bounds[(EVERYWHERE, name)] = limits[EVERYWHERE]
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
        if 0 <= self._most_in_process <= _open_in_process:
            if self._taken:
                return False
            raise PmppError(
                "this session has too many connections open",
                sqlstate=errors.TOO_MANY_CONNECTIONS,
                hint="Close the cursors of other calls first.",
            )
        self._count(item, 1)
        return True

    def give_back(self, item: int) -> None:
        """Give back the place of a connection that was closed."""
        self._count(item, -1)

    def close(self) -> None:
        """Give back all places."""
        global _open_in_process
        _open_in_process -= self._taken
        self._taken = 0

    def _count(self, item: int, number: int) -> None:
        global _open_in_process
        _open_in_process += number
        self._taken += number
        for bound in self._bounds[item]:
            self._free[bound] -= number
