"""How often a call holds a large value in memory, and that the value is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

MB = 1024 * 1024
SIZE = 48 * MB

# A type, and a row with one large value for it. Those with an array of varchar(5) are written row by
# row.
LARGE = [
    ("text", "select repeat('x', {})"),
    ("text", "select repeat('\\ \"x', {} / 4)"),
    ("json", "select to_json(repeat('x', {}))"),
    ("bytea", "select convert_to(repeat('x', {} / 2), 'UTF8')"),
    ("mixed", "select 1, repeat('x', {}), null::varchar(5), null::json"),
    ("row_by_row", "select repeat('x', {}), null::varchar(5)[]"),
]
TYPES = """
    create type mixed as (i int, t text, v varchar(5), j json);
    create type row_by_row as (t text, v varchar(5)[])
"""
CALL = "select count(*) from pmpp.distribute(null::{}, %s, array[%s])"


def peak(conn: psycopg.Connection) -> int:
    """Return the most memory that a session has used, in bytes."""
    status = Path(f"/proc/{conn.info.backend_pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize(("row_type", "query"), LARGE)
def test_copies_of_a_large_value(
    db: psycopg.Connection,
    here: str,
    connect: Callable[..., psycopg.Connection],
    row_type: str,
    query: str,
) -> None:
    """A call holds a large value eight times at most, and as often in every row."""
    db.execute(TYPES)
    call = CALL.format(row_type).encode()
    conn = connect()
    conn.execute(call, [here, query.format(100)])
    before = peak(conn)
    conn.execute(call, [here, query.format(SIZE)])
    assert peak(conn) - before < 8.5 * SIZE


VALUES = [
    "",
    "{}",
    "NULL",
    '"',
    "\\",
    "a,b",
    "(",
    "'",
    "\x1c\x1d\x1e",
    "{{chunk}}",
    "äöü",
    " ",
    "\n",
]


def test_single_rows(db: psycopg.Connection, here: str) -> None:
    """A value in a row of its own is what it is among others, for every type that has a short way."""
    db.execute("create domain word as text check (value <> 'no'); create type five as"
               " (t text, v varchar(5), d word, c char(3), n name, i int, b bytea, j json, jb jsonb, a text[])")  # fmt: skip
    values = "array[{}]::text[]".format(", ".join(["%s"] * len(VALUES) + ["null"]))
    one = (
        "select v, left(v, 5), v, left(v, 3), v, 1, convert_to(v, 'UTF8'), to_json(v), to_jsonb(v), array[v, null]"
        " from unnest({}) with ordinality u(v, n)"
    )
    with psycopg.ClientCursor(db) as cursor:
        query = cursor.mogrify(one.format(values), VALUES)
    rows = range(1, len(VALUES) + 2)
    alone = [f"{query} where n = {number}" for number in rows]
    for form in (
        "distribute(null::five, %s, %s) r",
        "distribute_tagged(null::five, array[row(%s, %s, null, null, null, 'binary')::pmpp.query_manifest]) t(i, c, q, r)",
    ):
        select = f"select r::text from pmpp.{form} order by 1".encode()
        assert db.execute(select, [here, alone]).fetchall() == (
            db.execute(select, [here, [query]]).fetchall()
        )  # fmt: skip
        assert len(db.execute(select, [here, alone]).fetchall()) == len(rows)


def test_single_rows_that_do_not_fit(db: psycopg.Connection, here: str) -> None:
    """What a type refuses among other rows it refuses in a row of its own."""
    db.execute(
        "create type short as (v varchar(2)); create domain word as text check (value <> 'no')"
    )
    for row_type, query in [
        ("short", "'abc'"),
        ("word", "'no'"),
        ("json", "'{'"),
        ("bytea", "'\\xz'"),
    ]:
        call = f"select pmpp.distribute(null::{row_type}, %s, array[%s])".encode()
        errors = []
        for rows in (1, 2):
            with pytest.raises(psycopg.Error) as raised:
                db.execute(call, [here, f"select {query}::text from generate_series(1, {rows})"])
            errors.append((raised.value.sqlstate, raised.value.diag.message_primary))
            assert "In a row of query 1" in str(raised.value.diag.message_detail)
        assert errors[0] == errors[1]
