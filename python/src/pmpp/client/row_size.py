"""How much memory rows take, whatever objects a driver returns as rows."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from sys import getsizeof
from typing import Any

# To measure all rows would take as long as to fetch them.
_SAMPLED_ROWS = 32

# A row that is larger than this is not measured to its end.
_ENOUGH_BYTES = 1024 * 1024


def mean_size(rows: Sequence[Any]) -> int:
    """Estimate how many bytes one of these rows takes, from a sample of them.

    Args:
        rows: at least one row.
    """
    sample = rows[:: len(rows) // _SAMPLED_ROWS + 1]
    total = 0
    level = parents = list(sample)
    while level and total < _ENOUGH_BYTES * len(sample):
        total += sum(map(_own_size, level))
        level = [value for value in gc.get_referents(*parents) if not isinstance(value, type)]
        # Other objects may refer to their cursor, and so to all objects of the program.
        parents = [value for value in level if isinstance(value, tuple | list | dict | set)]
    return total // len(sample)


def _own_size(value: object) -> int:
    return value.nbytes if isinstance(value, memoryview) else getsizeof(value, 0)
