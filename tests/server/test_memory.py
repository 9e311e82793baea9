"""A call needs little memory for large results and values, and a session keeps none of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, WORKERS, Connect, descriptors, eventually
from psycopg import sql

MB = 1024 * 1024
RUN = "select count(*), sum(n) from pmpp.distribute(null::bigint, %s, %s, num_workers => %s) n"
SIZE = 48 * MB

# A type, and a row with one large value for it. Those with an array of varchar(5) are written row by
# row.
LARGE = [
    ("text", "select repeat('x', {})"),
    ("text", "select repeat('\\ \"x', {} / 4)"),
    ("json", "select to_json(repeat('x', {}))"),
    ("checked", "select repeat('x', {})"),
    ("bytea", "select convert_to(repeat('x', {} / 2), 'UTF8')"),
    ("mixed", "select 1, repeat('x', {}), null::varchar(5), null::json"),
    ("row_by_row", "select repeat('x', {}), null::varchar(5)[]"),
]
TYPES = """
    create domain checked as text check (value <> '');
    create type mixed as (i int, t text, v varchar(5), j json);
    create type row_by_row as (t text, v varchar(5)[])
"""
CALL = "select count(*) from pmpp.distribute(null::{}, %s, array[%s])"


def memory(conn: psycopg.Connection, field: str = "VmRSS") -> int:
    """Return how much memory the server process of a session has, or had at most, in bytes."""
    status = Path(f"/proc/{conn.info.backend_pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    # The pages of shared_buffers are not the process's own.
    shared = re.search(r"^RssShmem:\s+(\d+) kB", status, re.MULTILINE)
    kilobytes = int(found[1]) - (int(shared[1]) if shared and field == "VmRSS" else 0)
    return kilobytes * 1024


@pytest.mark.slow
@pytest.mark.parametrize(("row_type", "query"), LARGE)
def test_copies_of_a_large_value(
    db: psycopg.Connection,
    here: str,
    connect: Connect,
    row_type: str,
    query: str,
) -> None:
    """A call holds a large value eight times at most, and as often in every row."""
    db.execute(TYPES)
    call = CALL.format(row_type).encode()
    conn = connect()
    conn.execute(call, [here, query.format(100)])
    before = memory(conn, "VmHWM")
    conn.execute(call, [here, query.format(SIZE)])
    assert memory(conn, "VmHWM") - before < 8.5 * SIZE


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_memory_of_large_results(db: psycopg.Connection, there: str, workers: int) -> None:
    """Ten large results need no more memory than the largest of them and 64 MB."""
    db.execute("set work_mem to '4MB'")
    db.execute(RUN, [there, ["select 1"], 1])
    largest = "select generate_series(1, 500000)"
    db.execute(RUN, [there, [largest], 1])
    one = memory(db, "VmHWM")
    assert db.execute(RUN, [there, [largest] * 10, workers]).fetchall()[0][0] == 5_000_000
    assert memory(db, "VmHWM") - one < 64 * MB


FAILING = [
    ("{there}", "select 1/0", None),
    ("{there}", "select 'x'", None),
    ("{there}", "select 1, 2", None),
    ("{there}", "syntax error", None),
    ("{there}", "copy pg_class to stdout", None),
    ("{there}", "select pg_terminate_backend(pg_backend_pid())::int", None),
    ("{there}", "select 1", "set nosuch to 1"),
    ("{there} dbname=nosuch", "select 1", None),
    ("host=127.0.0.1 port=1", "select 1", None),
    ("nonsense", "select 1", None),
]


@pytest.mark.slow
def test_a_thousand_calls(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """A thousand calls in one session, half of them failing, leave nothing behind."""
    before: list[str] = []
    after_first_hundred = 0
    for number in range(1000):
        connection, query, setup = FAILING[number // 2 % len(FAILING)]
        parameters = [connection.format(there=there), [query, "select 2"], setup and [setup]]
        if number % 2:
            parameters = [there, ["select 1", "select 2"], None]
        try:
            db.execute(
                "select * from pmpp.distribute(null::int, %s, %s, num_workers => 2, setup_commands => %s)",
                parameters,
            )
        except psycopg.Error as ex:
            assert not number % 2
            assert PASSWORD not in str(ex)
        else:
            assert number % 2
        if number == 10:
            before = descriptors(db.info.backend_pid)
        if number == 100:
            after_first_hundred = memory(db)
    assert descriptors(db.info.backend_pid) == before
    assert memory(db) - after_first_hundred < 16 * MB
    eventually(remote, f"not exists ({WORKERS})")


@pytest.mark.parametrize("on_error", ["stop", "continue"])
@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("select repeat('x', 1000) from generate_series(1, 1500)", True),
        ("select repeat('x', 1000) from generate_series(1, 2500)", False),
        ("select repeat('x', 300000) from generate_series(1, 5)", True),
        ("select repeat('x', 300000) from generate_series(1, 8)", False),
        (";".join(["select repeat('x', 1000) from generate_series(1, 500)"] * 3), True),
        (";".join(["select repeat('x', 1000) from generate_series(1, 500)"] * 5), False),
    ],
)
def test_max_result_size(
    db: psycopg.Connection, there: str, on_error: str, query: str, fits: bool
) -> None:
    """The setting bounds the bytes of all results of a query, streamed or held, in each form."""
    db.execute("set pmpp.max_result_size = '2MB'")
    db.execute(sql.SQL("set pmpp.on_error = {}").format(on_error))
    manifest = json.dumps([{"connection": there, "query": query, "num_workers": 1}])
    for call in (
        "pmpp.distribute(null::text, %s::jsonb) v",
        "pmpp.distribute(%s::jsonb) as (v text)",
    ):
        call = "select sum(length(v)) from " + call
        if fits:
            assert db.execute(call, [manifest]).fetchall() == [(1_500_000,)]
        else:
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="max_result_size"):
                db.execute(call, [manifest])


def test_notifications(db: psycopg.Connection, there: str) -> None:
    """Notifications that a setup command subscribes to are dropped and take no memory."""
    notify = "select count(pg_notify('c', n || repeat('x', 7000))) from generate_series(1, 10000) n"
    call = (
        "select * from pmpp.distribute(null::int, %s, %s, num_workers => 1, setup_commands => %s)"
    )
    db.execute(call, [there, ["select 1"], ["listen c"]])
    before = memory(db, "VmHWM")
    assert len(db.execute(call, [there, [notify] * 4, ["listen c"]]).fetchall()) == 4
    assert memory(db, "VmHWM") - before < 64 * MB


def test_long_errors(db: psycopg.Connection, there: str) -> None:
    """last_run() keeps the beginning of a long message, and the session keeps no more."""
    db.execute("set pmpp.on_error = 'continue'")
    fails = "do $$ begin raise '%', repeat('x', 20000000); end $$"
    call = "select * from pmpp.meta(%s, %s, num_workers => 1)"
    db.execute(call, [there, ["set a.b = 'c'"]])
    before = memory(db)
    db.execute(call, [there, ["set a.b = 'c'"] + 10 * [fails]])
    assert memory(db) - before < 64 * MB
    kept = "select min(length(message)), max(length(message)) from pmpp.last_run() where status = 'failed'"
    ((least, most),) = db.execute(kept).fetchall()
    assert 1000 <= least <= most <= 10_000
