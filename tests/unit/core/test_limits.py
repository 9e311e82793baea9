"""How many connections may be open at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pmpp.core.interrupts import Interrupts
from pmpp.core.limits import UNCOUNTED, Limiter, Limits, OpenFiles
from pmpp.core.target import Address, Target
from pmpp.errors import PmppError
from pmpp.remote.policy import Caller, ForeignServer, from_server, from_string
from psycopg.conninfo import make_conninfo

CALLER = Caller("admin", True, 42, Address("/nowhere/socket", "5433"))


def target(*hosts: str, server: str | None = None, hostaddr: str = "") -> Target:
    """What a connection string or a foreign server with these hosts leads to."""
    params = {"host": ",".join(hosts), "hostaddr": hostaddr}
    if server:
        options = ForeignServer(server, params, has_usage=True, is_postgres_fdw=True)
        return from_server("item 1", options, {}, CALLER)
    return from_string("item 1", make_conninfo(**params), CALLER)


def limiter_of(
    limits: Limits, total: int | None, targets: dict[int, Target], open_files: OpenFiles = UNCOUNTED
) -> Limiter:
    return Limiter(limits, total, targets, Interrupts(lambda: None), open_files)


def limits(*servers: str, **most: int) -> Limits:
    """Limits by name; `everywhere` stands for the star."""
    by_name = {"*" if name == "everywhere" else name: limit for name, limit in most.items()}
    return Limits(by_name, frozenset(servers))


def count(limiter: Limiter, item: int) -> int:
    """Open connections of an item until no more are permitted; return how many were."""
    opened = 0
    while opened < 100 and limiter.acquire(item) is None:
        opened += 1
    return opened


def test_without_limits_every_connection_is_permitted() -> None:
    """A target without a limit has no limit."""
    assert count(limiter_of(Limits(), None, {1: target("a")}), 1) == 100
    assert count(limiter_of(limits(b=1), None, {1: target("a")}), 1) == 100


def test_items_share_the_limit_of_a_host() -> None:
    """Two items that lead to the same host share its limit; closing a connection permits another."""
    limiter = limiter_of(
        limits(a=3), None, {1: target("a"), 2: target("a", server="server"), 3: target("b")}
    )
    assert limiter.acquire(1) is None
    assert count(limiter, 2) == 2
    assert limiter.acquire(1) == ("a",)
    limiter.release(2)
    assert limiter.acquire(1) is None
    assert count(limiter, 3) == 100


def test_the_smallest_limit_counts() -> None:
    """A server, its host, and the call as a whole are all limited."""
    both = limits(server=5, host=2)
    assert count(limiter_of(both, None, {1: target("host", server="server")}), 1) == 2
    assert count(limiter_of(both, None, {1: target("other", server="server")}), 1) == 5
    assert count(limiter_of(both, 4, {1: target("other", server="server")}), 1) == 4


def test_star_limits_each_of_those_without_a_limit() -> None:
    """Under a star every host without a limit of its own has that limit for itself."""
    limiter = limiter_of(
        limits(everywhere=2, a=3),
        None,
        {1: target("a"), 2: target("b"), 3: target("c"), 4: target()},
    )
    assert [count(limiter, n) for n in (1, 2, 3, 4)] == [3, 2, 2, 2]


def test_star_is_not_evaded_by_further_names() -> None:
    """Connection strings that lead to one host share its limit, whatever other hosts they name."""
    targets = {
        1: target("a"),
        2: target("a", server="x"),
        3: target("a", hostaddr="y"),
        4: target("a", "a"),
    }
    limiter = limiter_of(limits(everywhere=2), None, targets)
    assert [count(limiter, n) for n in (2, 3, 4, 1)] == [2, 0, 0, 0]


LISTED = limits("warehouse", everywhere=0, warehouse=8, db1=3)


@pytest.mark.parametrize(
    ("listed", "most"),
    [
        (target("db9", server="warehouse"), 8),
        (target("db9", "db8", server="warehouse"), 8),
        (target(server="warehouse"), 8),
        (target("db1"), 3),
        (target("db1", server="other"), 3),
        (target("db1", server="warehouse"), 3),
        (target(hostaddr="db1"), 3),
        (target("db1", hostaddr="db1"), 3),
    ],
)
def test_list_of_what_is_allowed(listed: Target, most: int) -> None:
    """If the star has 0, calls connect to the servers and hosts that have a limit."""
    assert count(limiter_of(LISTED, None, {1: listed}), 1) == most


@pytest.mark.parametrize(
    "evading",
    [
        target(),
        target("db2"),
        target("db1", "db2"),
        target("db2", "db1"),
        target("db1", ""),
        target("", "db1"),
        target("db1", hostaddr="192.0.2.1"),
        target("db1", "db1", hostaddr="db1,192.0.2.1"),
        target("db2", hostaddr="db1"),
        target(hostaddr="192.0.2.1"),
        target("*"),
        target("warehouse"),
        target("warehouse", hostaddr="warehouse"),
        target("db2", server="other"),
        target(server="other"),
        target("db2", server="db1"),
        target(server="db1"),
    ],
)
def test_list_is_not_evaded(evading: Target) -> None:
    """Every host and address must be in the list, whatever it is called and in which order."""
    with pytest.raises(PmppError, match="are not allowed"):
        limiter_of(LISTED, None, {1: evading})


@pytest.mark.parametrize(
    ("row", "spellings"),
    [
        ("db1", ["DB1", "db1.", "Db1."]),
        ("192.0.2.1", ["192.0.513", "0xc0000201", "::ffff:192.0.2.1", "::FFFF:c000:201"]),
        ("2001:db8::1", ["2001:DB8:0:0:0:0:0:1", "2001:db8::0001"]),
        ("127.0.0.1", ["127.1", "0", "0.0.0.0", "0177.0.0.1", "::ffff:7f00:1"]),
        ("::1", ["::", "0:0:0:0:0:0:0:1"]),
        ("/nowhere/socket", ["", "/nowhere//socket/", "/nowhere/x/../socket"]),
        ("/nowhere//socket", ["", "/nowhere/socket"]),
        ("DB1", ["db1"]),
    ],
)
def test_a_limit_is_not_evaded_by_another_spelling(row: str, spellings: list[str]) -> None:
    """All spellings of a host or address share its limit, as a name and as an address."""
    given = [row, *spellings]
    targets = dict(enumerate([*map(target, given), *(target("a", hostaddr=h) for h in given if h)]))
    for number in targets:
        limiter = limiter_of(Limits({row: 2}), None, targets)
        assert count(limiter, number) == 2
        assert None not in map(limiter.acquire, targets)
    everywhere = limiter_of(limits(everywhere=2), None, dict(enumerate(map(target, given))))
    assert sum(count(everywhere, number) for number in range(len(given))) == 2


def test_a_limit_is_not_evaded_by_a_link(tmp_path: Path) -> None:
    """A link to the directory of a socket is the directory."""
    link = tmp_path / "link"
    os.symlink(tmp_path, link)
    targets = {1: target(str(link)), 2: target(str(tmp_path))}
    limiter = limiter_of(Limits({str(tmp_path): 2}), None, targets)
    assert [count(limiter, 1), count(limiter, 2)] == [2, 0]


def test_long_names_are_compared_at_once() -> None:
    """The limits compare the name of a directory that is too long for a socket as text."""
    targets = {n: target(part * 150_000) for n, part in enumerate(["/a", "/..", "x.", "0."])}
    assert count(limiter_of(limits(everywhere=2), None, targets), 0) == 2


class Counted:
    """In place of the server's count of open files."""

    def __init__(self, most: int) -> None:
        self.left = most

    def acquire(self) -> bool:
        if self.left:
            self.left -= 1
            return True
        return False

    def release(self) -> None:
        self.left += 1


def test_all_calls_of_a_process() -> None:
    """All calls of a process share its files, and a call that gets none raises an error."""
    counted = Counted(20)
    files = OpenFiles(counted.acquire, counted.release)
    first, second, third = (limiter_of(Limits(), None, {1: target("a")}, files) for _ in range(3))
    assert count(first, 1) == 20
    assert first.lacks_files
    with pytest.raises(PmppError, match="too many connections open"):
        second.acquire(1)
    for _ in range(5):
        first.release(1)
    assert count(second, 1) == 5
    first.close()
    assert count(second, 1) == 15
    second.close()
    assert count(third, 1) == 20
    third.close()
    assert counted.left == 20
