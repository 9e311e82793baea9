"""The connections of one item of a manifest."""

from __future__ import annotations

from ..core.manifest import Item
from ..errors import PmppError
from ..remote.conninfo import Target


class Crew:
    """How many connections of an item there are, and in what state.

    Args:
        item: the item.
        target: where they lead.

    Attributes:
        wanted: how many are to be opened when there is a place for them.
        connecting: how many are being made and set up.
        connected: how many were, and serve.
        failures: why others could not be made, as long as it is not known what follows from it.
        has_asked: True if one of them has asked, or is asking, the remote for its CPUs.
    """

    def __init__(self, item: Item, target: Target) -> None:
        self.item = item
        self.target = target
        self.wanted = 0
        self.connecting = 0
        self.connected = 0
        self.failures: list[PmppError] = []
        self.has_asked = False
