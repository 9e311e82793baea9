"""When a call fails or takes too long: what is raised, and that all goes on after a rollback."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import psycopg2
import psycopg2.errors
import pytest
from client_shards import ALL_ROWS, Open
from cluster import Cluster
from helpers import PASSWORD, eventually
from pmpp import ParallelConnection
from pmpp.parallel_connection import InterfaceError, ParallelCursor
from psycopg.conninfo import make_conninfo

ROWS = "select shard, n from t"
SLEEP = "select 1 as shard, 2 as n from pg_sleep(100)"

DIVISION_BY_ZERO = {
    "psycopg": psycopg.errors.DivisionByZero,
    "psycopg2": psycopg2.errors.DivisionByZero,
}

on_each_postgres = pytest.mark.parametrize("driver", DIVISION_BY_ZERO)


def view(queries: dict[int, str], others: str = ROWS) -> Callable[[int], str]:
    """Return what makes a view `v` of the query of each shard."""
    return lambda shard: f"create temp view v as {queries.get(shard, others)}"


def dividing_by(divisor: str) -> str:
    """Return a query that fails when the divisor is 0."""
    return f"select shard, n + 1 / ({divisor}) as n from t"


def assert_no_rows(cursor: ParallelCursor) -> None:
    """What has failed does not look like the end of a result."""
    for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.__next__):
        with pytest.raises(InterfaceError, match="the last call has failed"):
            fetch()


def assert_usable(cursor: ParallelCursor) -> None:
    """The cursor serves again after a rollback."""
    cursor.connection.rollback()
    assert sorted(cursor.execute(ROWS + " where n = 2")) == [(2, 2), (4, 2), (9, 2)]


def assert_nothing_runs(cluster: Cluster) -> None:
    """No shard is at work any more."""
    running = "select from pg_stat_activity where datname like 'shard%' and state = 'active'"
    eventually(cluster, f"not exists ({running})")


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes; they go on at the end, or after 20 seconds, so that no test hangs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    thaw = f"sleep 20; kill -CONT {' '.join(map(str, pids))}"
    with subprocess.Popen(["sh", "-c", thaw], start_new_session=True) as watchdog:
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            with suppress(ProcessLookupError):
                os.killpg(watchdog.pid, signal.SIGKILL)


@on_each_postgres
def test_one_fails_at_execute(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """The others are cancelled, and the driver's exception tells the connection."""
    pdb = connect_shards(driver, prepare=view({4: dividing_by("n - 2000")}, SLEEP))
    cursor = pdb.cursor()
    with pytest.raises(DIVISION_BY_ZERO[driver]) as caught:
        cursor.execute("select * from v")
    where = f"host={cluster.host} port={cluster.port} dbname=shard4"
    assert caught.value.__notes__ == [f"on connection 4 ({where})"]
    assert caught.value.other_failures == []
    assert_no_rows(cursor)
    assert_usable(cursor)


@on_each_postgres
def test_one_fails_in_mid_fetch(connect_shards: Open, driver: str) -> None:
    """Another, in whose server-side cursor nothing has come yet, is cancelled."""
    pdb = connect_shards(driver, prepare=view({4: dividing_by("n - 2000"), 7: SLEEP}))
    with pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(1000)) == 1000
        with pytest.raises(DIVISION_BY_ZERO[driver]) as caught:
            cursor.fetchall()
        assert "dbname=shard4" in caught.value.__notes__[0]
        assert_no_rows(cursor)
    assert_usable(pdb.cursor())


@pytest.mark.parametrize("failing_row", [0, 2000])
def test_several_fail(failing_row: int) -> None:
    """None of the failures is lost, at execute or in mid-fetch."""
    failing = threading.Barrier(3)

    def fail(n: int) -> int:
        if n == failing_row:
            failing.wait()
            raise ValueError
        return n

    connections = [sqlite3.connect(":memory:", check_same_thread=False) for _ in range(5)]
    for index, connection in enumerate(connections):
        connection.create_function("f", 1, fail if index in (0, 2, 3) else abs)
    names = ["a", "b", "c", "d", "e"]
    counting = "with recursive c(n) as (select 0 union all select n + 1 from c) select f(n) from c"
    with ParallelConnection(connections, names=names) as pdb:
        cursor = pdb.cursor()
        with pytest.raises(sqlite3.OperationalError) as caught:
            deque(cursor.execute(counting), maxlen=0)
        failures = [caught.value, *caught.value.other_failures]
        assert {type(failure) for failure in failures} == {sqlite3.OperationalError}
        assert sorted(failure.__notes__[0] for failure in failures) == [
            "on connection 0 (a)", "on connection 2 (c)", "on connection 3 (d)",
        ]  # fmt: skip
        assert sum("also failed: OperationalError" in note for note in caught.value.__notes__) == 2
        pdb.rollback()
        assert cursor.execute("select 1").fetchall() == [(1,)] * 5


