"""The rows of one result on several connections, as one stream.

Each connection works one batch ahead of the rows that have been taken, and no further, so memory
holds at most two batches of each. The first batch is one row and each is at most twice as large as
the one before it, up to a limit: so a row waits for others of its connection no longer than those
before it took. There is a limit of rows and one of bytes, if rows are like those before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

from .connection_threads import Lane
from .dbapi import Cursor, InterfaceError
from .operation import Operation
from .row_size import mean_size

LARGEST_BATCH = 1000  # rows
_BATCH_BYTES = 1024 * 1024

Order = int | str | Callable[[Any], Any]


class Part:
    """What one connection has of a result.

    Attributes:
        size: how many rows to ask for next.
        batch: rows that came while those of another part were waited for.
    """

    def __init__(self, lane: Lane, cursor: Cursor) -> None:
        self.lane = lane
        self.cursor = cursor
        self.size = 1
        self.batch: Sequence[Any] | None = None

    def adapt(self, rows: Sequence[Any]) -> None:
        """Have the next batch be larger than these rows, but not take too much memory."""
        self.size = max(1, min(2 * len(rows), _BATCH_BYTES // (mean_size(rows) + 1)))

    def columns(self) -> list[str]:
        """Return the names of the columns; none if they are not known (yet)."""
        return [column[0] for column in self.cursor.description or ()]

    def labelled(self, rows: Sequence[Any], with_source: bool) -> Iterable[Any]:
        """Return rows as they are, or as pairs with their source."""
        return zip(repeat(self.lane.source), rows, strict=False) if with_source else rows


class Union:
    """The stream of rows.

    Args:
        operation: what to do the fetching with.
        parts: one for each connection.

    Attributes:
        largest_batch: how many rows to ask a connection for at a time, at most.
    """

    def __init__(self, operation: Operation, parts: Sequence[Part]) -> None:
        self.largest_batch = LARGEST_BATCH
        self._operation = operation
        self._parts = parts
        self._begun = False
        self._uncompared = set(parts)
        self._reference: tuple[Part, list[str]] | None = None

    def as_they_come(self, with_source: bool = False) -> Iterator[Any]:
        """Return the rows of whichever connection has some."""
        return chain.from_iterable(self._batches(with_source))

    def in_order(self, order: Order, reverse: bool, with_source: bool) -> Iterator[Any]:
        """Return rows that are in order on each connection in that order."""
        parts = (self._with_keys(part, order, reverse, with_source) for part in self._parts)
        return map(itemgetter(1), merge(*parts, key=itemgetter(0), reverse=reverse))

    def compare_columns(self, part: Part) -> None:
        """Make sure that the columns of a part, if known, are those of the others.

        As in SQL's UNION, it is their number that must be the same. Drivers name expressions in
        their own way, but a name that both have must not stand in another place.
        """
        if part not in self._uncompared or not (names := part.columns()):
            return
        self._uncompared.discard(part)
        first, expected = self._reference = self._reference or (part, names)
        misplaced = any(
            a != b and (a in names or b in expected) for a, b in zip(expected, names, strict=False)
        )
        if len(names) != len(expected) or misplaced:
            raise InterfaceError(
                f"the columns differ: {first.lane.label} has {', '.join(expected)},"
                f" but {part.lane.label} has {', '.join(names)}"
            )

    def _request(self, part: Part) -> None:
        """Have a connection fetch its next batch."""
        size = min(part.size, self.largest_batch)
        self._operation.start(part.lane, partial(_fetch, part, size))

    def _receive(self) -> tuple[Part, Sequence[Any]]:
        """Wait for the batch of any connection; it is empty if there are no more rows."""
        if not self._begun:
            self._begun = True
            for part in self._parts:
                self._request(part)
        part, rows = self._operation.next().result
        self.compare_columns(part)
        if rows:
            part.adapt(rows)
        return part, rows

    def _batches(self, with_source: bool) -> Iterator[Iterable[Any]]:
        """Yield batches in the order in which they come."""
        unfinished = len(self._parts)
        while unfinished:
            part, rows = self._receive()
            if rows:
                self._request(part)
                yield part.labelled(rows, with_source)
            else:
                unfinished -= 1

    def _batches_of(self, part: Part) -> Iterator[Sequence[Any]]:
        """Yield the batches of one connection; those of others are kept for their turn."""
        while True:
            while part.batch is None:
                other, rows = self._receive()
                other.batch = rows
            rows, part.batch = part.batch, None
            if not rows:
                return
            self._request(part)
            yield rows

    def _with_keys(
        self, part: Part, order: Order, reverse: bool, with_source: bool
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the key and the row, for each row of one connection."""
        key: Callable[[Any], Any] | None = None
        previous: list[Any] = []
        for row in chain.from_iterable(self._batches_of(part)):
            self._operation.time_left()  # which a key that takes long would not notice
            key = key or _key(order, part.columns(), row)
            value = key(row)
            if value != value:  # it would be in any order
                raise InterfaceError(
                    f"{part.lane.label} has a key that no order has a place for: {value!r}"
                )
            if previous and (value > previous[0] if reverse else value < previous[0]):
                raise InterfaceError(
                    f"{part.lane.label} is not in the order to merge by:"
                    f" {value!r} comes after {previous[0]!r}"
                )
            previous = [value]
            yield value, (part.lane.source, row) if with_source else row


def _fetch(part: Part, size: int) -> tuple[Part, Sequence[Any]]:
    return part, part.cursor.fetchmany(size)


def _key(order: Order, names: Sequence[str], row: Any) -> Callable[[Any], Any]:
    """Return what gets the key of rows, which are like the given one."""
    if callable(order):
        return order
    try:
        index = names.index(order) if isinstance(order, str) else range(len(names))[order]
    except (ValueError, IndexError):
        raise InterfaceError(
            f"there is no column {order!r} to merge by among {', '.join(names)}"
        ) from None
    key = itemgetter(names[index] if isinstance(row, Mapping) else index)
    try:
        key(() if isinstance(row, str | bytes) else row)  # whose characters are not columns
    except (TypeError, LookupError):
        raise InterfaceError(
            f"rows of {type(row)} have no columns to get {order!r} from: merge by a function"
            " that returns the key of a row"
        ) from None
    return key
