"""Cancelling what runs on many connections at once, without waiting long for any.

libpq 17 can send cancel requests without blocking. Before that there is only `PQcancel`, which
blocks for as long as the remote likes: inside a server process that is out of the question.
So there the sixteen bytes of the request are sent from here. The key that they need is in
the structure that `PQgetCancel` returns; its layout was the same in all versions of libpq
that lack the better way (10 to 16), and the process id beside the key shows if it is right.
If it is not, closing the connection must do: a server since PostgreSQL 14 notices that.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Any

from psycopg import Error, capabilities
from psycopg.pq import PollingStatus, abc

PATIENCE = 0.2  # seconds; all requests together, so that a cancelled call ends at once

_REQUEST_CODE = 80877102
_PID_AND_KEY_OFFSET = 136  # behind a struct sockaddr_storage and its length, aligned
_EVENTS = {PollingStatus.READING: EVENT_READ, PollingStatus.WRITING: EVENT_WRITE}

_Steps = Generator[tuple[int, int], None, None]


def cancel_all(pgconns: Sequence[abc.PGconn]) -> None:
    """Ask the servers of all these connections to end what they are doing.

    Returns when all have taken the request, or after PATIENCE. Raises nothing: a request that
    cannot be sent is left to the closing of the connection.
    """
    deadline = time.monotonic() + PATIENCE
    request = _request if capabilities.has_cancel_safe() else _handmade_request
    with DefaultSelector() as selector:
        for pgconn in pgconns:
            _advance(selector, request(pgconn))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fd)
                _advance(selector, key.data)


def _advance(selector: DefaultSelector, steps: _Steps) -> None:
    with suppress(StopIteration, OSError, Error):
        selector.register(*next(steps), steps)


def _request(pgconn: abc.PGconn) -> _Steps:
    """Cancel by libpq 17 and later."""
    cancel = pgconn.cancel_conn()
    try:
        cancel.start()
        while (status := cancel.poll()) in _EVENTS:
            yield cancel.socket, _EVENTS[PollingStatus(status)]
    finally:
        cancel.finish()


def _handmade_request(pgconn: abc.PGconn) -> _Steps:
    """Cancel as libpq before 17 does, but without blocking."""
    key = _cancel_key(pgconn)
    if key is None:
        return
    with socket.socket(fileno=os.dup(pgconn.socket)) as session_socket:
        address = session_socket.getpeername()
        family = session_socket.family
    with socket.socket(family, socket.SOCK_STREAM) as request_socket:
        request_socket.setblocking(False)
        with suppress(BlockingIOError):
            request_socket.connect(address)
        yield request_socket.fileno(), EVENT_WRITE
        request_socket.send(struct.pack("!4i", 16, _REQUEST_CODE, pgconn.backend_pid, key))
        yield request_socket.fileno(), EVENT_READ  # the server hangs up when it is done


def _cancel_key(pgconn: Any) -> int | None:
    import ctypes  # only needed here, and rarely

    libpq = ctypes.CDLL("libpq.so.5")
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.c_void_p
    libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
    pointer = libpq.PQgetCancel(pgconn.pgconn_ptr)
    if not pointer:
        return None
    try:
        memory = ctypes.string_at(pointer, _PID_AND_KEY_OFFSET + 8)
    finally:
        libpq.PQfreeCancel(pointer)
    pid, key = struct.unpack_from("=2i", memory, _PID_AND_KEY_OFFSET)
    return key if pid == pgconn.backend_pid else None
