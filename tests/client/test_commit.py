"""Commits happen on all connections, or are refused if a connection would lose work."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, Literal

import psycopg
import psycopg2
import pytest
from client_shards import (
    DIVISION_BY_ZERO,
    INSERT,
    ROWS,
    SLEEP,
    Open,
    counting,
    dividing_by,
    inserted,
    memory_database,
    on_each_postgres,
    view,
)
from cluster import Cluster
from helpers import eventually, wait_until
from pmpp import InterfaceError, ParallelConnection


@pytest.mark.usefixtures("not_inserted")
def test_commit_and_rollback(connect_shards: Open, dsns: list[str]) -> None:
    """Commit and rollback work on all connections."""
    pdb = connect_shards("psycopg")
    cursor = pdb.cursor()
    cursor.execute(INSERT)
    pdb.rollback()
    cursor.execute(INSERT)
    cursor.execute(INSERT)
    assert inserted(dsns) == 0
    pdb.commit()
    assert inserted(dsns) == 20


@on_each_postgres
def test_failure_before_commit(connect_shards: Open, driver: str) -> None:
    """Commit raises a failure in rows fetched ahead, since the server would roll back."""
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
def test_commit_after_a_cancel(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """If one server would roll back, pmpp commits on no connection."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    cursor = pdb.cursor()
    cursor.execute("insert into t values (4, -1)")
    with suppress(ZeroDivisionError), pdb.cursor(name="c") as ahead:
        ahead.execute("select * from v").fetchmany(100)
        raise ZeroDivisionError
    with pytest.raises(InterfaceError, match="was ended by a failure or a cancel") as caught:
        pdb.commit()
    assert "dbname=shard7" in caught.value.__notes__[0]
    pdb.rollback()
    assert cursor.execute(ROWS + " where n = -1").fetchall() == []


def test_commit_after_an_interrupted_insert() -> None:
    """An interrupted insert makes SQLite roll back, so a later statement cannot be committed."""
    connection = memory_database()
    with ParallelConnection([connection]) as pdb:
        cursor = pdb.cursor().execute("create table t (n int)")
        cursor.execute("insert into t values (1)")
        with pytest.raises(TimeoutError):
            cursor.execute(f"insert into t {counting('n')}", timeout=0.2)
        cursor.execute("insert into t values (2)")
        with pytest.raises(InterfaceError, match="was ended by a failure or a cancel"):
            pdb.commit()
        pdb.rollback()
        assert cursor.execute("select n from t").fetchall() == []


@pytest.mark.parametrize("isolation_level", ["DEFERRED", None])
def test_commit_after_an_interrupted_select(
    isolation_level: Literal["DEFERRED"] | None,
) -> None:
    """An interrupted select does not make SQLite roll back, so earlier work can be committed."""
    connection = memory_database(isolation_level=isolation_level)
    with ParallelConnection([connection]) as pdb:
        cursor = pdb.cursor().execute("create table t (n int)")
        cursor.execute("insert into t values (1)")
        with pytest.raises(TimeoutError):
            cursor.execute(counting("count(*)"), timeout=0.2)
        pdb.commit()
        pdb.rollback()
        assert cursor.execute("select n from t").fetchall() == [(1,)]


@pytest.mark.usefixtures("not_inserted")
@on_each_postgres
def test_commit_after_a_loss(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """If a connection is lost, pmpp commits on no connection."""
    pdb = connect_shards(driver, prepare=view({7: "select pg_terminate_backend(pg_backend_pid())"}))
    cursor = pdb.cursor()
    cursor.execute(INSERT)
    with pytest.raises((psycopg.Error, psycopg2.Error)):
        cursor.execute("select * from v")
    with pytest.raises(InterfaceError, match="was ended by a failure or a cancel"):
        pdb.commit()
    pdb.close()
    assert inserted(dsns) == 0


@pytest.mark.usefixtures("not_inserted")
@on_each_postgres
def test_loop_that_is_left(
    cluster: Cluster, connect_shards: Open, dsns: list[str], driver: str
) -> None:
    """Closing a generator while rows are fetched ahead is not a failure: commit works."""
    second_row = "select 1 union all select 2 from pg_advisory_xact_lock_shared(1)"
    pdb = connect_shards(driver, prepare=view({}, second_row))
    pdb.cursor().execute(INSERT)
    cursor = pdb.cursor(name="c")

    def rows() -> Generator[Any]:
        with cursor:
            cursor.execute("select * from v")
            while row := cursor.fetchone():
                yield row

    with ExitStack() as stack:
        locks = [stack.enter_context(psycopg.connect(dsn)) for dsn in dsns]
        for lock in locks:
            lock.execute("select pg_advisory_xact_lock(1)")
        some = rows()
        for _ in dsns:
            assert next(some) == (1,)
        eventually(cluster, f"(select count(*) from pg_locks where not granted) = {len(dsns)}")

        def unlock() -> None:
            wait_until(lambda: cursor.closed, "the generator closes the cursor")
            for lock in locks:
                lock.rollback()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(unlock)
            some.close()
    pdb.commit()
    assert inserted(dsns) == len(dsns)
