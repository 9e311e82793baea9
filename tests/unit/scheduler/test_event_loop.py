"""The event loop bounds what all connections together have received and not delivered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import cast

import pytest
from pmpp.core.waiting import EVENT_READ, Steps, Wait
from pmpp.remote.connection import Connection
from pmpp.scheduler.event_loop import HIGH_WATER, Loop

MB = 1024 * 1024


class Receiver:
    """In place of a connection: it receives a megabyte at a time, and delivers it in large chunks."""

    def __init__(self) -> None:
        # The session is connected.
        self.pgconn = object()
        self.received = 0
        self.delivered = 0
        self.ours, self.theirs = socket.socketpair()

    def steps(self, chunks: int, size: int) -> Steps[None]:
        for _ in range(chunks):
            while self.received < size:
                yield Wait(self.ours.fileno(), EVENT_READ)
                self.received += MB
            self.received = 0
            self.delivered += 1
            yield None

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    found = [Receiver() for _ in range(20)]
    yield found
    for receiver in found:
        receiver.close()


def start(receivers: list[Receiver], chunks: int, size: int) -> Loop:
    loop = Loop(lambda: None)
    for receiver in receivers:
        loop.start(cast(Connection, receiver), receiver.steps(chunks, size))
    return loop


def test_large_chunks_are_received_one_at_a_time(receivers: list[Receiver]) -> None:
    """However many connections receive them, one of them and the high-water mark is the bound."""
    for receiver in receivers:
        receiver.theirs.send(b"there is always something to read")
    loop = start(receivers, chunks=3, size=32 * MB)
    most = 0
    while loop.connections():
        loop.turn()
        most = max(most, sum(receiver.received for receiver in receivers))
    assert [receiver.delivered for receiver in receivers] == [3] * len(receivers)
    assert most <= HIGH_WATER + (32 + len(receivers)) * MB


def test_others_receive_when_one_stalls(receivers: list[Receiver]) -> None:
    """A connection that gets nothing more while it is the only one does not stop the others."""
    for receiver in receivers:
        receiver.theirs.send(b"something to read")
    loop = start(receivers, chunks=1, size=32 * MB)
    while not any(receiver.received > HIGH_WATER for receiver in receivers):
        loop.turn()
    stalled = max(receivers, key=lambda receiver: receiver.received)
    stalled.ours.recv(100)
    while len(loop.connections()) > 1:
        loop.turn()
    assert [receiver.delivered for receiver in receivers].count(1) == len(receivers) - 1
    assert not stalled.delivered
    loop.close()


def test_small_results_are_received_meanwhile(receivers: list[Receiver]) -> None:
    """The event loop never pauses a small result."""
    small, *large = receivers
    for receiver in large:
        receiver.theirs.send(b"something to read")
    loop = start(large, chunks=1, size=32 * MB)
    while sum(receiver.received for receiver in large) <= HIGH_WATER:
        loop.turn()
    small.theirs.send(b"something to read")
    loop.start(cast(Connection, small), small.steps(chunks=1, size=MB))
    while not small.delivered:
        loop.turn()
    assert not any(receiver.delivered for receiver in large)
    loop.close()
