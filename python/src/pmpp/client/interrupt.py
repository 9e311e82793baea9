"""How a call that runs on a connection is ended from outside.

No call in here takes much longer than it is told to, whatever the server does.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

from .dbapi import Connection

# What asks a PostgreSQL server whether it has TLS: it answers anybody, with one byte.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Cancels:
    """Requests that the calls which run on connections end, where their drivers can do that."""

    def __init__(self) -> None:
        self._threads: dict[int, Thread] = {}

    def ask(self, connections: Sequence[Connection], timeout: float) -> None:
        """Ask for all connections at once, but not again for one while a request is under way.

        Args:
            connections: the connections.
            timeout: how many seconds to wait for answers.
        """
        for connection in connections:
            thread = self._threads.get(id(connection))
            if thread is None or not thread.is_alive():
                thread = Thread(target=_cancel, args=(connection, timeout), daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is about to end
                    _cancel(connection, timeout)
                else:
                    self._threads[id(connection)] = thread
        self.wait(timeout)

    def wait(self, timeout: float) -> None:
        """Wait until all requests are done, no longer than so many seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))


def cut(connection: Connection) -> None:
    """Shut the socket of a connection, where the driver tells it: the call that runs then fails."""
    with suppress(Exception), _wire(connection) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def _cancel(connection: Connection, timeout: float) -> None:
    for name, options in (
        ("cancel_safe", {"timeout": timeout}),  # of psycopg 3
        ("cancel", {}),  # of psycopg2
        ("interrupt", {}),  # of sqlite3
    ):
        method = getattr(connection, name, None)
        if callable(method):
            if _may_answer(connection, timeout):
                with suppress(Exception):  # then the call must be waited for
                    method(**options)
            return


def _may_answer(connection: Connection, timeout: float) -> bool:
    """Return False if the server of a connection answers nothing within a time.

    psycopg2, and psycopg 3 with the libpq of PostgreSQL 16 or older, would wait for such a server
    for ever, and let no other thread of the program run meanwhile.
    """
    try:
        with _wire(connection) as wire:
            family, address = wire.family, wire.getpeername()
        with socket.socket(family) as probe:
            probe.settimeout(timeout)
            probe.connect(address)
            probe.sendall(_SSL_REQUEST)
            probe.recv(1)
    except (TimeoutError, BlockingIOError):  # the latter if too many wait at a Unix socket
        return False
    except Exception:  # refused or no socket, which the driver notices at once
        return True
    return True


def _wire(connection: Connection) -> socket.socket:
    """Return the socket of a connection of psycopg or psycopg2, to be closed after use."""
    return socket.fromfd(connection.fileno(), -1, -1)  # type: ignore[attr-defined]
