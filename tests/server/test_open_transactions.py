"""last_run() reports work that was rolled back because nobody committed it."""

from __future__ import annotations

import psycopg
import pytest
from helpers import notices

CALL = "select * from pmpp.meta(%s, %s, num_workers => 1, setup_commands => %s)"
STATUS = "select array_agg(status order by query_number) from pmpp.last_run()"
MESSAGE = "item 1: a connection was closed in a transaction that has written"
INSERT = "insert into kept values (1)"


@pytest.fixture(autouse=True)
def kept(db: psycopg.Connection) -> None:
    """A table, and a function that writes into it."""
    db.execute("create table kept (n int)")
    db.execute(
        "create function keep() returns int language sql as 'insert into kept values (1) returning n'"
    )


def status(db: psycopg.Connection) -> list[str]:
    ((statuses,),) = db.execute(STATUS).fetchall()
    return list(statuses)


@pytest.mark.parametrize(
    "query", [INSERT, "do 'begin perform keep(); end'", "create table more as select 1"]
)
def test_begin_in_the_setup(db: psycopg.Connection, here: str, query: str) -> None:
    """A transaction that a setup command begins is rolled back, and a warning says so."""
    got = notices(db)
    db.execute(CALL, [here, [query, query.replace("more", "most")], ["begin"]])
    ((_, message, detail, _),) = got
    assert message == MESSAGE
    assert "has rolled back queries 1, 2 of item 1" in str(detail)
    assert status(db) == ["rolled back", "rolled back"]
    assert db.execute("select count(*) from kept").fetchall() == [(0,)]
    left = "select cardinality((u).queries) from unnest(pmpp.unfinished()) u"
    assert db.execute(left).fetchall() == [(2,)]


def test_function_that_writes(db: psycopg.Connection, here: str) -> None:
    """pmpp notices that a function has written in a SELECT, and delivers the rows."""
    got = notices(db)
    call = "select * from pmpp.distribute(null::int, %s, array['select keep()'], setup_commands => array['begin'])"
    assert db.execute(call, [here]).fetchall() == [(1,)]
    assert [message for _, message, *_ in got] == [MESSAGE]
    assert status(db) == ["rolled back"]


@pytest.mark.parametrize(
    ("queries", "setup", "statuses"),
    [
        ([INSERT], None, ["done"]),
        (["begin", INSERT, "commit"], None, ["done", "done", "done"]),
        (["begin", INSERT, "rollback"], None, ["done", "done", "done"]),
        ([INSERT, "commit and chain"], ["begin"], ["done", "done"]),
        (["insert into kept select 1 where false"], ["begin"], ["done"]),
        (["set work_mem to '5MB'"], ["begin read only"], ["done"]),
    ],
)
def test_nothing_is_lost(
    db: psycopg.Connection,
    here: str,
    queries: list[str],
    setup: list[str] | None,
    statuses: list[str],
) -> None:
    """There is no warning if nothing was written, or if the queries end the transaction."""
    got = notices(db)
    db.execute(CALL, [here, queries, setup])
    assert got == []
    assert status(db) == statuses


def test_setup_that_writes(db: psycopg.Connection, here: str) -> None:
    """If only setup commands have written there is a warning, and the queries are done."""
    got = notices(db)
    db.execute(CALL, [here, ["set work_mem to '5MB'"], ["begin", INSERT]])
    ((_, message, detail, _),) = got
    assert message == MESSAGE
    assert "the setup commands of item 1" in str(detail)
    assert status(db) == ["done"]


def test_error_in_the_transaction(db: psycopg.Connection, here: str) -> None:
    """If a query fails, last_run() reports those before it in its transaction as rolled back."""
    queries = [INSERT, "do 'begin perform 1/0; end'"]
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute(CALL, [here, queries, ["begin"]])
    assert status(db) == ["rolled back", "failed"]
    got = notices(db)
    db.execute("set pmpp.on_error = 'continue'")
    db.execute(CALL, [here, queries, ["begin"]])
    assert MESSAGE in [message for _, message, *_ in got]
    assert status(db) == ["rolled back", "failed"]


def test_error_at_commit(db: psycopg.Connection, here: str) -> None:
    """A COMMIT that fails rolls back what was done before it."""
    db.execute("alter table kept add unique (n) deferrable initially deferred")
    db.execute("set pmpp.on_error = 'continue'")
    db.execute(CALL, [here, ["begin", INSERT, INSERT, "commit", "set work_mem to '5MB'"], None])
    assert status(db) == ["done", "rolled back", "rolled back", "failed", "done"]


def test_lost_connection(db: psycopg.Connection, here: str) -> None:
    """If a connection is lost, last_run() reports the queries of its transaction as rolled back."""
    db.execute("set pmpp.on_error = 'continue'")
    terminate = "do 'begin perform pg_terminate_backend(pg_backend_pid()); end'"
    db.execute(CALL, [here, [INSERT, terminate], ["begin"]])
    assert status(db) == ["rolled back", "failed"]
