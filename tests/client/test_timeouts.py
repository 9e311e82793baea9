"""Calls end in time, also if a server does not answer, and all works again after a rollback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import psycopg2
import pytest
from client_shards import (
    ALL_ROWS,
    ROWS,
    SLEEP,
    Open,
    assert_no_rows,
    assert_usable,
    counting,
    on_each_postgres,
    other_failures,
    view,
)
from cluster import Cluster
from forwarder import Forwarder
from helpers import PASSWORD
from pmpp import ParallelConnection


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes. They continue at the end, or after 20 seconds, so that no test hangs."""
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


@pytest.mark.parametrize("options", [{}, {"name": "c"}], ids=["execute", "fetch"])
@on_each_postgres
def test_timeout(connect_shards: Open, driver: str, options: dict[str, Any]) -> None:
    """When the time of execute or of a fetch is up, pmpp cancels everything."""
    pdb = connect_shards(driver, prepare=view({3: SLEEP, 5: SLEEP}))
    with pdb.cursor(**options) as cursor:
        with pytest.raises(TimeoutError) as caught:
            cursor.execute("select * from v", timeout=0.3).fetchall()
        assert "dbname=shard3" in str(caught.value)
        assert "dbname=shard5" in str(caught.value)
        assert other_failures(caught.value) == []
        assert_no_rows(cursor)
    assert_usable(pdb.cursor())


def test_timeout_of_sqlite(connect_shards: Open) -> None:
    """pmpp interrupts SQLite."""
    cursor = connect_shards("sqlite3").cursor()
    for result in ("count(*)", "n"):
        with pytest.raises(TimeoutError):
            cursor.execute(counting(result), timeout=0.2).fetchall()
        assert_usable(cursor)


@pytest.mark.parametrize("timeout", [-1, 0, float("inf"), float("nan")])
def test_timeout_out_of_range(connect_shards: Open, timeout: float) -> None:
    """A timeout out of range is an error before anything runs."""
    cursor = connect_shards("sqlite3").cursor()
    with pytest.raises(ValueError, match=f"timeout must be more than 0 .* seconds, not {timeout}"):
        cursor.execute("delete from t", timeout=timeout)
    assert cursor.execute(ROWS).fetchall()


def test_interrupt_of_sqlite_ends(connect_shards: Open) -> None:
    """After a rollback, results that were open during the interrupt do not interrupt new cursors."""
    pdb = connect_shards("sqlite3")
    opened = pdb.cursor().execute(counting("n"))
    assert opened.fetchone() == (1,)
    with pytest.raises(TimeoutError):
        pdb.cursor().execute(counting("count(*)"), timeout=0.2)
    pdb.rollback()
    assert_no_rows(opened)
    assert_usable(pdb.cursor())


@pytest.mark.slow
def test_slow_cancel(cluster: Cluster, dsns: list[str]) -> None:
    """A slow cancel request does not cancel the next statement."""
    with Forwarder(cluster.port) as network:
        there = f"host=127.0.0.1 port={network.port} user=slow password={PASSWORD} sslmode=disable"
        with psycopg.connect(dsns[0], autocommit=True) as conn:
            conn.execute(f"create role slow login password '{PASSWORD}'")
        pdb = ParallelConnection([psycopg.connect(f"{there} dbname=shard0")])
        network.delay = 0.6
        with pdb.cursor() as cursor:
            with pytest.raises(TimeoutError):
                cursor.execute("select pg_sleep(100)", timeout=0.2)
            pdb.rollback()
            assert cursor.execute("select 1 from pg_sleep(1.5)").fetchall() == [(1,)]
        pdb.close()
    with psycopg.connect(dsns[0], autocommit=True) as conn:
        conn.execute("drop role slow")


@on_each_postgres
def test_server_that_hangs(
    connect_shards: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    driver: str,
) -> None:
    """If a server does not end a cancelled call, pmpp aborts the connection, with a warning."""
    monkeypatch.setattr("pmpp.client.worker_threads._ABORT_AFTER", 0.5)
    pdb = connect_shards(driver, shards=range(3))
    cursor = pdb.cursor().execute("select pg_backend_pid()", source=True)
    pid = {source: row[0] for source, row in cursor}[1]
    with frozen([pid]):
        with pytest.raises(TimeoutError) as caught:
            cursor.execute("select 1", timeout=0.2)
        assert "dbname=shard1" in other_failures(caught.value)[0].__notes__[0]
        with pytest.raises((psycopg.Error, psycopg2.Error)):
            pdb.rollback()
        pdb.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"aborted {pdb._workers[1].display_name}, since its call could not be cancelled"
    ]


@on_each_postgres
def test_frozen_server(
    connect_shards: Open, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """A timeout ends in time if the server does not answer at all, with any number of shards."""
    monkeypatch.setattr("pmpp.client.worker_threads._ABORT_AFTER", 0.5)
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
    """A slow key function does not extend the time, even if rows are there."""
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
    """A call that ends in time returns all rows."""
    cursor = connect_shards("mixed").cursor()
    cursor.execute(ROWS, timeout=60)
    assert len(cursor.fetchall()) == len(ALL_ROWS)
