"""Calls to PGlite, which speaks the protocol and has one session for all connections."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from helpers import notices, tcp
from other_servers import pglite
from psycopg import errors

CALL = "select n from pmpp.distribute(null::int, %s, %s, num_workers => %s, result_format => %s) n order by n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a PGlite that takes four connections."""
    with pglite(max_connections=4) as port:
        yield port


@pytest.fixture
def there(port: int) -> str:
    """A connection string for it."""
    return tcp(port)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_rows(
    caller: psycopg.Connection, there: str, workers: int, result_format: str | None
) -> None:
    """Every row of every query arrives, in all formats."""
    queries = [f"select {n}" for n in range(300)]
    got = caller.execute(CALL, [there, queries, workers, result_format]).fetchall()
    assert got == [(n,) for n in range(300)]


def test_commands(caller: psycopg.Connection, there: str) -> None:
    """Statements that return no rows return their tags."""
    call = "select * from pmpp.meta(%s, %s, num_workers => 1)"
    commands = ["create table t (n int)", "insert into t values (1), (2)", "drop table t"]
    tags = ["CREATE TABLE", "INSERT 0 2", "DROP TABLE"]
    assert caller.execute(call, [there, commands]).fetchall() == [*zip(commands, tags, strict=True)]


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_errors(caller: psycopg.Connection, there: str, result_format: str | None) -> None:
    """An error arrives with its own fields, and the next call succeeds."""
    with pytest.raises(errors.DivisionByZero, match="division by zero"):
        caller.execute(CALL, [there, ["select 1/0"], 1, result_format])
    assert caller.execute(CALL, [there, ["select 1"], 1, result_format]).fetchall() == [(1,)]


def test_cancel(caller: psycopg.Connection, there: str) -> None:
    """A cancelled call ends at once, though PGlite takes no cancel requests."""
    caller.execute("set statement_timeout to '300ms'")
    with pytest.raises(errors.QueryCanceled):
        caller.execute(CALL, [there, ["select count(*) from generate_series(1, 3000000)"], 1, None])
    caller.execute("reset statement_timeout")
    assert caller.execute(CALL, [there, ["select 1"], 1, None]).fetchall() == [(1,)]


def test_too_many_connections(caller: psycopg.Connection, there: str) -> None:
    """The call goes on with the connections that PGlite takes."""
    got = notices(caller)
    assert caller.execute(CALL, [there, ["select 1"] * 8, 8, None]).fetchall() == [(1,)] * 8
    assert [message for _, message, *_ in got] == ["item 1: going on with 4 of 8 connections"]
