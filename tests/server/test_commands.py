"""Commands and their tags: which forms run them, and which refuse them."""

from __future__ import annotations

import psycopg
import pytest

COMMANDS = [
    "insert into kept values (1)",
    "delete from kept",
    "-- a comment\n truncate kept ;",
    "/* another */ drop table kept",
    "with x as (select 1) insert into kept select * from x",
    "do 'begin insert into kept values (1); end'",
    "do $a$ begin insert into kept values (1); execute $$select 1;$$; end $a$;",
]
CALL = (
    "select * from pmpp.distribute(null::int, %s, array[%s], num_workers => 1, result_format => %s)"
)


@pytest.fixture(autouse=True)
def kept(db: psycopg.Connection) -> None:
    """A table with a row."""
    db.execute("create table kept as select 7 as n")


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_for_rows(
    db: psycopg.Connection, here: str, command: str, result_format: str | None
) -> None:
    """pmpp refuses a command, and does not run it, if the row type has no place for its tag."""
    with pytest.raises(psycopg.errors.DatatypeMismatch, match="a statement without rows"):
        db.execute(CALL, [here, command, result_format])
    assert db.execute("select n from kept").fetchall() == [(7,)]


@pytest.mark.parametrize("result_format", [None, "binary"])
def test_too_many_columns(db: psycopg.Connection, here: str, result_format: str | None) -> None:
    """pmpp does not run a command that returns other columns than the row type has."""
    with pytest.raises(psycopg.errors.DatatypeMismatch, match="wrong number of columns"):
        db.execute(CALL, [here, "delete from kept returning n, n", result_format])
    assert db.execute("select n from kept").fetchall() == [(7,)]


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
@pytest.mark.parametrize("setup", [None, ["begin"]])
def test_rows_of_commands(
    db: psycopg.Connection, here: str, result_format: str | None, setup: list[str] | None
) -> None:
    """Commands that return rows are run once."""
    call = "select * from pmpp.distribute(null::int, %s, %s, num_workers => 1, result_format => %s, setup_commands => %s)"
    queries = [
        "insert into kept values (8) returning n",
        "with d as (delete from kept returning n) select count(*)::int from d",
    ]
    rows = db.execute(call, [here, queries, result_format, setup]).fetchall()
    assert rows == [(8,), (2,)]


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_command_and_query(db: psycopg.Connection, here: str, on_error: str) -> None:
    """pmpp returns the rows of the queries in a string that also has commands."""
    db.execute(f"set pmpp.on_error = '{on_error}'")
    string = "set work_mem to '5MB'; select 1; update kept set n = 0; select 2"
    assert db.execute(CALL, [here, string, None]).fetchall() == [(1,), (2,)]
    assert db.execute("select rows, command_tag, status from pmpp.last_run()").fetchall() == [
        (2, "SELECT 1", "done")
    ]
    commands = "select * from pmpp.distribute(null::pmpp.command_with_result, %s, array['truncate kept; analyze kept'])"
    assert [tag for _, tag in db.execute(commands, [here])] == ["TRUNCATE TABLE", "ANALYZE"]


@pytest.mark.parametrize("on_error", ["stop", "continue"])
@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_meta_and_rows(
    db: psycopg.Connection, here: str, on_error: str, result_format: str | None
) -> None:
    """meta throws rows away, and returns the tag of every statement once."""
    db.execute(f"set pmpp.on_error = '{on_error}'")
    call = "select result from pmpp.meta(%s, %s, num_workers => 1, result_format => %s)"
    for count in (0, 1, 32, 64, 300, 5000):
        query = f"select repeat('x', 100), null::int from generate_series(1, {count})"
        got = db.execute(call, [here, [query], result_format]).fetchall()
        assert got == [(f"SELECT {count}",)]
        assert db.execute("select rows from pmpp.last_run()").fetchall() == [(count,)]
    if result_format is None:
        got = db.execute(call, [here, ["analyze kept; select 1; select 2, 3"], None]).fetchall()
        assert got == [("ANALYZE",), ("SELECT 1",), ("SELECT 1",)]


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_command_tags(db: psycopg.Connection, there: str, result_format: str | None) -> None:
    """last_run() has the command tag of a query, however many rows it returned."""
    counts = [0, 1, 31, 32, 33, 300, 320, 2500]
    queries = [f"select generate_series(1, {count})" for count in counts]
    call = "select from pmpp.distribute(null::int, %s, %s, num_workers => 2, result_format => %s)"
    db.execute(call, [there, queries, result_format])
    recorded = db.execute("select rows, command_tag from pmpp.last_run() order by query_number")
    assert recorded.fetchall() == [(count, f"SELECT {count}") for count in counts]
