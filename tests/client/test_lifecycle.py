"""Pools, `with` blocks and closing, and the example of the package that this class follows."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest
from client_shards import (
    ALL_ROWS,
    INSERT,
    ROWS,
    Open,
    counting,
    inserted,
    memory_database,
    on_each_postgres,
)
from pmpp import ParallelConnection
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool


def test_example_with_psycopg2(dsns: list[str]) -> None:
    """The example uses pools, dictionaries as rows and parameters, and returns the connections."""
    pools = [psycopg2.pool.ThreadedConnectionPool(1, 20, dsn=d) for d in dsns]
    connections = [p.getconn() for p in pools]
    pdb = ParallelConnection(connections)

    parameters = (4, 1543)
    c = pdb.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    c.execute("SELECT * FROM t WHERE shard = %s AND n = %s", parameters)
    results = c.fetchall()
    assert results == [{"shard": 4, "n": 1543}]

    c = pdb.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    c.execute("SELECT * FROM t WHERE n = %s", (3,))
    results = c.fetchall()
    assert sorted(row["shard"] for row in results) == [2, 4, 9]
    assert c.mogrify("select %s", (1,)) == b"select 1"

    pdb.commit()
    pdb.putconn(pools)
    assert pdb.closed
    # The pools own the connections again, so this must not close them.
    pdb.close()
    assert [p.getconn() for p in pools] == connections
    assert not any(connection.closed for connection in connections)
    for p in pools:
        p.closeall()


def test_example_with_psycopg(dsns: list[str]) -> None:
    """The example works with psycopg 3 and its pool."""
    pools = [ConnectionPool(d, min_size=1, max_size=1, open=True) for d in dsns]
    connections = [p.getconn() for p in pools]
    pdb = ParallelConnection(connections)
    c = pdb.cursor(row_factory=dict_row)
    c.execute("SELECT * FROM t WHERE n = %s", (3,))
    assert sorted(row["shard"] for row in c.fetchall()) == [2, 4, 9]
    with pytest.raises(ValueError, match="9 pools for 10 connections"):
        pdb.putconn(pools[1:])
    assert not pdb.closed
    pdb.commit()
    pdb.putconn(pools)
    for pool, connection in zip(pools, connections, strict=True):
        assert pool.getconn(timeout=10) is connection
        pool.putconn(connection)
        pool.close()


def test_all_go_back_to_their_pools(dsns: list[str]) -> None:
    """If a pool refuses its connection, the other pools get theirs."""
    pools = [psycopg2.pool.ThreadedConnectionPool(1, 1, dsn=d) for d in dsns[:3]]
    pdb = ParallelConnection([psycopg2.connect(dsns[0]), *(p.getconn() for p in pools[1:])])
    with pytest.raises(psycopg2.pool.PoolError, match="unkeyed connection"):
        pdb.putconn(pools)
    for p in pools[1:]:
        assert not p.getconn().closed
    for p in pools:
        p.closeall()


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_given_back_once(dsns: list[str], closed: bool) -> None:
    """A connection returns to its pool once, also after close."""
    pool = psycopg2.pool.ThreadedConnectionPool(1, 1, dsn=dsns[0])
    pdb = ParallelConnection([pool.getconn()])
    if closed:
        pdb.close()
    pdb.putconn([pool])
    assert not pool.getconn().closed
    pdb.putconn([pool])
    with pytest.raises(psycopg2.pool.PoolError, match="exhausted"):
        pool.getconn()
    pool.closeall()


@pytest.mark.usefixtures("not_inserted")
@on_each_postgres
def test_with_block(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """A `with` block commits, or rolls back after an exception, and then closes."""
    with suppress(ZeroDivisionError), connect_shards(driver) as pdb, pdb.cursor() as cursor:
        cursor.execute(INSERT)
        raise ZeroDivisionError
    assert pdb.closed
    assert inserted(dsns) == 0
    with connect_shards(driver) as pdb, pdb.cursor() as cursor:
        cursor.execute(INSERT)
    assert inserted(dsns) == 10
    for use in (pdb.cursor, pdb.commit, pdb.rollback, pdb.__enter__, cursor.fetchone):
        with pytest.raises(pdb.InterfaceError, match="is closed"):
            use()


AUTOCOMMIT: dict[str, Callable[[str, Path], Any]] = {
    "psycopg": lambda dsn, _: psycopg.connect(dsn, autocommit=True),
    "psycopg2": lambda dsn, _: autocommitting(psycopg2.connect(dsn)),
    "sqlite3": lambda _, file: sqlite3.connect(file, isolation_level=None, check_same_thread=False),
}


def autocommitting(connection: Any) -> Any:
    connection.autocommit = True
    return connection


@pytest.mark.parametrize("connect", AUTOCOMMIT.values(), ids=AUTOCOMMIT)
def test_autocommit(dsns: list[str], tmp_path: Path, connect: Callable[[str, Path], Any]) -> None:
    """In autocommit, a failure, a rollback and a close keep what statements have done."""
    connections = [connect(dsn, tmp_path / str(shard)) for shard, dsn in enumerate(dsns[:3])]
    with ParallelConnection(connections) as pdb:
        cursor = pdb.cursor()
        cursor.execute("create table kept (n int)")
        try:
            cursor.execute("insert into kept values (1)")
            with pytest.raises((psycopg.Error, psycopg2.Error, sqlite3.Error)):
                cursor.execute("insert into nowhere values (1)")
            assert cursor.execute("select n from kept").fetchall() == [(1,)] * 3
            pdb.rollback()
            assert cursor.execute("select n from kept").fetchall() == [(1,)] * 3
            pdb.commit()
        finally:
            cursor.execute("drop table kept")


def test_attributes_of_drivers(connect_shards: Open) -> None:
    """Setting an attribute of a driver's connection or cursor is an error."""
    pdb = connect_shards("psycopg")
    cursor = pdb.cursor()
    for thing, name in [
        (pdb, "autocommit"), (pdb, "isolation_level"), (pdb, "row_factory"),
        (cursor, "itersize"), (cursor, "row_factory"),
    ]:  # fmt: skip
        with pytest.raises(AttributeError, match=name):
            setattr(thing, name, True)
    cursor.arraysize = 5
    assert len(cursor.execute("select n from t").fetchmany()) == 5


