"""How a running call is ended from another thread: cancel it, or abort its connection.

Each function takes a timeout and does not take much longer, whatever the server does.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from threading import Thread

from .drivers import Connection
from .worker_connection import WorkerConnection

_logger = logging.getLogger(__name__)

# PostgreSQL's SSLRequest message. A server answers it with one byte, without authentication.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class CancelRequests:
    """Requests to cancel the calls that run on connections, if their drivers can do that."""

    def __init__(self) -> None:
        self._threads: dict[WorkerConnection, Thread] = {}
        self._aborted: set[WorkerConnection] = set()
        self._unlogged: deque[tuple[int, str]] = deque()

    def send(self, workers: Sequence[WorkerConnection], timeout: float) -> None:
        """Send requests for all connections at once, except where one is still under way.

        Args:
            workers: the connections.
            timeout: how many seconds to wait for answers.
        """
        for worker in workers:
            thread = self._threads.get(worker)
            if thread is None or not thread.is_alive():
                thread = Thread(target=self._send_one, args=(worker, timeout), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # Python starts no threads when the interpreter is about to end.
                    self._send_one(worker, timeout)
                else:
                    self._threads[worker] = thread
        self.wait(timeout)

    def wait(self, timeout: float) -> None:
        """Wait until all requests are answered, but not longer than the timeout in seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def abort(self, worker: WorkerConnection) -> None:
        """Shut down the socket of a connection, if it has one: the running call then fails."""
        event = (
            logging.WARNING,
            f"aborted {worker.display_name}, since its call could not be cancelled",
        )
        try:
            with _socket_of(worker.connection) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        except Exception as error:
            # Without a socket, the caller can only wait for the call.
            event = _failure("abort", worker, error)
        if worker not in self._aborted:
            self._aborted.add(worker)
            self._unlogged.append(event)

    def log(self) -> None:
        """Log what the requests have done since this method was called last."""
        while self._unlogged:
            _logger.log(*self._unlogged.popleft())

    def _send_one(self, worker: WorkerConnection, timeout: float) -> None:
        try:
            _cancel(worker.connection, timeout)
        except Exception as error:
            # The caller then waits for the call.
            event = _failure("cancel the call on", worker, error)
        else:
            event = logging.DEBUG, f"sent a cancel request to {worker.display_name}"
        self._unlogged.append(event)


def _failure(what: str, worker: WorkerConnection, error: Exception) -> tuple[int, str]:
    message = f"could not {what} {worker.display_name}: {type(error).__name__}: {error}"
    return logging.WARNING, message


def _cancel(connection: Connection, timeout: float) -> None:
    # These are the methods of psycopg 3, psycopg2 and sqlite3.
    for name, options in (("cancel_safe", {"timeout": timeout}), ("cancel", {}), ("interrupt", {})):
        method = getattr(connection, name, None)
        if callable(method):
            _require_answer(connection, timeout)
            method(**options)
            return
    raise NotImplementedError("the driver has no method to cancel a call")


def _require_answer(connection: Connection, timeout: float) -> None:
    """Make sure that the server of a connection answers at all, if the connection has a socket.

    psycopg2, and psycopg 3 with the libpq of PostgreSQL 16 or older, would wait for a silent server
    for ever, and no other thread of the program would run meanwhile.

    Raises:
        TimeoutError: if the server does not answer before the timeout.
    """
    try:
        with _socket_of(connection) as sock:
            family, address = sock.family, sock.getpeername()
        with socket.socket(family) as probe:
            probe.settimeout(timeout)
            probe.connect(address)
            probe.sendall(_SSL_REQUEST)
            probe.recv(1)
    except (TimeoutError, BlockingIOError):
        # A Unix socket raises BlockingIOError if too many clients wait for it.
        raise TimeoutError(f"the server did not answer within {timeout:.1f} s") from None
    except Exception:
        # The driver itself notices at once if the server refuses connections.
        return


def _socket_of(connection: Connection) -> socket.socket:
    """Return the socket of a connection of psycopg or psycopg2. The caller must close it."""
    return socket.fromfd(connection.fileno(), -1, -1)  # type: ignore[attr-defined]
