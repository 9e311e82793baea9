"""The rows of the shards that the tests of ParallelConnection use."""

from __future__ import annotations

from collections.abc import Callable

from pmpp import ParallelConnection

# How many rows each shard has. Most have none; one has more than a batch.
SIZES = [0, 0, 3, 0, 2500, 0, 1, 0, 0, 40]

Open = Callable[..., ParallelConnection]

Row = tuple[int | None, int | None]


def rows_of(shard: int) -> list[Row]:
    """Return the rows of a shard: its number and theirs, but for one that is all null."""
    return [(None, None) if n == 1 else (shard, n) for n in range(1, SIZES[shard] + 1)]


ALL_ROWS = [row for shard in range(len(SIZES)) for row in rows_of(shard)]