@on_each_postgres
def test_failure_before_commit(connect_shards: Open, driver: str) -> None:
    """A failure in rows fetched ahead is raised by commit, which would roll back silently."""
    pdb = connect_shards(driver, shards=range(4, 5), prepare=view({4: dividing_by("n - 2")}))
    cursor = pdb.cursor()
    cursor.execute("insert into t values (4, -1)")
    with pdb.cursor(name="c") as ahead:
        ahead.execute("select * from v")
        assert ahead.fetchone() == (None, None)
        with pytest.raises(DIVISION_BY_ZERO[driver]) as caught:
            pdb.commit()
        assert len(caught.value.__notes__) == 1
    pdb.rollback()
    assert cursor.execute(ROWS + " where n = -1").fetchall() == []


@on_each_postgres
def test_cause_of_a_later_failure(connect_shards: Open, driver: str) -> None:
    """What a failure nobody has seen has broken shows it as its context."""
    pdb = connect_shards(driver, shards=range(4, 5), prepare=view({4: dividing_by("n - 2")}))
    with pdb.cursor(name="c") as ahead:
        ahead.execute("select * from v")
        assert ahead.fetchone() == (None, None)
        with pytest.raises((psycopg.Error, psycopg2.Error)) as caught:
            pdb.cursor().execute("select 1")
    assert isinstance(caught.value.__context__, DIVISION_BY_ZERO[driver])


@pytest.mark.parametrize("options", [{}, {"name": "c"}], ids=["execute", "fetch"])
@on_each_postgres
def test_timeout(connect_shards: Open, driver: str, options: dict[str, Any]) -> None:
    """When the time is up, whether of execute or of fetching, everything is cancelled."""
    pdb = connect_shards(driver, prepare=view({3: SLEEP, 5: SLEEP}))
    with pdb.cursor(**options) as cursor:
        with pytest.raises(TimeoutError) as caught:
            cursor.execute("select * from v", timeout=0.3).fetchall()
        assert "dbname=shard3" in str(caught.value)
        assert "dbname=shard5" in str(caught.value)
        assert caught.value.other_failures == []
        assert_no_rows(cursor)
    assert_usable(pdb.cursor())


def test_timeout_of_sqlite(connect_shards: Open) -> None:
    """SQLite is interrupted too."""
    cursor = connect_shards("sqlite3").cursor()
    endless = "with recursive c(n) as (select 1 union all select n + 1 from c) select {} from c"
    for result in ("count(*)", "n"):
        with pytest.raises(TimeoutError):
            cursor.execute(endless.format(result), timeout=0.2).fetchall()
        assert_usable(cursor)
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds, not -1"):
        cursor.execute("select 1", timeout=-1)


def test_interrupt_of_sqlite_ends(connect_shards: Open) -> None:
    """After a rollback, results that were open meanwhile do not have new cursors interrupted."""
    pdb = connect_shards("sqlite3")
    counting = "with recursive c(n) as (select 1 union all select n + 1 from c) select {} from c"
    opened = pdb.cursor().execute(counting.format("n"))
    assert opened.fetchone() == (1,)
    with pytest.raises(TimeoutError):
        pdb.cursor().execute(counting.format("count(*)"), timeout=0.2)
    pdb.rollback()
    assert_no_rows(opened)
    assert_usable(pdb.cursor())


