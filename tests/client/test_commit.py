"""Commits: on all connections, or refused where work would be lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest
from client_shards import (
    DIVISION_BY_ZERO,
    INSERT,
    ROWS,
    SLEEP,
    Open,
    dividing_by,
    inserted,
    on_each_postgres,
    view,
)
from pmpp import InterfaceError, ParallelConnection


@pytest.mark.usefixtures("not_inserted")
def test_commit_and_rollback(connect_shards: Open, dsns: list[str]) -> None:
    """They do it on all connections."""
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
def test_commit_after_a_cancel(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """What a server would roll back cannot be committed, on no connection."""
    pdb = connect_shards(driver, prepare=view({7: SLEEP}))
    cursor = pdb.cursor()
    cursor.execute("insert into t values (4, -1)")
    with suppress(ZeroDivisionError), pdb.cursor(name="c") as ahead:
        ahead.execute("select * from v").fetchmany(100)
        raise ZeroDivisionError
    with pytest.raises(InterfaceError, match="was aborted by a failure or a cancel") as caught:
        pdb.commit()
    assert "dbname=shard7" in caught.value.__notes__[0]
    pdb.rollback()
    assert cursor.execute(ROWS + " where n = -1").fetchall() == []


def test_commit_after_an_interrupted_insert() -> None:
    """SQLite has rolled back then, and has nothing to commit."""
    endless = "with recursive c(n) as (select 1 union all select n + 1 from c)"
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    with ParallelConnection([connection]) as pdb:
        cursor = pdb.cursor().execute("create table t (n int)")
        cursor.execute("insert into t values (1)")
        with pytest.raises(TimeoutError):
            cursor.execute(f"{endless} insert into t select n from c", timeout=0.2)
        with pytest.raises(InterfaceError, match="was aborted by a failure or a cancel"):
            pdb.commit()
        pdb.rollback()


@pytest.mark.usefixtures("not_inserted")
@on_each_postgres
def test_loop_that_is_left(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """A generator that is closed while rows are fetched ahead has not failed: all is kept."""
    pdb = connect_shards(driver, prepare=view({}, "select 1 union all select 2 from pg_sleep(0.5)"))
    pdb.cursor().execute(INSERT)

    def rows() -> Generator[Any]:
        with pdb.cursor(name="c") as cursor:
            cursor.execute("select * from v")
            while row := cursor.fetchone():
                yield row

    some = rows()
    for _ in dsns:
        assert next(some) == (1,)
    some.close()
    pdb.commit()
    assert inserted(dsns) == len(dsns)
