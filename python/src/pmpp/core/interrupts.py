"""Looking for interrupts in loops over what a caller gives, which may be millions of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Values between two looks.
EVERY = 1000


class Interrupts:
    """Looks for interrupts once in a while, counting the values of all loops together.

    Args:
        check: raises an exception if the call is to end.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._count = 0

    def over(self, values: Iterable[T]) -> Iterator[T]:
        """Yield the values, and look for interrupts in between."""
        for value in values:
            self._count += 1
            if self._count == EVERY:
                self._count = 0
                self._check()
            yield value
