"""Workers that wait for the caller, according to PostgreSQL's functions."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence

import pytest
from pmpp.scheduler.deadlock import Deadlocks, Named, Waiting, Worker

CALLER = 10
OWN = "pmpp 10 item 1"


class Sessions:
    """Stands for a server: which session waits for which, and their names."""

    def __init__(self, blockers: Mapping[int, list[int]], named: Mapping[int, Named]) -> None:
        self._blockers = blockers
        self._named = named

    def blockers(self, pids: Sequence[int]) -> dict[int, list[int]]:
        return {pid: self._blockers[pid] for pid in pids if pid in self._blockers}

    def named(self) -> dict[int, Named]:
        return dict(self._named)

    def waiting(self, pid: int) -> Waiting | None:
        return None


@pytest.fixture
def fd() -> Iterator[int]:
    """A socket that does not lead to the server that the process belongs to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.fileno()


def active(*names: tuple[int, str]) -> dict[int, Named]:
    return {pid: Named(name, True) for pid, name in names}


@pytest.mark.parametrize(
    ("blockers", "named", "found"),
    [
        ({20: [CALLER]}, active((20, OWN)), [20]),
        ({20: [30], 30: [31, CALLER]}, active((20, OWN)), [20]),
        # A session of this server that has the process id of a worker elsewhere.
        ({20: [CALLER]}, active((20, "psql")), []),
        ({20: [CALLER]}, active((20, "pmpp 11 item 1")), []),
        # One that the caller may not see, or that runs nothing.
        ({20: [CALLER]}, {}, []),
        ({20: [CALLER]}, {20: Named(OWN, False)}, []),
        # Others that wait for each other, and prepared transactions, which have no process.
        ({20: [30], 30: [31], 31: [30, 0]}, active((20, OWN)), []),
        # Only the worker that waits itself.
        ({20: [21], 21: [CALLER]}, active((20, OWN), (21, OWN)), [21]),
        # The caller of another call waits for its worker, unless its client has the turn.
        ({20: [30], 40: [CALLER]}, active((20, OWN), (40, "pmpp 30 item 1")), [20]),
        (
            {20: [30], 40: [CALLER]},
            {**active((20, OWN), (40, "pmpp 30 item 1")), 30: Named("", False)},
            [],
        ),
        # A call in a worker: its worker waits for the outer caller, which waits for this one.
        ({20: [30]}, active((20, OWN), (CALLER, "pmpp 30 item 1")), [20]),
        ({20: [30]}, active((20, OWN), (40, "pmpp 30 item 1"), (CALLER, "pmpp 40 item 2")), [20]),
    ],
)
def test_found(
    fd: int, blockers: dict[int, list[int]], named: dict[int, Named], found: list[int]
) -> None:
    """pmpp finds workers that wait for the caller, directly or through others."""
    deadlocks = Deadlocks(Sessions(blockers, named), CALLER, 5432, timeout=0)
    workers = {pid: Worker(pid, OWN, fd) for pid in (20, 21)}
    assert list(deadlocks.find(workers)) == found


def test_not_before_the_timeout(fd: int) -> None:
    """pmpp does not check a worker before deadlock_timeout."""
    deadlocks = Deadlocks(Sessions({20: [CALLER]}, active((20, OWN))), CALLER, 5432, timeout=100)
    assert not deadlocks.is_due()
    assert not deadlocks.find({20: Worker(20, OWN, fd)})
