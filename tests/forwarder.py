"""A network that can be broken: forwards TCP connections, and stops doing so on purpose."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Literal

Fault = Literal["none", "mute", "stall", "reset", "close", "deaf"]


class Forwarder:
    """Forwards connections to a port of this machine.

    Args:
        port: where to forward to.
        fault: what happens to each connection when the limit is reached:
            mute - nothing is read or written, from the start;
            stall - nothing comes through any more;
            reset - the client's connection is reset;
            close - the client's connection is closed;
            deaf - nothing is read from the client any more.
        after: bytes from the server (deaf: from the client) until then.
        times: how many connections this happens to, None for all; the others are forwarded.
        is_late: True if connections are refused until `listen` is called.

    Attributes:
        accepted: how many connections have come.
        held: of how many connections nothing more is forwarded (stall, deaf).
        delay: how many seconds it takes new connections until the server hears from the client.
    """

    def __init__(
        self,
        port: int,
        fault: Fault = "none",
        after: int = 0,
        times: int | None = None,
        *,
        is_late: bool = False,
    ) -> None:
        self._target = port
        self._fault = fault
        self._after = after
        self._times = times
        self._is_late = is_late
        self.accepted = 0
        self.held = 0
        self.delay = 0.0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Forwarder:
        if not self._is_late:
            self.listen()
        return self

    def listen(self) -> None:
        """Accept connections from now on."""
        self._listener.listen(1000)
        threading.Thread(target=self._accept, daemon=True).start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                # __exit__ has closed the listener.
                return
            self._sockets.append(client)
            self.accepted += 1
            is_spared = self._times is not None and self.accepted > self._times
            fault: Fault = "none" if is_spared else self._fault
            if fault != "mute":
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(server)
                for arguments in ((server, client, True, fault), (client, server, False, fault)):
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, from_server: bool, fault: Fault
    ) -> None:
        is_faulty = fault != "none" and from_server == (fault != "deaf")
        passed = 0
        time.sleep(0 if from_server else self.delay)
        try:
            while data := self._receive(source):
                if is_faulty and passed + len(data) > self._after:
                    sink.sendall(data[: self._after - passed])
                    if fault in ("stall", "deaf"):
                        with self._lock:
                            self.held += 1
                        threading.Event().wait()
                    if fault == "reset":
                        sink.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                    break
                sink.sendall(data)
                passed += len(data)
        except (OSError, ValueError):
            # The other direction has closed the sockets.
            pass
        source.close()
        sink.close()

    @staticmethod
    def _receive(source: socket.socket) -> bytes:
        # Not in a blocking recv(): that would keep the connection open when it is closed.
        while not select.select([source], [], [], 0.05)[0]:
            pass
        return source.recv(65536)