@on_each_postgres
def test_server_that_hangs(
    connect_shards: Open, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """A connection whose server does not even answer to being cancelled is cut."""
    monkeypatch.setattr("pmpp.connection_threads._PATIENCE", 0.5)
    pdb = connect_shards(driver, shards=range(3))
    cursor = pdb.cursor().execute("select pg_backend_pid()", source=True)
    pid = {source: row[0] for source, row in cursor}[1]
    with frozen([pid]):
        with pytest.raises(TimeoutError) as caught:
            cursor.execute("select 1", timeout=0.2)
        assert "dbname=shard1" in caught.value.other_failures[0].__notes__[0]
        with pytest.raises((psycopg.Error, psycopg2.Error)):
            pdb.rollback()
        pdb.close()


@on_each_postgres
def test_frozen_server(
    connect_shards: Open, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """A server that answers nothing at all delays a timeout no longer, on any number of shards."""
    monkeypatch.setattr("pmpp.connection_threads._PATIENCE", 0.5)
    pdb = connect_shards(driver)
    cursor = pdb.cursor().execute("select pg_backend_pid()")
    postmaster = int((cluster.data / "postmaster.pid").read_text().split()[0])
    with frozen([postmaster, *(pid for (pid,) in cursor)]):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            cursor.execute("select 1", timeout=0.2)
        with pytest.raises((psycopg.Error, psycopg2.Error)):
            pdb.rollback()
        pdb.close()
        assert time.monotonic() - begin < 5


def test_timeout_of_a_slow_key(connect_shards: Open) -> None:
    """The time is up also when rows are there but are not taken in time."""
    keys: list[int] = []

    def key(row: tuple[int, int]) -> int:
        time.sleep(0.01)
        keys.append(row[1])
        return row[1]

    cursor = connect_shards("sqlite3", shards=range(4, 6)).cursor()
    cursor.execute(ROWS + " where n > 1 order by n", merge=key, timeout=0.2)
    with pytest.raises(TimeoutError):
        cursor.fetchall()
    assert len(keys) < 30


def test_time_that_suffices(connect_shards: Open) -> None:
    """A timeout that is not reached changes nothing."""
    cursor = connect_shards("mixed").cursor()
    cursor.execute(ROWS, timeout=60)
    assert len(cursor.fetchall()) == len(ALL_ROWS)


@on_each_postgres
def test_rollback_cancels(connect_shards: Open, cluster: Cluster, driver: str) -> None:
    """Who has seen enough rows need not wait for a slow connection, neither to go on."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    with pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(100)) == 100
        pdb.rollback()
        assert_nothing_runs(cluster)
        assert_no_rows(cursor)
        with suppress(psycopg2.ProgrammingError):  # psycopg2 refuses to close what is gone
            cursor.close()
    assert_usable(pdb.cursor())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlite3"])
def test_rollback_ends_results(connect_shards: Open, driver: str) -> None:
    """No rows come after a rollback, not even those that the driver has."""
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
    """An exception in a `with` block does not wait for a slow connection."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    with suppress(ZeroDivisionError), pdb.cursor(name="c") as cursor:
        cursor.execute("select * from v")
        assert len(cursor.fetchmany(100)) == 100
        raise ZeroDivisionError
    assert_nothing_runs(cluster)
    assert_usable(pdb.cursor())


@on_each_postgres
def test_lost_connection(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """A session that is terminated is an error that tells which; closing closes all."""
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
    """A connection that only its thread may use is an error with its cure."""
    pdb = ParallelConnection([sqlite3.connect(":memory:"), sqlite3.connect(":memory:")])
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        pdb.cursor()
    assert "check_same_thread=False" in caught.value.__notes__[0]
    pdb.close()


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_no_password_shows(by_network: str, new_role: Callable[..., str], driver: Any) -> None:
    """Messages show where a connection leads to and not its password."""
    dsn = make_conninfo(by_network, user=new_role(), password=PASSWORD)
    with ParallelConnection([driver.connect(dsn)]) as pdb:
        with pytest.raises(driver.Error) as caught:
            pdb.cursor().execute("select nope")
        assert "host=127.0.0.1" in caught.value.__notes__[0]
        assert PASSWORD not in f"{caught.value} {caught.value.__notes__}"
        pdb.rollback()


def test_mogrify(connect_shards: Open) -> None:
    """The statement is shown as the first connection sends it, if its driver can do that."""
    assert connect_shards("psycopg2").cursor().mogrify("select %s", ("it's",)) == b"select 'it''s'"
    with pytest.raises(InterfaceError, match=r"connection 0 .* has no mogrify .*ClientCursor"):
        connect_shards("psycopg").cursor().mogrify("select 1")


def test_wrong_arguments() -> None:
    """Each mistake is told."""
    connections = [sqlite3.connect(":memory:", check_same_thread=False) for _ in range(2)]
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
