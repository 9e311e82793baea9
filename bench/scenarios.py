"""What is measured, and how each contender does it, as its own manual would have it done."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg
from cluster import Cluster

NARROW = "select n, n % 1000, 'name ' || n from generate_series({}, {}) n"
MIXED = """select n::numeric / 7, timestamptz '2020-01-01' + n * interval '1 second', 'text ' || n,
    json_build_object('n', n), sqrt(n), md5(n::text)::uuid, n % 2 = 0, n::bigint << 20
    from generate_series({}, {}) n"""
BURN = "select count(*) from generate_series(1, {}) n where n % 3 = 0"


class Bench:
    """The server that is measured, and a session of the caller."""

    def __init__(self, cluster: Cluster, conn: psycopg.Connection, quick: bool) -> None:
        self.cluster = cluster
        self.conn = conn
        self.dsn = cluster.superuser()
        self.scale = 0.2 if quick else 1.0
        self._remarks: dict[str, str] = {}
        conn.execute(
            """
            create extension pmpp cascade; create extension dblink;
            create table narrow (a int, b int, c text);
            create table mixed (n numeric, t timestamptz, x text, j json, f float8, u uuid, b bool, i int8);
            """
        )

    def sql(self, query: str, *parameters: object) -> float:
        """Run a query in the caller's session; return its seconds."""
        started = time.perf_counter()
        self.conn.execute(query, parameters or None).fetchall()  # type: ignore[arg-type]
        return time.perf_counter() - started

    def in_new_session(self, query: str) -> float:
        """Run a query in a fresh session, whose connecting is not counted."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            started = time.perf_counter()
            conn.execute(query)  # type: ignore[arg-type]
            return time.perf_counter() - started

    def programs(self, *commands: list[str]) -> float:
        """Run programs together; return the seconds until all have ended."""
        env = {**os.environ, **self.cluster.environment(), "PGDATABASE": "postgres"}
        started = time.perf_counter()
        running = [
            subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in commands
        ]
        for process in running:
            if process.wait():
                raise RuntimeError(f"{process.args} failed")
        return time.perf_counter() - started

    def cpu_seconds(self) -> float:
        """Return the CPU time that the caller's server process has used."""
        stat = (
            Path(f"/proc/{self.conn.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
        )
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def remark(self, label: str, value: str) -> None:
        """Have something printed with the scenario under way."""
        self._remarks[label] = value

    def remarks(self) -> list[tuple[str, str]]:
        """Return what was remarked since the last time, and the peak of the caller's memory."""
        status = Path(f"/proc/{self.conn.info.backend_pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        remarks = [
            *self._remarks.items(),
            ("peak memory of the session so far", f"{int(peak[1]) // 1024} MB"),
        ]  # type: ignore[index]
        self._remarks = {}
        return remarks


Run = Callable[[Bench], float]


class Scenario(NamedTuple):
    """A race of contenders, of which one is pmpp."""

    name: str
    against: str
    goal: float
    contenders: dict[str, Run]


def distribute(row_type: str, queries: Callable[[Bench], list[str]], workers: int) -> Run:
    """Run queries with pmpp; count the rows, so that nothing but the call is measured."""

    def run(bench: Bench) -> float:
        before = bench.cpu_seconds()
        elapsed = bench.sql(
            f"select count(r) from pmpp.distribute(null::{row_type}, %s, %s, num_workers => %s) r",
            bench.dsn, queries(bench), workers,
        )  # fmt: skip
        bench.remark(
            "CPU of the calling process", f"{100 * (bench.cpu_seconds() - before) / elapsed:.1f} %"
        )
        return elapsed

    return run


def serial(queries: Callable[[Bench], list[str]]) -> Run:
    """Run queries one after the other in one session."""
    return lambda bench: sum(bench.sql(query) for query in queries(bench))


def burning(bench: Bench) -> list[str]:
    return [BURN.format(int(3_000_000 * bench.scale))] * 8


def two_psql(bench: Bench) -> float:
    """Two psql processes started together, with half of the queries each: the machine's limit."""
    script = ";".join(burning(bench)[:4])
    return bench.programs(["psql", "-Xqc", script], ["psql", "-Xqc", script])


def xargs(bench: Bench) -> float:
    """A psql process for each query, two at a time."""
    lines = bench.cluster.directory / "queries.sql"
    lines.write_text("\n".join(burning(bench)) + "\n")
    return bench.programs(
        ["xargs", "-a", str(lines), "-P", "2", "-d", "\\n", "-n", "1", "psql", "-Xqc"]
    )


def dblink_one_by_one(count: int) -> Run:
    """Open that many connections with dblink, one by one, send each a query, collect, close."""

    def run(bench: Bench) -> float:
        return bench.sql(f"""
            select dblink_connect('c' || n, '{bench.dsn}') from generate_series(1, {count}) n;
            select dblink_send_query('c' || n, 'select 1') from generate_series(1, {count}) n;
            select r.* from generate_series(1, {count}) n, dblink_get_result('c' || n) as r(i int);
            select dblink_disconnect('c' || n) from generate_series(1, {count}) n;
        """)

    return run


def pgbench(count: int) -> Run:
    """Send that many trivial queries on two connections with pgbench."""

    def run(bench: Bench) -> float:
        script = bench.cluster.directory / "trivial.sql"
        script.write_text("select 1;\n")
        command = [
            "pgbench",
            "-n",
            "-c",
            "2",
            "-t",
            str(int(count * bench.scale) // 2),
            "-f",
            str(script),
        ]
        return bench.programs([str(bench.cluster.bindir / command[0]), *command[1:]])

    return run


def dblink(columns: str, query: str) -> Run:
    """Fetch the rows of one query with dblink."""

    def run(bench: Bench) -> float:
        filled = query.format(1, int(1_000_000 * bench.scale))
        return bench.sql(f"select count(r) from dblink(%s, %s) as r({columns})", bench.dsn, filled)

    return run


def pieces(query: str, count: int) -> Callable[[Bench], list[str]]:
    """Cut a million rows into that many queries."""

    def cut(bench: Bench) -> list[str]:
        size = int(1_000_000 * bench.scale) // count
        return [query.format(n * size + 1, (n + 1) * size) for n in range(count)]

    return cut


def copy_to_file(query: str) -> Run:
    """Write the rows to nowhere with COPY: what producing the bytes alone costs."""
    return lambda bench: bench.programs(
        ["psql", "-Xqc", f"copy ({query.format(1, int(1_000_000 * bench.scale))}) to stdout"]
    )


def trivial(count: int) -> Callable[[Bench], list[str]]:
    return lambda bench: ["select 1"] * count


def scaled(count: int) -> Callable[[Bench], list[str]]:
    return lambda bench: ["select 1"] * int(count * bench.scale)


UNEQUAL = ["select 1 from pg_sleep(1)"] + ["select 1 from pg_sleep(0.1)"] * 7

IMPORT = """
    do language plpython3u $$
    import sys
    (row,) = plpy.execute("select setting || '/pmpp/' || extversion as d from pg_config, pg_extension where name = 'PKGLIBDIR' and extname = 'pmpp'")
    sys.path.insert(0, row["d"])
    import psycopg
    $$
"""

NARROW_COLUMNS = "a int, b int, c text"
MIXED_COLUMNS = "n numeric, t timestamptz, x text, j json, f float8, u uuid, b bool, i int8"

SCENARIOS = [
    Scenario("8 CPU-bound queries, 2 workers", "2 psql processes", 1.05, {
        "pmpp": distribute("bigint", burning, 2), "2 psql processes": two_psql,
        "xargs -P 2 psql": xargs, "one session": serial(burning)}),
    Scenario("unequal queries (1 s, 7 x 0.1 s), 2 workers", "best schedule", 1.05, {
        "pmpp": distribute("int", lambda bench: UNEQUAL, 2), "best schedule": lambda bench: 1.0}),
    Scenario("one trivial query, warm session", "dblink", 1.0, {
        "pmpp": distribute("int", trivial(1), 1),
        "dblink": lambda bench: bench.sql("select * from dblink(%s, 'select 1') as r(i int)", bench.dsn)}),
    *(Scenario(f"{count} workers, trivial queries", "dblink one by one", 0.7, {
        "pmpp": distribute("int", trivial(count), count),
        "dblink one by one": dblink_one_by_one(count)}) for count in (4, 16, 64, 200)),
    *(Scenario(f"{count} trivial queries, 2 workers", "pgbench", 1.3, {
        "pmpp": distribute("int", scaled(count), 2), "pgbench": pgbench(count)})
      for count in (10_000, 100_000)),
    *(Scenario(f"1 M rows of {name} columns, {count} workers", "dblink", 1.6, {
        "pmpp": distribute(row_type, pieces(query, count), count),
        "dblink": dblink(columns, query), "COPY to nowhere": copy_to_file(query)})
      for name, row_type, columns, query in (
          ("3 narrow", "narrow", NARROW_COLUMNS, NARROW), ("8 mixed", "mixed", MIXED_COLUMNS, MIXED))
      for count in (1, 4)),
    Scenario("first call of a session", "PL/Python and psycopg", 1.1, {
        "pmpp": lambda bench: bench.in_new_session(
            f"select * from pmpp.distribute(null::int, '{bench.dsn}', array['select 1'])"),
        "PL/Python and psycopg": lambda bench: bench.in_new_session(IMPORT)}),
]  # fmt: skip
