"""What is measured, against whom, and what is to be reached."""

from __future__ import annotations

from typing import NamedTuple

import building
import peers
import shards
from peers import Work, integers
from testbed import Bench, Run

UNEQUAL = [1.0] + [0.1] * 7

# What the first call of a session cannot do without.
IMPORT = """
    do language plpython3u $$
    import sys
    (row,) = plpy.execute("select setting || '/pmpp/' || extversion as d from pg_config, pg_extension where name = 'PKGLIBDIR' and extname = 'pmpp'")
    sys.path.insert(0, row["d"])
    import psycopg
    $$
"""


class Scenario(NamedTuple):
    """A race.

    Attributes:
        name: what is done.
        contenders: who does it; the first is the one that has the goal, the second the one that
            the goal is set against.
        goal: the largest ratio of the first to the second, or difference in seconds.
        is_difference: True if goal is a difference.
        cpu_goal: the largest part of a CPU that the calling process may use, if that is measured.
        memory: True if the peak of memory of the calling process is measured.
        rounds: how many rounds, besides one to warm up; None for the usual number.
    """

    name: str
    contenders: dict[str, Run]
    goal: float
    is_difference: bool = False
    cpu_goal: float | None = None
    memory: bool = False
    rounds: int | None = None


def repeat(query: str, times: int) -> str:
    """Return an SQL array of equal queries."""
    return f"array_fill(text $${query}$$, array[{times}])"


def trivial(number: int) -> Work:
    """Return so many queries that do nothing."""
    return integers(repeat("select 1", number), number)


def burning(number: int) -> Work:
    """Return so many equal CPU-bound queries."""
    return integers(repeat("select n from burn", number), number)


def bulk(bench: Bench, kind: str, schemas: list[str]) -> Work:
    """Return queries of many rows, narrow or mixed, one for each of the schemas."""
    columns = {
        "narrow": "a int, b int, c text",
        "mixed": "n numeric, t timestamptz, x text, j json, f float8, u uuid, b bool, i int8",
    }[kind]
    queries = ", ".join(f"'select * from {schema}.{kind}'" for schema in schemas)
    return Work(f"array[{queries}]", f"whole.{kind}", columns, bench.rows)


def scenarios(bench: Bench, *, quick: bool) -> list[Scenario]:
    """Return all scenarios; if quick, without the slowest."""
    found = [
        _equal(bench), _unequal(bench), _one_query(bench),
        *(_many_workers(bench, number) for number in (4, 16, 64, 200)),
        *(_many_queries(bench, number) for number in (10_000, 100_000)), _linear(bench),
        *(_bulk(bench, kind, four) for kind in ("narrow", "mixed") for four in (False, True)),
        _large_value(bench), _first_call(bench), _num_cpus(bench), _cancel(bench),
        Scenario(f"{shards.SHARDS} shards, a class in the client", shards.contenders(bench), 1.0),
        Scenario("second `make`", {"pmpp": building.second_make, "limit: 1 s": peers.constant(1.0)}, 1.0),
    ]  # fmt: skip
    return found if quick else [*found, _make(bench)]


def best_schedule(seconds: list[float], workers: int) -> float:
    """Return how long queries take if each is begun, in order, as soon as a worker is free."""
    busy_until = [0.0] * workers
    for length in seconds:
        first = busy_until.index(min(busy_until))
        busy_until[first] += length
    return max(busy_until)


def _equal(bench: Bench) -> Scenario:
    work = burning(8)
    contenders = {
        "pmpp": peers.pmpp(bench, work, 2),
        "two psql, 4 queries each": peers.psql_halves(bench, work),
        "xargs -P 2 psql": peers.xargs(bench, work, 2),
        "dblink by hand, queue over 2 connections": peers.dblink_queue(bench, work, 2),
        "postgres_fdw, async_capable, 8 partitions on 2 servers":
            peers.postgres_fdw(bench, "fdw_parts.burns", 8),
        "one session": peers.one_session(bench, work),
    }  # fmt: skip
    if bench.has_plproxy:
        contenders["PL/Proxy, 4 times run on all, 2 partitions"] = peers.plproxy(
            bench, "plproxy_burn_two", 8, calls=4
        )
    return Scenario("8 equal CPU-bound queries, 2 workers", contenders, 1.05, cpu_goal=0.03)


def _unequal(bench: Bench) -> Scenario:
    lengths = ", ".join(map(str, UNEQUAL))
    queries = (
        f"array(select format('select 1 from pg_sleep(%s)', s) from unnest(array[{lengths}]) s)"
    )
    work = integers(queries, len(UNEQUAL))
    return Scenario("unequal queries (1 s, 7 x 0.1 s), 2 workers", {
        "pmpp": peers.pmpp(bench, work, 2),
        "best schedule (calculated)": peers.constant(best_schedule(UNEQUAL, 2)),
        "xargs -P 2 psql": peers.xargs(bench, work, 2),
        "dblink by hand, queue over 2 connections": peers.dblink_queue(bench, work, 2)}, 1.05)  # fmt: skip


def _one_query(bench: Bench) -> Scenario:
    return Scenario("one trivial query, warm session", {
        "pmpp": peers.repeated(peers.pmpp(bench, trivial(1), 1), 20),
        "dblink on a new connection": peers.repeated(peers.dblink_each(bench, trivial(1)), 20)}, 1.0)  # fmt: skip


