"""The error of ParallelConnection, and how several failures become one exception."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import PmppError

_logger = logging.getLogger(__name__)

T = TypeVar("T")

QUERY_CANCELED = "57014"
IN_FAILED_SQL_TRANSACTION = "25P02"


class InterfaceError(PmppError):
    """A wrong use of ParallelConnection. What a driver refuses, the driver raises itself."""


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, also before Python 3.11, which brought add_note."""
    # An exception may refuse new attributes.
    with suppress(Exception):
        error.__notes__ = [*getattr(error, "__notes__", ()), note]


def attach_failures(error: BaseException, others: Sequence[BaseException]) -> None:
    """Add further failures to the exception that is raised: as notes, and as `other_failures`."""
    for other in others:
        lines = [f"also failed: {type(other).__name__}: {other}", *getattr(other, "__notes__", ())]
        add_note(error, "\n    ".join(lines))
    failures = [*getattr(error, "other_failures", ()), *others]
    try:
        error.other_failures = failures  # type: ignore[attr-defined]
    except Exception:
        # Nobody else would learn of failures that an exception refuses as an attribute.
        for other in others:
            _logger.warning("a further failure: %s: %s", type(other).__name__, other)


def run_all(functions: Iterable[Callable[[], Any]]) -> None:
    """Call all functions, then raise the first failure with the others attached."""
    failures = []
    for function in functions:
        try:
            function()
        except Exception as failure:
            failures.append(failure)
    if failures:
        attach_failures(failures[0], failures[1:])
        raise failures[0]


def drain(items: list[T], function: Callable[[T], Any]) -> None:
    """Call a function with each item, the last one first, and remove the item from the list.

    A signal handler or another thread may drain the same list meanwhile.

    Raises:
        Exception: the first failure, with the others attached. Items that fail are removed too.
        KeyboardInterrupt: at once. The item stays in the list, and another call begins with it.
    """

    def handle_last() -> None:
        try:
            item = items.pop()
        except IndexError:
            # A signal handler or another thread was faster.
            return
        try:
            function(item)
        except Exception:
            raise
        except BaseException:
            items.append(item)
            raise

    run_all(handle_last for _ in range(len(items)))
