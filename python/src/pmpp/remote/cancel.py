"""Cancelling what runs on many connections at once, without waiting long for any."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from psycopg import Error
from psycopg.pq import PollingStatus, abc

# Seconds for all requests together, so that a cancelled call ends at once.
PATIENCE = 0.2

_EVENTS = {PollingStatus.READING: EVENT_READ, PollingStatus.WRITING: EVENT_WRITE}

_Steps = Generator[tuple[int, int], None, None]


def cancel_all(pgconns: Sequence[abc.PGconn]) -> None:
    """Ask the servers of all these connections to end what they are doing.

    Returns when all have taken the request, or after PATIENCE. Raises nothing: a request that
    cannot be sent is left to the closing of the connection.
    """
    deadline = time.monotonic() + PATIENCE
    with DefaultSelector() as selector:
        for pgconn in pgconns:
            _advance(selector, _request(pgconn))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fd)
                _advance(selector, key.data)


def _advance(selector: DefaultSelector, steps: _Steps) -> None:
    with suppress(StopIteration, OSError, Error):
        selector.register(*next(steps), steps)


def _request(pgconn: abc.PGconn) -> _Steps:
    """Send the request to one server."""
    cancel = pgconn.cancel_conn()
    try:
        cancel.start()
        while (status := cancel.poll()) in _EVENTS:
            yield cancel.socket, _EVENTS[PollingStatus(status)]
    finally:
        cancel.finish()