def connecting(bench: Bench, number: int) -> dict[str, Run]:
    """Return contenders who open so many connections and use each of them.

    A query that is done at once leaves time for the next on the same connection, and nothing for
    the others, which then need not even be opened. So each query waits, longer than connecting
    takes, and returns its process, of which there must be as many as connections. What is
    measured is the time beyond that wait.
    """
    wait = 0.2 + number * 0.004
    work = integers(repeat(f"select pg_backend_pid() from pg_sleep({wait})", number), number)
    distinct = "count(distinct r.*)"
    return {
        "pmpp": peers.beyond(peers.pmpp(bench, work, number, distinct), wait),
        "dblink by hand, connected one by one":
            peers.beyond(peers.dblink_together(bench, work, distinct), wait),
        "dblink, a new connection for each query": peers.dblink_each(bench, trivial(number)),
    }  # fmt: skip


def _many_workers(bench: Bench, number: int) -> Scenario:
    return Scenario(f"{number} workers, all of them used", connecting(bench, number), 0.7)


def _many_queries(bench: Bench, number: int) -> Scenario:
    number = bench.scaled(number)
    work = trivial(number)
    return Scenario(f"{number:,} trivial queries, 2 workers", {
        "pmpp": peers.pmpp(bench, work, 2),
        "pgbench, 2 connections": peers.pgbench(bench, number),
        "dblink, one connection": peers.dblink_kept(bench, work)}, 1.3)  # fmt: skip


def _linear(bench: Bench) -> Scenario:
    many, few = bench.scaled(100_000), bench.scaled(10_000)
    ten_calls = peers.repeated(peers.pmpp(bench, trivial(few), 2), 10)
    return Scenario(f"linear: {many:,} trivial queries, 2 workers", {
        "pmpp": peers.pmpp(bench, trivial(many), 2),
        f"pmpp, ten calls with {few:,}": lambda: 10 * ten_calls()}, 1.1)  # fmt: skip


def _bulk(bench: Bench, kind: str, four: bool) -> Scenario:
    schemas = [f"part_{n}" for n in range(4)] if four else ["whole"]
    views = [f"{schema}.{kind}" for schema in schemas]
    work = bulk(bench, kind, schemas)
    foreign, workers, plural = ("parts", "4 workers", "s") if four else ("whole", "1 worker", "")
    columns = {"narrow": "3 narrow", "mixed": "8 mixed"}[kind]
    by_one = peers.dblink_each(bench, bulk(bench, kind, ["whole"]))
    contenders = {"pmpp": peers.pmpp(bench, work, len(views))}
    if four:
        contenders["dblink by hand, 4 connections together"] = peers.dblink_together(bench, work)
    contenders |= {
        "dblink, one connection": by_one,
        f"postgres_fdw, {'async_capable, ' if four else ''}{len(views)} partition{plural}":
            peers.postgres_fdw(bench, f"fdw_{foreign}.{kind}", work.rows),
    }  # fmt: skip
    if bench.has_plproxy:
        function = f"plproxy_{kind}_{'four' if four else 'one'}"
        contenders[f"PL/Proxy, run on all, {len(views)} partition{plural}"] = peers.plproxy(
            bench, function, work.rows
        )
    contenders[f"COPY to {len(views)} file{plural}"] = peers.copy(bench, *views)
    name = f"{bench.rows:,} rows x {columns} columns, {workers}"
    return Scenario(name, contenders, 1.6, memory=True)


def _large_value(bench: Bench) -> Scenario:
    size = 100 * 1024 * 1024
    work = Work(f"array[$$select repeat('x', {size})$$]", "text", "t text", 1)
    return Scenario("one value of 100 MB", {
        "pmpp": peers.pmpp(bench, work, 1),
        "dblink, one connection": peers.dblink_each(bench, work)}, 1.6, memory=True, rounds=3)  # fmt: skip


def _first_call(bench: Bench) -> Scenario:
    call = f"select * from pmpp.distribute(null::int, '{bench.here}', array['select 1'])"
    return Scenario("first call of a session", {
        "pmpp": peers.first_statement(bench, call),
        "starting PL/Python and importing psycopg": peers.first_statement(bench, IMPORT)}, 1.1)  # fmt: skip


def _num_cpus(bench: Bench) -> Scenario:
    def two_queries(workers: int | None) -> Run:
        return peers.repeated(peers.pmpp(bench, trivial(2), workers), 20)

    return Scenario("two trivial queries, number of workers by CPUs", {
        "pmpp": two_queries(None),
        "pmpp, num_workers => 2": two_queries(2)}, 0.005, is_difference=True)  # fmt: skip


def _cancel(bench: Bench) -> Scenario:
    sleep, workers = "select 1 from pg_sleep(100)", 50
    call = (f"select * from pmpp.distribute(null::int, '{bench.here}', {repeat(sleep, workers)},"
            f" num_workers => {workers})")  # fmt: skip
    return Scenario(f"cancel of a call, {workers} workers", {
        "pmpp": lambda: bench.cancelled(call, workers),
        "a query of the session itself": lambda: bench.cancelled(sleep, 1)}, 0.5, is_difference=True)  # fmt: skip


def _make(bench: Bench) -> Scenario:
    return Scenario("first `make`, without pip's cache", {
        "pmpp": building.fresh_make(bench),
        "pip install psycopg[binary]": building.pip_install(bench)}, 1.2, rounds=1)  # fmt: skip
