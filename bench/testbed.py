"""The server on which everything is measured, and ways to run something there and take its time."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from cluster import SETTINGS, Cluster

HERE = Path(__file__).parent

# Does some work and returns the seconds that it took.
Run = Callable[[], float]

# Thousands of steps of one CPU-bound query, about 0.4 s; a quick one takes a quarter of that.
BURN = 6_000


class Bench:
    """A server with all that is measured, and a session of the caller, which stays warm.

    Args:
        cluster: the server, running.
        quick: True if a twentieth of the rows and queries is enough.
    """

    def __init__(self, cluster: Cluster, *, quick: bool) -> None:
        self.cluster = cluster
        self._scale = 0.05 if quick else 1.0
        self.here = cluster.superuser()
        self.rows = self.scaled(1_000_000)
        self._setup("setup.sql", rows=str(self.rows), burn=str(BURN // 4 if quick else BURN))
        self.conn = self.connect()
        self.has_plproxy = bool(
            self.values("select from pg_available_extensions where name = 'plproxy'")
        )
        if self.has_plproxy:
            self._setup("setup-plproxy.sql")

    def scaled(self, number: int) -> int:
        """Return the part of a number that is to be done."""
        return int(number * self._scale)

    def connect(self) -> psycopg.Connection:
        """Return a new session."""
        return psycopg.connect(self.here, autocommit=True)

    def values(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.conn.execute(query).fetchall()

    def sql(
        self, query: str, rows: int, before: Sequence[str] = (), after: Sequence[str] = ()
    ) -> float:
        """Run a query that counts rows in the caller's session.

        Args:
            query: returns one number.
            rows: what it must return.
            before: statements to be run first; their time counts.
            after: statements to be run afterwards; their time counts.

        Returns:
            the seconds that all took.
        """
        started = time.perf_counter()
        for statement in before:
            self.conn.execute(statement)
        found = self.values(query)
        for statement in after:
            self.conn.execute(statement)
        elapsed = time.perf_counter() - started
        if found != [(rows,)]:
            raise RuntimeError(f"expected {rows} rows, got {found}: {query}")
        return elapsed

    def in_new_session(self, query: str) -> float:
        """Return the seconds of a query in a fresh session, without those of connecting."""
        with self.connect() as conn:
            started = time.perf_counter()
            conn.execute(query)
            return time.perf_counter() - started

    def cancelled(self, statement: str, sleepers: int) -> float:
        """Return the seconds from the cancel of a statement, once so many sessions sleep, to its error."""
        asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        pgconn = self.conn.pgconn
        with self.connect() as other:
            pgconn.send_query(statement.encode())
            while other.execute(asleep).fetchall() != [(sleepers,)]:
                time.sleep(0.01)
            started = time.perf_counter()
            other.execute("select pg_cancel_backend(%s)", [pgconn.backend_pid])
            result = pgconn.get_result()
            elapsed = time.perf_counter() - started
        while pgconn.get_result():
            pass
        if not result or result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) != b"57014":
            raise RuntimeError(f"this was not cancelled: {statement}")
        return elapsed

    def programs(self, *commands: Sequence[str | Path]) -> float:
        """Run programs of PostgreSQL together, with their output to files.

        Returns:
            the seconds until all have ended.

        Raises:
            RuntimeError: if one fails.
        """
        environment = {
            **os.environ,
            **self.cluster.environment(),
            "PGDATABASE": "postgres",
            "PATH": f"{self.cluster.bindir}:{os.environ['PATH']}",
        }
        outputs = [self.cluster.directory / f"output-{n}" for n in range(len(commands))]
        started = time.perf_counter()
        running = []
        for command, output in zip(commands, outputs, strict=True):
            with output.open("w") as file:
                running.append(
                    subprocess.Popen(
                        command, env=environment, stdout=file, stderr=subprocess.STDOUT
                    )
                )
        failed = [process for process in running if process.wait()]
        elapsed = time.perf_counter() - started
        if failed:
            text = outputs[running.index(failed[0])].read_text()
            raise RuntimeError(f"{failed[0].args!r} failed:\n{text[-2000:]}")
        return elapsed

    def settle(self) -> None:
        """Wait until the server processes of what was run before have ended.

        What is known to be there for good is not counted: it does not change.
        """
        postmaster = (self.cluster.data / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        seen: list[str] = []
        while len(seen) < 5 or len(set(seen[-5:])) > 1:
            seen.append(children.read_text())
            time.sleep(0.01)

    def peak_memory(self, run: Run) -> float:
        """Return the peak of resident memory, in MB, of a fresh session that does some work."""
        with self._fresh_session() as pid:
            run()
            status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found, "the kernel does not report peaks of memory"
        return int(found[1]) / 1024

    def cpu_share(self, run: Run) -> float:
        """Return the part of one CPU that the caller's server process uses while it does some work."""
        before = self.values("select process_time()")[0][0]
        elapsed = run()
        return float(self.values("select process_time()")[0][0] - before) / elapsed

    def environment(self) -> str:
        """Describe the machine, the versions and the settings, in Markdown."""
        cpuinfo = Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*: (.*)", cpuinfo)
        self.conn.execute(f"select pmpp.distribute(null::int, '{self.here}', array['select 1'])")
        self.conn.execute("""
            create or replace function pg_temp.psycopg_version() returns text language plpython3u as $$
                import psycopg
                libpq = divmod(psycopg.pq.version(), 10000)
                return f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), libpq {libpq[0]}.{libpq[1]}"
            $$""")
        ((postgresql, pmpp, imported),) = self.values("""
            select split_part(version(), ' ', 2), extversion, pg_temp.psycopg_version()
              from pg_extension where extname = 'pmpp'""")
        kernel = os.uname().release.split(".")
        settings = ", ".join(
            f"{name} {SETTINGS[name]}" for name in ("shared_buffers", "max_connections", "fsync")
        )
        return (
            f"{os.cpu_count()} CPUs ({model[1] if model else os.uname().machine}),"
            f" Linux {kernel[0]}.{kernel[1]}; PostgreSQL {postgresql}, pmpp {pmpp}, {imported};"
            f" {settings}; load of the machine before: {os.getloadavg()[0]:.1f}; caller and remotes on one machine, connected by a Unix socket."
        )

    @contextmanager
    def _fresh_session(self) -> Iterator[int]:
        warm = self.conn
        with self.connect() as self.conn:
            yield self.conn.info.backend_pid
        self.conn = warm

    def _setup(self, script: str, **variables: str) -> None:
        variables |= {"here": self.here, "host": self.cluster.host, "port": str(self.cluster.port)}
        self.programs(
            ["psql", "-Xqv", "ON_ERROR_STOP=1", "-f", HERE / script,
             *(f"--set={name}={value}" for name, value in variables.items())]
        )  # fmt: skip
