"""Many queries, workers, rows and columns, and large values: nothing is lost."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster
from helpers import MEET
from psycopg import sql

RUN = "select count(*), sum(n) from pmpp.distribute(null::bigint, %s, %s, num_workers => %s) n"


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
        conn.execute(MEET)
        ((pids,),) = db.execute(
            "select count(distinct p) from pmpp.distribute(null::int, %s, %s, num_workers => 300) p",
            [there, ["select pg_backend_pid() from meet(300)"] * 300],
        ).fetchall()
        conn.execute("drop function meet, wait_for_arrivals; drop sequence arrivals")
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
