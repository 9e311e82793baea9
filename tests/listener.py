"""A server in a thread of the test that answers with whatever bytes the test gives it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress


def message(kind: bytes, *fields: bytes) -> bytes:
    """Return a message of PostgreSQL's protocol."""
    body = b"".join(fields)
    return kind + (len(body) + 4).to_bytes(4, "big") + body


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections, one after another, until the end of the block; yields the TCP port.

    Args:
        serve: serves a connection, which is closed afterwards, also if the client has closed it.
    """
    with socket.create_server(("127.0.0.1", 0)) as accepting, ThreadPoolExecutor(1) as pool:

        def accept() -> None:
            while True:
                try:
                    client, _ = accepting.accept()
                except OSError:
                    # The block has ended.
                    return
                with client, suppress(OSError):
                    serve(client)

        running = pool.submit(accept)
        try:
            yield accepting.getsockname()[1]
        finally:
            accepting.shutdown(socket.SHUT_RDWR)
        running.result()
