"""The settings of pmpp: `SET pmpp.name TO value` in a session, or ALTER DATABASE or ROLE … SET.

PostgreSQL takes any value for them, so they are checked when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .. import errors
from ..errors import PmppError

# What to write for each setting.
HINTS = {
    "on_error": "The values are stop and continue.",
    "max_result_size": "Write a size of at least 1MB, such as 512MB or 4GB.",
    "max_workers": "Write a number of connections, at least 1.",
    "connect_retries": "Write a number, 0 or more.",
    "progress": "Write a time such as 2s or 1min, or 0.",
}

# The most bytes to hold in memory for a query.
HELD_LIMIT = 1 << 30
# The largest value of an integer setting of PostgreSQL.
MOST = 2**31 - 1


class Settings(NamedTuple):
    """What a call has to know.

    Attributes:
        lc_monetary: how amounts of money are written here.
        on_error: "stop" or "continue" when a query fails.
        max_result_size: the most bytes to receive for a query, or None.
        max_workers: the most connections of the call at a time, or None.
        connect_retries: how often to try again to make a connection.
        progress: how many seconds to let pass between two reports, 0 for none.
        debug: True if the server's log or the client has messages of level DEBUG1.
    """

    lc_monetary: str = "C"
    on_error: str = "stop"
    max_result_size: int | None = None
    max_workers: int | None = None
    connect_retries: int = 0
    progress: float = 0.0
    debug: bool = False

    @property
    def result_limit(self) -> int | None:
        """The most bytes to receive for a query, or None if there is no limit.

        What has to be held in memory until its query is done has a limit in any case.
        """
        return self.max_result_size or (HELD_LIMIT if self.on_error == "continue" else None)


def parse(
    values: Mapping[str, str | None],
    bytes_of: Callable[[str], int],
    seconds_of: Callable[[str], float],
) -> Settings:
    """Read the settings of pmpp's own.

    Args:
        values: the text of each setting that has HINTS, None or empty if it is not set.
        bytes_of, seconds_of: read a size and a time as PostgreSQL does.

    Raises:
        PmppError: naming the setting whose value cannot be used.
    """
    read: dict[str, Callable[[str], object]] = {
        "on_error": _on_error,
        "max_result_size": lambda text: _at_least(1024 * 1024, bytes_of(text)),
        "max_workers": lambda text: _at_least(1, _number(text)),
        "connect_retries": lambda text: _at_least(0, _number(text)),
        "progress": seconds_of,
    }
    fields = {}
    for name, hint in HINTS.items():
        if text := values[name]:
            try:
                fields[name] = read[name](text)
            except ValueError:
                raise PmppError(
                    f"invalid value for pmpp.{name}: {text}",
                    sqlstate=errors.INVALID_PARAMETER_VALUE,
                    hint=hint,
                ) from None
    return Settings(**fields)  # type: ignore[arg-type]


def _on_error(text: str) -> str:
    if text.lower() not in ("stop", "continue"):
        raise ValueError
    return text.lower()


def _number(text: str) -> int:
    number = int(text)
    # Python allows underscores between digits.
    if number > MOST or "_" in text:
        raise ValueError
    return number


def _at_least(least: int, number: int) -> int:
    if number < least:
        raise ValueError
    return number
