"""The logs of both servers have the lines of a call that doc/monitoring.md shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, SLEEP, TRUST, create_pmpp, eventually, tcp, wait_until

CALL = "select pmpp.distribute(null::int, $1, array[$2], num_workers => 1)"
WORKS = f"exists (select from pmpp.activity where query = '{SLEEP}' and state = 'active')"


class Log:
    """The log of a server that shows who said what, as "application_name: LEVEL:  text"."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen = len(cluster.read_log())

    def wait_for(self, line: str) -> str:
        """Return what is new in the log as soon as a line is in it."""
        wait_until(lambda: line in self._new().splitlines(), f"{line!r} is in the log")
        return self._new()

    def _new(self) -> str:
        return self._cluster.read_log()[self._seen :]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server that calls itself, and logs who says what."""
    with Cluster(PG_CONFIG, settings={"log_line_prefix": "%a: "}, hba=[TRUST]) as server:
        create_pmpp(server)
        yield server


@pytest.fixture
def caller(server: Cluster) -> Iterator[psycopg.Connection]:
    """A session whose application is called "report"."""
    conn = psycopg.connect(server.superuser(), application_name="report", autocommit=True)
    with closing(conn):
        yield conn


@pytest.fixture
def start(server: Cluster, caller: psycopg.Connection) -> Callable[[str], tuple[Log, str]]:
    """Send a call of a query; return the log, and the application_name of its worker."""
    there = tcp(server.port)

    def start(query: str) -> tuple[Log, str]:
        log = Log(server)
        caller.pgconn.send_query_params(CALL.encode(), [there.encode(), query.encode()])
        return log, f"pmpp {caller.info.backend_pid} item 1"

    return start


def test_failed_query(start: Callable[[str], tuple[Log, str]]) -> None:
    """The remote server logs the failed query, and the local server where it ran."""
    log, worker = start("select 1/0")
    text = log.wait_for(f"report: STATEMENT:  {CALL}")
    assert f"{worker}: ERROR:  division by zero\n{worker}: STATEMENT:  select 1/0\n" in text
    assert "report: ERROR:  division by zero\nreport: DETAIL:  Query 1 of item 1 on host=" in text


def test_cancel(
    server: Cluster, caller: psycopg.Connection, start: Callable[[str], tuple[Log, str]]
) -> None:
    """A cancelled call cancels its workers."""
    log, worker = start(SLEEP)
    eventually(server, WORKS)
    caller.cancel()
    text = log.wait_for("report: ERROR:  canceling statement due to user request")
    text = log.wait_for(f"{worker}: STATEMENT:  {SLEEP}")
    assert f"{worker}: ERROR:  canceling statement due to user request\n" in text


def test_terminated_caller(
    server: Cluster, caller: psycopg.Connection, start: Callable[[str], tuple[Log, str]]
) -> None:
    """Workers notice that the caller is gone; nothing else is logged."""
    log, worker = start(SLEEP)
    eventually(server, WORKS)
    eventually(server, f"pg_terminate_backend({caller.info.backend_pid})")
    text = log.wait_for(f"{worker}: STATEMENT:  {SLEEP}")
    assert f"{worker}: FATAL:  connection to client lost\n" in text
    assert "report: FATAL:  terminating connection due to administrator command\n" in text
    assert "Traceback" not in text


def test_terminated_worker(server: Cluster, start: Callable[[str], tuple[Log, str]]) -> None:
    """A worker can be ended alone; its call fails and says why."""
    log, worker = start(SLEEP)
    eventually(server, WORKS)
    eventually(server, "pg_terminate_backend(pid) from pmpp.activity")
    text = log.wait_for(f"report: STATEMENT:  {CALL}")
    assert f"{worker}: FATAL:  terminating connection due to administrator command\n" in text
    assert "report: ERROR:  terminating connection due to administrator command\n" in text
