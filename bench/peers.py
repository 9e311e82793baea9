"""How each contender does its work, as its own manual would have it done."""

from __future__ import annotations

from typing import NamedTuple

from testbed import Bench, Run


class Work(NamedTuple):
    """Queries to be run, and what comes of them.

    Attributes:
        queries: an SQL expression of type text[].
        row_type: the type of their rows.
        columns: the column definition list of that type.
        rows: how many rows they return in all.
    """

    queries: str
    row_type: str
    columns: str
    rows: int


def integers(queries: str, rows: int) -> Work:
    """Return work whose queries return an integer each."""
    return Work(queries, "bigint", "n bigint", rows)


def pmpp(bench: Bench, work: Work, workers: int | None, counted: str = "count(*)") -> Run:
    """Run queries with pmpp, and count the rows, so that nothing but the call is measured."""
    return lambda: bench.sql(
        f"select {counted} from pmpp.distribute(null::{work.row_type}, '{bench.here}',"
        f" {work.queries}, num_workers => {workers or 'null'}) r", work.rows)  # fmt: skip


def one_session(bench: Bench, work: Work) -> Run:
    """Run queries that return one row each, one after the other in the caller's session."""

    def run() -> float:
        return sum(bench.sql(f"select count(*) from ({query}) r", 1) for query in listed())

    def listed() -> list[str]:
        return [query for (query,) in bench.values(f"select unnest({work.queries})")]

    return run


def dblink_queue(bench: Bench, work: Work, workers: int) -> Run:
    """Run queries with a queue in PL/pgSQL over connections of dblink."""
    return lambda: bench.sql(
        f"select dblink_queue('{bench.here}', {work.queries}, {workers})", work.rows)  # fmt: skip


def dblink_each(bench: Bench, work: Work) -> Run:
    """Run each query on a new connection of dblink, one after the other."""
    return lambda: bench.sql(
        f"select count(*) from unnest({work.queries}) q,"
        f" lateral dblink('{bench.here}', q) as r({work.columns})", work.rows)  # fmt: skip


def dblink_kept(bench: Bench, work: Work) -> Run:
    """Run queries one after the other on one connection of dblink."""
    return lambda: bench.sql(
        f"select count(*) from unnest({work.queries}) q,"
        f" lateral dblink('kept', q) as r({work.columns})", work.rows,
        before=[f"select dblink_connect('kept', '{bench.here}')"],
        after=["select dblink_disconnect('kept')"])  # fmt: skip


def dblink_together(bench: Bench, work: Work, counted: str = "count(*)") -> Run:
    """Open a connection of dblink for each query, send to all, collect from all, close."""
    queries = f"unnest({work.queries}) with ordinality as u(q, n)"
    return lambda: bench.sql(
        f"select {counted} from {queries}, lateral dblink_get_result('c' || n) as r({work.columns})",
        work.rows,
        before=[f"select dblink_connect('c' || n, '{bench.here}') from {queries}",
                f"select dblink_send_query('c' || n, q) from {queries}"],
        after=[f"select dblink_disconnect('c' || n) from {queries}"])  # fmt: skip


def postgres_fdw(bench: Bench, table: str, rows: int) -> Run:
    """Count the rows of a foreign table, with all columns: count(*) alone would be done remotely."""
    return lambda: bench.sql(
        f"with r as materialized (select * from {table}) select count(*) from r", rows)  # fmt: skip


def plproxy(bench: Bench, function: str, rows: int, calls: int = 1) -> Run:
    """Call a function of PL/Proxy so many times, which runs on all its partitions.

    The calls are in a select list: in FROM, a call that does not depend on others is made once.
    """
    return lambda: bench.sql(
        f"select count(*) from {function}()" if calls == 1 else
        f"select count(*) from (select {function}() from generate_series(1, {calls})) r", rows)  # fmt: skip


def xargs(bench: Bench, work: Work, processes: int) -> Run:
    """Run a psql process for each query, several at a time."""
    lines = bench.cluster.directory / "queries"

    def run() -> float:
        queries = bench.values(f"select string_agg(q || E'\\n', '') from unnest({work.queries}) q")
        lines.write_text(queries[0][0])
        return bench.programs(
            ["xargs", "-a", lines, "-P", str(processes), "-d", "\\n", "-n", "1", "psql", "-Xqc"]
        )

    return run


def psql_halves(bench: Bench, work: Work) -> Run:
    """Start two psql processes together, with half of the queries each."""

    def run() -> float:
        queries = [query for (query,) in bench.values(f"select unnest({work.queries})")]
        halves = [queries[::2], queries[1::2]]
        return bench.programs(*(["psql", "-Xqc", ";".join(half)] for half in halves))

    return run


def copy(bench: Bench, *sources: str) -> Run:
    """Write rows to files with a psql process for each source: the time that the bytes alone take."""
    return lambda: bench.programs(
        *(["psql", "-Xqc", f"copy (select * from {source}) to stdout"] for source in sources)
    )


def pgbench(bench: Bench, count: int) -> Run:
    """Send that many trivial queries on two connections with pgbench."""
    script = bench.cluster.directory / "trivial.sql"
    script.write_text("select 1;\n")
    return lambda: bench.programs(["pgbench", "-n", "-c", "2", "-t", str(count // 2), "-f", script])


def first_statement(bench: Bench, statement: str) -> Run:
    """Run a statement as the first one of a new session."""
    return lambda: bench.in_new_session(statement)


def repeated(run: Run, times: int) -> Run:
    """Do some work several times, and return the mean."""
    return lambda: sum(run() for _ in range(times)) / times


def beyond(run: Run, seconds: float) -> Run:
    """Return what some work takes beyond a time that it waits in any case."""
    return lambda: run() - seconds


def constant(seconds: float) -> Run:
    """Stand for something that was calculated or set as a limit."""
    return lambda: seconds
