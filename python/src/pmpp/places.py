"""How many connections may be open at a time, for a call as a whole and to each server."""

from __future__ import annotations

from collections.abc import Mapping

from .conninfo import Target

EVERYWHERE = "*"


class Places:
    """The places for connections of a call, each taken by one while it is open.

    Args:
        limits: the most connections to a server or host, by name; under "*", to each of the
            servers and hosts that have no limit of their own.
        total: the most connections of the call, or None.
        targets: where the connections of each item lead, by its number.
    """

    def __init__(
        self, limits: Mapping[str, int], total: int | None, targets: Mapping[int, Target]
    ) -> None:
        self._free: dict[tuple[str, ...], int] = {}
        self._bounds: dict[int, list[tuple[str, ...]]] = {}
        for number, target in targets.items():
            limited = [name for name in target.names if name in limits]
            bounds: dict[tuple[str, ...], int] = {(name,): limits[name] for name in limited}
            if not limited and EVERYWHERE in limits:
                bounds[(EVERYWHERE, *target.names)] = limits[EVERYWHERE]
            if total is not None:
                bounds[()] = total
            self._free.update(bounds)
            self._bounds[number] = list(bounds)

    def take(self, item: int) -> bool:
        """Take a place for a connection of an item, by its number; return False if none is free."""
        if any(self._free[bound] <= 0 for bound in self._bounds[item]):
            return False
        for bound in self._bounds[item]:
            self._free[bound] -= 1
        return True

    def give_back(self, item: int) -> None:
        """Give back the place of a connection that was closed."""
        for bound in self._bounds[item]:
            self._free[bound] += 1
