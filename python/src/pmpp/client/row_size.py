"""How much memory rows take, whatever a driver makes of them."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from sys import getsizeof
from typing import Any

_SAMPLE = 32  # rows: to look at all of them would take as long as to fetch them
_ENOUGH = 1024 * 1024  # bytes for each: what is larger is not measured to its end


def mean_size(rows: Sequence[Any]) -> int:
    """Estimate how many bytes a row of these takes, from some of them.

    Args:
        rows: at least one row.
    """
    sample = rows[:: len(rows) // _SAMPLE + 1]
    total, level = 0, list(sample)
    parents = level  # the rows, and then only containers: a cursor would lead to all there is
    while level and total < _ENOUGH * len(sample):
        total += sum(map(_own_size, level))
        level = [part for part in gc.get_referents(*parents) if not isinstance(part, type)]
        parents = [part for part in level if isinstance(part, tuple | list | dict | set)]
    return total // len(sample)


def _own_size(value: object) -> int:
    return value.nbytes if isinstance(value, memoryview) else getsizeof(value, 0)