def test_closed_cursor(connect_shards: Open) -> None:
    """A closed cursor refuses to be used; closing it again does nothing."""
    with connect_shards("mixed").cursor() as cursor:
        cursor.execute(ROWS)
        assert not cursor.closed
    assert cursor.closed
    cursor.close()
    for use in (
        cursor.fetchall,
        cursor.__next__,
        cursor.__enter__,
        lambda: cursor.execute("select 1"),
    ):
        with pytest.raises(cursor.connection.InterfaceError, match="the cursor is closed"):
            use()
    assert len(cursor.connection.cursor().execute("select n from t").fetchall()) == len(ALL_ROWS)


def test_cursor_closed_during_a_fetch() -> None:
    """Closing a cursor waits for another thread that fetches from it."""
    connection = memory_database()
    begun = Event()
    connection.create_function("signal_begin", 0, begun.set)
    with ParallelConnection([connection]) as pdb, ThreadPoolExecutor() as executor:
        cursor = pdb.cursor().execute(counting("signal_begin()", 50000))
        begun.clear()
        fetching = executor.submit(cursor.fetchall)
        assert begun.wait(10)
        cursor.close()
        assert len(fetching.result()) == 50000


def test_nothing_to_fetch(connect_shards: Open) -> None:
    """Fetching without a result raises what the driver raises."""
    fails: list[tuple[str, Callable[[Any], Any]]] = [
        ("psycopg", lambda cursor: cursor.fetchone()),
        ("psycopg2", lambda cursor: cursor.fetchall()),
    ]
    for driver, fetch in fails:
        pdb = connect_shards(driver)
        for prepare in (lambda cursor: None, lambda cursor: cursor.execute("set work_mem = '1MB'")):
            cursor = pdb.cursor()
            prepare(cursor)
            with pytest.raises((psycopg.ProgrammingError, psycopg2.ProgrammingError)):
                fetch(cursor)
    assert connect_shards("sqlite3").cursor().fetchone() is None


def test_close_closes_all() -> None:
    """Close closes all connections, and another close does nothing."""
    connections = [memory_database() for _ in range(3)]
    pdb = ParallelConnection(connections)
    pdb.close()
    pdb.close()
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            connection.execute("select 1")


def close_in_a_thread(pdb: ParallelConnection) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pdb.close).result()


def close_at_a_signal(pdb: ParallelConnection) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: pdb.close())
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("close", [close_in_a_thread, close_at_a_signal])
def test_closed_during_a_fetch(
    connect_shards: Open, close: Callable[[ParallelConnection], None]
) -> None:
    """A call that is running during close cannot fetch more rows."""
    pdb = connect_shards("sqlite3", shards=range(4, 5))

    def key(row: tuple[int, int]) -> int:
        if row[1] == 100:
            # This waits for the rows that are fetched ahead.
            pdb.cursor()
            close(pdb)
        return row[1]

    cursor = pdb.cursor()
    cursor.execute(ROWS + " where n > 1 order by n", merge=key, timeout=10)
    with pytest.raises(pdb.InterfaceError, match="is closed"):
        cursor.fetchall()
