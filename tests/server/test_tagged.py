"""distribute_tagged and broadcast_tagged return each row with the query that it is from."""

from __future__ import annotations

import json

import psycopg
import pytest
from cluster import Cluster
from psycopg import sql

TYPES = """
    create type point2 as (a int, b varchar(3));
    create domain above_zero as int check (value > 0);
    create domain above_line as point2 check ((value).a > 0);
    create type shape as (name text, outline box, points point2[]);
    create table dropped (gone int, a int, b text);
    alter table dropped drop column gone
"""


def run(
    db: psycopg.Connection, there: str, row_type: str, first: str, second: str,
    *, form: str = "jsonb", taken: str = "result::text",
) -> list[tuple[object, ...]]:  # fmt: skip
    """Run two queries of one item and one of another."""
    items = [
        {"connection": there, "queries": [first, second]},
        {"connection": f"{there} dbname=template1", "query": first, "result_format": "binary"},
    ]
    manifest = f"%s::{form}"
    if form == "array":
        manifest = "pmpp.to_query_manifest_array(%s::jsonb)"
    return db.execute(
        sql.SQL(
            f"select item, connection ~ 'template1$', query_number, {taken}"
            f" from pmpp.distribute_tagged(null::{row_type}, {manifest}) order by item, query_number"
        ),
        [json.dumps(items)],
    ).fetchall()


@pytest.mark.parametrize("form", ["array", "jsonb", "json"])
def test_forms(db: psycopg.Connection, there: str, form: str) -> None:
    """Each form of a manifest gives the same rows, whose columns can be taken apart."""
    db.execute(TYPES)
    rows = run(
        db, there, "point2", "select 1, 'x'", "select null, null", form=form, taken="(result).*"
    )
    assert rows == [(1, False, 1, 1, "x"), (1, False, 2, None, None), (2, True, 1, 1, "x")]


def test_types(db: psycopg.Connection, there: str) -> None:
    """Rows are read as the row type says, whatever kind of type it is."""
    db.execute(TYPES)
    cases = [
        ("int", "select 1", "select null", "1", None),
        ("above_zero", "select 1", "select 2", "1", "2"),
        ("point2", "select 1, 'abc'", "select null, null", "(1,abc)", "(,)"),
        ("above_line", "select 1, 'abc'", "select 2, null", "(1,abc)", "(2,)"),
        ("dropped", "select 1, 'abc'", "select 2, null", "(1,abc)", "(2,)"),
        ("text[]", "select '{a,b}'::text[]", "select '{}'::text[]", "{a,b}", "{}"),
        ("box", "select '(1,1),(0,0)'::box", "select null", "(1,1),(0,0)", None),
        ("shape", "select 'x', '(1,1),(0,0)', '{\"(1,a)\"}'", "select null, null, null",
         '(x,"(1,1),(0,0)","{""(1,a)""}")', "(,,)"),
    ]  # fmt: skip
    for row_type, first, second, read, read_second in cases:
        assert run(db, there, row_type, first, second) == [
            (1, False, 1, read), (1, False, 2, read_second), (2, True, 1, read)
        ], row_type  # fmt: skip


def test_commands(db: psycopg.Connection, there: str) -> None:
    """Commands are returned with their tags."""
    rows = run(
        db, there, "pmpp.command_with_result", "set a.b to 1", "reset a.b", taken="(result).*"
    )
    assert rows == [
        (1, False, 1, "set a.b to 1", "SET"), (1, False, 2, "reset a.b", "RESET"), (2, True, 1, "set a.b to 1", "SET"),
    ]  # fmt: skip


def test_broadcast(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """The column "connection" names the connection that a row is from."""
    rows = db.execute(
        "select item, connection, query_number, result from pmpp.broadcast_tagged("
        "null::text, array[%s, %s], 'select current_database()', array[null, 'binary']) order by 1",
        [f"{there} password=never-seen", f"{there} dbname=template1"],
    ).fetchall()
    place = f"host=127.0.0.1 port={remote.port} dbname="
    assert rows == [
        (1, f"{place}postgres", 1, "postgres"),
        (2, f"{place}template1", 1, "template1"),
    ]


ERRORS = [
    ("int", "select 1, 2", "wrong number of columns: expected 1, got 2"),
    ("int", "select 'x'", 'invalid input syntax for type integer: "x"'),
    ("above_zero", "select 0", "value for domain above_zero violates check constraint"),
    ("above_line", "select 0, null", "value for domain above_line violates check constraint"),
    ("point2", "select 1, 'abcd'", r"value too long for type character varying\(3\)"),
    ("record", "select 1", "the row type must be a named type, not record"),
    ("int", "select 1/0", "division by zero"),
    ("int", "set a.b to 1", "a statement without rows returns its command and its tag"),
]


def test_errors(db: psycopg.Connection, there: str) -> None:
    """distribute_tagged raises the errors that distribute raises."""
    db.execute(TYPES)
    for row_type, query, message in ERRORS:
        with pytest.raises(psycopg.Error, match=message) as raised:
            run(db, there, row_type, query, query)
        assert "Traceback" not in str(raised.value.diag.context)


def test_continue(db: psycopg.Connection, there: str) -> None:
    """The tags and last_run() show which of many connections answered."""
    db.execute("set pmpp.on_error = 'continue'")
    answers = db.execute(
        "select item, result from pmpp.broadcast_tagged(null::int, array[%s, %s, %s], 'select 1')"
        " order by 1",
        [there, f"{there} port=1", there],
    ).fetchall()
    assert answers == [(1, 1), (3, 1)]
    assert db.execute("select item from pmpp.last_run() where status = 'failed'").fetchall() == [
        (2,)
    ]
