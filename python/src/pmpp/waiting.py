"""How generators say what they wait for.

Sessions do no waiting of their own. Their generators yield a `Wait` and are sent those of its
events that have come; or they yield None to let the others take their turn and what was
delivered be taken away. When a deadline has passed, `TimeoutError` is thrown into them.
"""

from __future__ import annotations

from collections.abc import Generator
from selectors import EVENT_READ, EVENT_WRITE
from typing import NamedTuple, TypeVar

__all__ = ["EVENT_READ", "EVENT_WRITE", "Steps", "Wait"]

T = TypeVar("T")


class Wait(NamedTuple):
    """What a generator waits for.

    Attributes:
        fd: a file descriptor.
        events: EVENT_READ or EVENT_WRITE or both.
        deadline: until when, on the clock of `time.monotonic`, or None for as long as it takes.
    """

    fd: int
    events: int
    deadline: float | None = None


Steps = Generator[Wait | None, int, T]
