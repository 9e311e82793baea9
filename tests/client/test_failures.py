"""What pmpp raises when a call fails, and that all works again after a rollback."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import psycopg2
import psycopg2.errors
import pytest
from client_shards import (
    DIVISION_BY_ZERO,
    ROWS,
    SLEEP,
    FrozenError,
    Open,
    assert_no_rows,
    assert_usable,
    counting,
    dividing_by,
    memory_database,
    on_each_postgres,
    other_failures,
    view,
)
from cluster import Cluster
from helpers import PASSWORD, eventually
from pmpp import InterfaceError, ParallelConnection
from psycopg.conninfo import make_conninfo


def assert_nothing_runs(cluster: Cluster) -> None:
    """Wait until no session of a shard runs a query."""
    running = "select from pg_stat_activity where datname like 'shard%' and state = 'active'"
    eventually(cluster, f"not exists ({running})")


@on_each_postgres
def test_one_fails_at_execute(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """pmpp cancels the other connections, and the driver's exception names the one that failed."""
    pdb = connect_shards(driver, prepare=view({4: dividing_by("n - 2000")}, SLEEP))
    cursor = pdb.cursor()
    with pytest.raises(DIVISION_BY_ZERO[driver]) as caught:
        cursor.execute("select * from v")
    where = f"host={cluster.host} port={cluster.port} dbname=shard4"
    assert caught.value.__notes__ == [f"on connection 4 ({where})"]
    assert other_failures(caught.value) == []
    assert_no_rows(cursor)
    assert_usable(cursor)


@on_each_postgres
def test_one_fails_in_mid_fetch(connect_shards: Open, driver: str) -> None:
    """pmpp cancels a server-side cursor that has not returned rows yet."""
    pdb = connect_shards(driver, prepare=view({4: dividing_by("n - 2000"), 7: SLEEP}))
    with pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(1000)) == 1000
        with pytest.raises(DIVISION_BY_ZERO[driver]) as caught:
            cursor.fetchall()
        assert "dbname=shard4" in caught.value.__notes__[0]
        assert_no_rows(cursor)
    assert_usable(pdb.cursor())


@pytest.mark.parametrize("failing_row", [1, 2000])
def test_several_fail(failing_row: int) -> None:
    """If several connections fail, the exception has all failures."""
    failing = threading.Barrier(3)

    def fail(n: int) -> int:
        if n == failing_row:
            failing.wait()
            raise ValueError
        return n

    connections = [memory_database() for _ in range(5)]
    for index, connection in enumerate(connections):
        connection.create_function("f", 1, fail if index in (0, 2, 3) else abs)
    names = ["a", "b", "c", "d", "e"]
    with ParallelConnection(connections, names=names) as pdb:
        cursor = pdb.cursor()
        with pytest.raises(sqlite3.OperationalError) as caught:
            deque(cursor.execute(counting("f(n)")), maxlen=0)
        failures = [caught.value, *other_failures(caught.value)]
        assert {type(failure) for failure in failures} == {sqlite3.OperationalError}
        assert sorted(failure.__notes__[0] for failure in failures) == [
            "on connection 0 (a)", "on connection 2 (c)", "on connection 3 (d)",
        ]  # fmt: skip
        assert sum("also failed: OperationalError" in note for note in caught.value.__notes__) == 2
        pdb.rollback()
        assert cursor.execute("select 1").fetchall() == [(1,)] * 5


