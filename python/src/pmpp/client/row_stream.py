"""The rows of one result on several connections, as one stream.

Each connection fetches one batch ahead of the rows that the program has read, so memory holds at
most two batches of a connection. The first batch is one row, and each batch is at most twice as
large as the one before it. A row therefore waits for later rows of its connection no longer than
the earlier ones took. A batch has a limit of rows, and a limit of bytes, which pmpp estimates from
the rows before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

from .call_group import CallGroup
from .drivers import Cursor
from .errors import InterfaceError
from .row_size import mean_size
from .worker_connection import WorkerConnection

LARGEST_BATCH = 1000
_BATCH_BYTES = 1024 * 1024

MergeKey = int | str | Callable[[Any], Any]


class Fetcher:
    """Fetches the rows of one connection, in batches.

    Attributes:
        batch_size: how many rows to fetch next.
        batch: a batch that came while the stream waited for another connection, or None.
    """

    def __init__(self, worker: WorkerConnection, cursor: Cursor) -> None:
        self.worker = worker
        self.cursor = cursor
        self.batch_size = 1
        self.batch: Sequence[Any] | None = None

    def fetch(self, size: int) -> tuple[Fetcher, Sequence[Any]]:
        """Return this object and the next rows."""
        return self, self.cursor.fetchmany(size)

    def adapt_to(self, rows: Sequence[Any]) -> None:
        """Make the next batch larger than these rows, within the limit of bytes."""
        fitting = _BATCH_BYTES // (mean_size(rows) + 1)
        self.batch_size = max(1, min(2 * len(rows), fitting))

    def columns(self) -> list[str]:
        """Return the names of the columns; none if the driver does not know them (yet)."""
        return [column[0] for column in self.cursor.description or ()]


class RowStream:
    """The stream of rows.

    Args:
        calls: what runs the calls that fetch rows.
        fetchers: one for each connection.

    Attributes:
        largest_batch: how many rows to fetch from a connection at a time, at most.
    """

    def __init__(self, calls: CallGroup, fetchers: Sequence[Fetcher]) -> None:
        self.largest_batch = LARGEST_BATCH
        self._calls = calls
        self._fetchers = fetchers
        self._begun = False
        self._uncompared = set(fetchers)
        self._reference: tuple[Fetcher, list[str]] | None = None

    def as_they_come(self, with_source: bool = False) -> Iterator[Any]:
        """Return the rows of whichever connection has some."""
        return chain.from_iterable(self._batches(with_source))

    def merged(self, key: MergeKey, reverse: bool, with_source: bool) -> Iterator[Any]:
        """Return rows that are in order on each connection in that order."""
        keyed_rows = (
            self._with_keys(fetcher, key, reverse, with_source) for fetcher in self._fetchers
        )
        return map(itemgetter(1), merge(*keyed_rows, key=itemgetter(0), reverse=reverse))

    def compare_columns(self, fetcher: Fetcher) -> None:
        """Make sure that the columns of a connection, if known, are those of the others.

        As in SQL's UNION, their number must be the same. Names may differ, since drivers name
        expressions in their own way. A name that both have must stand in the same place.
        """
        if fetcher not in self._uncompared or not (names := fetcher.columns()):
            return
        self._uncompared.discard(fetcher)
        first, expected = self._reference = self._reference or (fetcher, names)
        misplaced = any(
            a != b and (a in names or b in expected) for a, b in zip(expected, names, strict=False)
        )
        if len(names) != len(expected) or misplaced:
            raise InterfaceError(
                f"the columns differ: {first.worker.display_name} has {', '.join(expected)},"
                f" but {fetcher.worker.display_name} has {', '.join(names)}"
            )

    def _request(self, fetcher: Fetcher) -> None:
        """Start to fetch the next batch of a connection."""
        size = min(fetcher.batch_size, self.largest_batch)
        self._calls.start(fetcher.worker, partial(fetcher.fetch, size))

    def _receive(self) -> tuple[Fetcher, Sequence[Any]]:
        """Wait for the batch of any connection; it is empty if there are no more rows."""
        if not self._begun:
            self._begun = True
            for fetcher in self._fetchers:
                self._request(fetcher)
        fetcher, rows = self._calls.next_finished().result
        self.compare_columns(fetcher)
        if rows:
            fetcher.adapt_to(rows)
        return fetcher, rows

    def _batches(self, with_source: bool) -> Iterator[Iterable[Any]]:
        """Yield batches in the order in which they come."""
        unfinished = len(self._fetchers)
        while unfinished:
            fetcher, rows = self._receive()
            if rows:
                self._request(fetcher)
                source = repeat(fetcher.worker.source)
                yield zip(source, rows, strict=False) if with_source else rows
            else:
                unfinished -= 1

    def _batches_of(self, fetcher: Fetcher) -> Iterator[Sequence[Any]]:
        """Yield the batches of one connection, and keep those of others for their turn."""
        while True:
            while fetcher.batch is None:
                other, rows = self._receive()
                other.batch = rows
            rows, fetcher.batch = fetcher.batch, None
            if not rows:
                return
            self._request(fetcher)
            yield rows

    def _with_keys(
        self, fetcher: Fetcher, merge_key: MergeKey, reverse: bool, with_source: bool
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the key and the row, for each row of one connection."""
        worker = fetcher.worker
        get_key: Callable[[Any], Any] | None = None
        previous: list[Any] = []
        for row in chain.from_iterable(self._batches_of(fetcher)):
            # A function of the program that returns keys may be slow.
            self._calls.time_left()
            get_key = get_key or _key_getter(merge_key, fetcher.columns(), row)
            key = get_key(row)
            # Only NaN does not equal itself. Comparisons with it are all false, so that it would
            # pass the check of the order wherever it stands.
            if key != key:
                raise InterfaceError(
                    f"{worker.display_name} has a key that has no place in an order: {key!r}"
                )
            if previous and (key > previous[0] if reverse else key < previous[0]):
                raise InterfaceError(
                    f"the rows of {worker.display_name} are not in the order to merge by:"
                    f" {key!r} comes after {previous[0]!r}"
                )
            previous = [key]
            yield key, (worker.source, row) if with_source else row


def _key_getter(merge_key: MergeKey, names: Sequence[str], row: Any) -> Callable[[Any], Any]:
    """Return a function that returns the key of rows like the given one."""
    if callable(merge_key):
        return merge_key
    try:
        index = (
            names.index(merge_key) if isinstance(merge_key, str) else range(len(names))[merge_key]
        )
    except (ValueError, IndexError):
        raise InterfaceError(
            f"there is no column {merge_key!r} to merge by among {', '.join(names)}"
        ) from None
    get_key = itemgetter(names[index] if isinstance(row, Mapping) else index)
    try:
        # The characters of a string are not columns.
        get_key(() if isinstance(row, str | bytes) else row)
    except (TypeError, LookupError):
        raise InterfaceError(
            f"rows of {type(row)} have no columns to get {merge_key!r} from: merge by a function"
            " that returns the key of a row"
        ) from None
    return get_key
