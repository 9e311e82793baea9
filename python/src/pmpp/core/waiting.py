"""How generators say what they wait for.

Sessions do no waiting of their own. Their generators yield a `Wait` and are sent those of its
events that have come; or they yield None to let the others take their turn and what was
delivered be taken away. When a deadline has passed, `TimeoutError` is thrown into them.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from selectors import EVENT_READ, EVENT_WRITE
from typing import NamedTuple, TypeVar

__all__ = ["EVENT_READ", "EVENT_WRITE", "Steps", "Wait", "pause"]

T = TypeVar("T")

NOTHING = -1


class Wait(NamedTuple):
    """What a generator waits for.

    Attributes:
        fd: a file descriptor, or NOTHING to wait for the deadline alone.
        events: EVENT_READ or EVENT_WRITE or both.
        deadline: until when, on the clock of `time.monotonic`, or None for as long as it takes.
    """

    fd: int
    events: int
    deadline: float | None = None


Steps = Generator[Wait | None, int, T]


def pause(seconds: float) -> Steps[None]:
    """Let that much time pass."""
    try:
        yield Wait(NOTHING, 0, time.monotonic() + seconds)
    except TimeoutError:
        return
