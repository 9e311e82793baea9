"""Many, large and long: nothing is lost, and memory stays bounded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, descriptors, eventually
from psycopg import sql

MB = 1024  # in the units of /proc/<pid>/status, kB
RUN = "select count(*), sum(n) from pmpp.distribute(null::bigint, %s, %s, num_workers => %s) n"


def memory(conn: psycopg.Connection, field: str = "VmRSS") -> int:
    """Return how much memory the server process of a session has, or had at most, in kB."""
    status = Path(f"/proc/{conn.info.backend_pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    # pages of shared_buffers are not the process's own
    shared = re.search(r"^RssShmem:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) - (int(shared[1]) if shared and field == "VmRSS" else 0)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1_000_000])
def test_row_counts(db: psycopg.Connection, there: str, count: int) -> None:
    """Exactly as many rows arrive as there are."""
    query = f"select generate_series(1, {count})"
    ((rows, total),) = db.execute(RUN, [there, [query, query], 2]).fetchall()
    assert (rows, total or 0) == (2 * count, count * (count + 1))


def test_queries_that_finish_in_any_order(db: psycopg.Connection, there: str) -> None:
    """Rows of queries that take their time, in another order than given, all arrive."""
    queries = [f"select {n} from pg_sleep({(n * 7919 % 100) / 1000})" for n in range(200)]
    assert db.execute(RUN, [there, queries, 20]).fetchall() == [(200, sum(range(200)))]


@pytest.mark.slow
def test_hundred_thousand_queries(db: psycopg.Connection, there: str) -> None:
    """The queue serves a hundred thousand queries in one call."""
    queries = [f"select {n}" for n in range(100_000)]
    assert db.execute(RUN, [there, queries, 2]).fetchall() == [(100_000, sum(range(100_000)))]


@pytest.mark.slow
def test_three_hundred_workers(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """Three hundred connections work at the same time: each waits until all have arrived."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute(
            """
            create sequence arrivals;
            create function meet(wanted int) returns int language plpgsql as $$
            begin
                perform nextval('arrivals');
                for i in 1..600 loop
                    exit when (select last_value from arrivals) >= wanted;
                    perform pg_sleep(0.1);
                end loop;
                return pg_backend_pid();
            end $$
            """
        )
        ((pids,),) = db.execute(
            "select count(distinct p) from pmpp.distribute(null::int, %s, %s, num_workers => 300) p",
            [there, ["select meet(300)"] * 300],
        ).fetchall()
        conn.execute("drop function meet; drop sequence arrivals")
    assert pids == 300


WAIT = """
    create table done (n int);
    -- the last row of a large result, which waits until others are done
    create function wait_for(others int) returns text language plpgsql as $$
    begin
        perform pg_advisory_lock(1);
        while (select count(*) from done) < others loop
            perform pg_sleep(0.01);
        end loop;
        return '';
    end $$;
    -- what others do first: wait until the large result has got there
    create function is_large() returns text language plpgsql as $$
    begin
        while not exists (select from pg_locks where locktype = 'advisory') loop
            perform pg_sleep(0.01);
        end loop;
        return '';
    end $$
"""


@pytest.mark.parametrize(
    "others",
    [
        ["insert into done select 1 from is_large() returning n, ''"] * 4,
        ["select 0, is_large() union all select g, repeat('y', 120) from generate_series(1, 100000) g;"
         " insert into done values (1) returning n, ''"],
    ],
    ids=["small", "large"],
)  # fmt: skip
def test_large_result_that_waits_for_others(
    db: psycopg.Connection, here: str, others: list[str]
) -> None:
    """While a large result is not complete the others go on, small ones and large ones."""
    db.execute(WAIT)
    db.execute("create type pair as (n int, filler text)")
    large = (
        "select g, repeat('x', 120) || case g when 100000"
        f" then wait_for({len(others)}) else '' end from generate_series(1, 100000) g"
    )
    db.execute("set statement_timeout to '60s'")
    call = "select * from pmpp.distribute(null::pair, %s, %s, num_workers => 2)"
    db.execute(call, [here, [large, *others]])
    assert db.execute("select status from pmpp.last_run()").fetchall() == [("done",)] * (
        1 + len(others)
    )


@pytest.mark.slow
def test_large_value(db: psycopg.Connection, there: str) -> None:
    """A value of 200 MB arrives whole."""
    query = "select repeat('\"äöü\\', 25000000)"
    ((length, digest),) = db.execute(
        "select octet_length(v), md5(v) from pmpp.distribute(null::text, %s, array[%s]) v",
        [there, query],
    ).fetchall()
    assert length == 200_000_000
    assert [(digest,)] == db.execute(query.replace("select ", "select md5(") + ")").fetchall()


def test_many_columns(db: psycopg.Connection, there: str) -> None:
    """A row may have as many columns as a table may."""
    names = [f"c{n}" for n in range(1600)]
    db.execute(f"create table wide ({', '.join(f'{name} int' for name in names)})")
    query = f"select {', '.join(str(n) for n in range(1600))}"
    (row,) = db.execute(
        "select * from pmpp.distribute(null::wide, %s, array[%s])", [there, query]
    ).fetchall()
    assert row == tuple(range(1600))


def test_smallest_work_mem(db: psycopg.Connection, there: str) -> None:
    """With as little work_mem as there can be, rows spill to disk and all arrive."""
    db.execute("set work_mem to '64kB'")
    query = "select generate_series(1, 200000)"
    assert db.execute(RUN, [there, [query], 1]).fetchall() == [(200_000, 20_000_100_000)]
    manifest = sql.SQL(
        "array[row({}, array[{}], null, 1, null, null)::pmpp.query_manifest]"
    ).format(there, query)
    record = sql.SQL("select count(*), sum(n) from pmpp.distribute({}) as (n bigint)")
    assert db.execute(record.format(manifest)).fetchall() == [(200_000, 20_000_100_000)]


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
    eventually(remote, "not exists (select from pg_stat_activity where application_name ~ '^pmpp')")


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
    """Of the long message of an error, last_run keeps the beginning, and the session no more."""
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


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_command_tags(db: psycopg.Connection, there: str, result_format: str | None) -> None:
    """The command tag of a query is there however many rows it returned."""
    counts = [0, 1, 31, 32, 33, 300, 320, 2500]
    queries = [f"select generate_series(1, {count})" for count in counts]
    call = "select from pmpp.distribute(null::int, %s, %s, num_workers => 2, result_format => %s)"
    db.execute(call, [there, queries, result_format])
    told = db.execute("select rows, command_tag from pmpp.last_run() order by query_number")
    assert told.fetchall() == [(count, f"SELECT {count}") for count in counts]