@on_each_postgres
def test_limit_of_several_servers(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """A statement_timeout on several servers is a failure of each, though it looks like a cancel."""
    said = "canceling statement due to statement timeout"
    before = cluster.read_log().count(said)
    pdb = connect_shards(driver, prepare=lambda _: "set statement_timeout = 200")
    with pytest.raises((psycopg.Error, psycopg2.Error), match=said) as caught:
        pdb.cursor().execute("select pg_sleep(100)")
    pdb.rollback()
    assert 1 + len(other_failures(caught.value)) == cluster.read_log().count(said) - before


def test_exception_that_takes_no_attributes(connect_shards: Open) -> None:
    """An exception that takes no attributes leaves the block unchanged."""
    pdb = connect_shards("psycopg")
    cursor = pdb.cursor().execute(ROWS)

    def fail() -> None:
        with cursor:
            raise FrozenError

    with pytest.raises(FrozenError):
        fail()
    assert cursor.closed


def test_name_of_what_is_closed(dsns: list[str]) -> None:
    """If the driver does not know host and database, messages show the class of a connection."""
    connection = psycopg2.connect(dsns[0])
    connection.close()
    pdb = ParallelConnection([connection])
    with pytest.raises(psycopg2.InterfaceError) as caught:
        pdb.cursor()
    assert caught.value.__notes__ == ["on connection 0 (psycopg2.extensions.connection)"]
    pdb.close()


@on_each_postgres
def test_cause_of_a_later_failure(connect_shards: Open, driver: str) -> None:
    """A failure that follows from a pending error has the pending error as its context."""
    pdb = connect_shards(driver, shards=range(4, 5), prepare=view({4: dividing_by("n - 2")}))
    with pdb.cursor(name="c") as ahead:
        ahead.execute("select * from v")
        assert ahead.fetchone() == (None, None)
        with pytest.raises((psycopg.Error, psycopg2.Error)) as caught:
            pdb.cursor().execute("select 1")
    assert isinstance(caught.value.__context__, DIVISION_BY_ZERO[driver])


@on_each_postgres
def test_rollback_cancels(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """A rollback does not wait for a slow connection, and the connections are usable after it."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    with pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(100)) == 100
        pdb.rollback()
        assert_nothing_runs(cluster)
        assert_no_rows(cursor)
        # psycopg2 refuses to close a cursor that its server does not have any more.
        with suppress(psycopg2.ProgrammingError):
            cursor.close()
    assert_usable(pdb.cursor())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlite3"])
def test_rollback_ends_results(connect_shards: Open, driver: str) -> None:
    """A cursor returns no rows after a rollback, not even rows that the driver holds."""
    pdb = connect_shards(driver)
    cursors = [pdb.cursor().execute(ROWS) for _ in range(3)]
    cursors[1].fetchone()
    cursors[2].fetchall()
    pdb.rollback()
    for cursor in cursors:
        assert_no_rows(cursor)
        assert_usable(cursor)


@on_each_postgres
def test_exception_cancels(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """An exception that leaves a `with` block does not wait for a slow connection."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    with suppress(ZeroDivisionError), pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(100)) == 100
        raise ZeroDivisionError
    assert_nothing_runs(cluster)
    assert_usable(pdb.cursor())


@on_each_postgres
def test_lost_connection(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """The error for a terminated session names its connection, and close works."""
    pdb = connect_shards(driver)
    cursor = pdb.cursor()
    with psycopg.connect(dsns[0], autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = 'shard4'"
        )
    with pytest.raises((psycopg.OperationalError, psycopg2.OperationalError)) as caught:
        cursor.execute("select 1")
    assert "dbname=shard4" in caught.value.__notes__[0]
    pdb.close()
    assert pdb.closed


def test_sqlite_of_one_thread() -> None:
    """The error for a connection that only one thread may use has a hint."""
    pdb = ParallelConnection([sqlite3.connect(":memory:"), sqlite3.connect(":memory:")])
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        pdb.cursor()
    assert "check_same_thread=False" in caught.value.__notes__[0]
    pdb.close()


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_no_password_shows(by_network: str, new_role: Callable[..., str], driver: Any) -> None:
    """Messages show the host of a connection and not its password."""
    dsn = make_conninfo(by_network, user=new_role(), password=PASSWORD)
    with ParallelConnection([driver.connect(dsn)]) as pdb:
        with pytest.raises(driver.Error) as caught:
            pdb.cursor().execute("select nope")
        assert "host=127.0.0.1" in caught.value.__notes__[0]
        assert PASSWORD not in f"{caught.value} {caught.value.__notes__}"
        pdb.rollback()


def test_mogrify(connect_shards: Open) -> None:
    """`mogrify` returns the statement as the first connection sends it, if its driver can."""
    assert connect_shards("psycopg2").cursor().mogrify("select %s", ("it's",)) == b"select 'it''s'"
    with pytest.raises(InterfaceError, match=r"connection 0 .* has no mogrify .*ClientCursor"):
        connect_shards("psycopg").cursor().mogrify("select 1")


def test_wrong_arguments() -> None:
    """Each wrong argument has its own error."""
    connections = [memory_database() for _ in range(2)]
    with pytest.raises(ValueError, match="no connections"):
        ParallelConnection([])
    with pytest.raises(ValueError, match="given more than once"):
        ParallelConnection([*connections, connections[0]])
    with pytest.raises(ValueError, match="1 names for 2 connections"):
        ParallelConnection(connections, names=["a"])
    with pytest.raises(ValueError, match="max_threads must be at least 1, not 0"):
        ParallelConnection(connections, max_threads=0)
    for connection in connections:
        connection.close()
