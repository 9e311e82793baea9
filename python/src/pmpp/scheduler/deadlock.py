"""Finding workers that wait for their own caller.

PostgreSQL finds deadlocks of sessions that wait for locks. It does not know that the session that
made a call waits too: for its workers.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from ..core.target import caller_of

_CREDENTIALS = struct.Struct("3i")  # process, user and group, see unix(7)

Key = TypeVar("Key", bound=Hashable)


class Waiting(NamedTuple):
    """A lock that a session waits for.

    Attributes:
        mode, type: as pg_locks has them.
        relation: the oid of the relation that is locked, or None.
    """

    mode: str
    type: str
    relation: int | None


class Named(NamedTuple):
    """A session.

    Attributes:
        name: its application_name.
        is_active: True if it runs a statement.
    """

    name: str
    is_active: bool


class Sessions(Protocol):
    """What PostgreSQL knows of the sessions of the local server."""

    def blockers(self, pids: Sequence[int]) -> dict[int, list[int]]:
        """Return the processes that each of these waits for, of those that wait for any."""

    def named(self) -> dict[int, Named]:
        """Return the sessions that the caller may see in full, by their process ids."""

    def waiting(self, pid: int) -> Waiting | None:
        """Return the lock that a process waits for."""


class Worker(NamedTuple):
    """A session of a remote server that runs something for the call.

    Attributes:
        pid: its process id there.
        name: its application_name.
        fd: the descriptor of the socket that is connected to it.
    """

    pid: int
    name: str
    fd: int


class Deadlocks:
    """Looks now and then for workers that wait for a lock until the call ends.

    Args:
        sessions: those of the local server.
        pid: the process of the caller.
        port: that of the local server.
        timeout: how many seconds a worker waits before it is looked at, deadlock_timeout.
    """

    def __init__(self, sessions: Sessions, pid: int, port: int, timeout: float) -> None:
        self._sessions = sessions
        self._pid = pid
        self._port = port
        self._timeout = timeout
        self._next_look = time.monotonic() + timeout / 2
        self._since: dict[Hashable, float] = {}

    def is_due(self) -> bool:
        """Return True if it is time to look."""
        return time.monotonic() >= self._next_look

    def find(self, workers: Mapping[Key, Worker]) -> dict[Key, str]:
        """Return the workers that wait for the caller, each with a sentence on who waits for whom.

        If the worker waits for another worker of the call, only that one may be returned.
        """
        now = time.monotonic()
        self._next_look = now + self._timeout / 2
        blockers = self._sessions.blockers([worker.pid for worker in workers.values()])
        waiting = [key for key, worker in workers.items() if worker.pid in blockers]
        self._since = {key: self._since.get(key, now) for key in waiting}
        late = [key for key in waiting if now - self._since[key] >= self._timeout]
        if not late:
            return {}
        named = self._sessions.named()
        own = {worker.pid for worker in workers.values() if self._is_local(worker, named)}
        found: dict[Key, str] = {}
        for key in late:
            pid = workers[key].pid
            chain = self._chain(pid, own, named) if pid in own else None
            if chain:
                found[key] = self._sentence(chain)
        return found

    def _is_local(self, worker: Worker, named: Mapping[int, Named]) -> bool:
        """Return True if a worker is a session of this server.

        A process of another server may by chance have the process id of a local one.
        """
        return leads_here(worker.fd, self._port) or named.get(worker.pid) == (worker.name, True)

    def _chain(self, pid: int, own: set[int], named: Mapping[int, Named]) -> list[int] | None:
        """Return the processes that lead from a worker to the caller, None if there is no way.

        Args:
            pid: of the worker.
            own: all workers of the call on this server. A way through another one is its own.
            named: see `Sessions.named`. A session may wait for the workers of its own call.
        """
        workers: dict[int, list[int]] = {}
        for worker, (name, is_active) in named.items():
            caller = caller_of(name)
            if (
                caller is not None
                and is_active
                and (caller not in named or named[caller].is_active)
            ):
                workers.setdefault(caller, []).append(worker)
        ways: dict[int, list[int]] = {pid: [pid]}
        left = deque([pid])
        while left:
            last = left.popleft()
            blockers = self._sessions.blockers([last]).get(last, [])
            for blocker in blockers + workers.get(last, []):
                if blocker == self._pid:
                    return [*ways[last], blocker]
                if blocker not in ways and blocker not in own:
                    ways[blocker] = [*ways[last], blocker]
                    left.append(blocker)
        return None

    def _sentence(self, chain: Sequence[int]) -> str:
        lock = self._sessions.waiting(chain[0])
        wanted = ""
        if lock is not None:
            wanted = f" for {lock.mode} ({lock.type})"
            if lock.relation is not None:
                wanted = f" for {lock.mode} on relation {lock.relation}"
        steps = [f"Process {chain[0]} waits{wanted}, blocked by process {chain[1]}"]
        steps += [f"which waits for process {pid}" for pid in chain[2:]]
        return f"{', '.join(steps)}, the session that made the call."


def leads_here(fd: int, port: int) -> bool:
    """Return True if a socket is connected to the server that this process belongs to.

    Args:
        fd: the descriptor of the socket.
        port: the port of the server.
    """
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_UNIX:
            answer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return bool(_CREDENTIALS.unpack(answer)[0] == os.getppid())
        here, there = sock.getsockname(), sock.getpeername()
        return bool(here[0] == there[0] and there[1] == port)
