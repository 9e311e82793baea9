"""What the log of Python shows, and what it must not show."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import psycopg2
import pytest
from client_shards import FrozenError, Open, counting, memory_database, on_each_postgres
from helpers import PASSWORD
from pmpp import ParallelConnection
from psycopg import sql
from psycopg.conninfo import make_conninfo


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that pmpp logs."""
    with caplog.at_level(logging.DEBUG, logger="pmpp"):
        yield caplog


def logged(log: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[str]:
    """Return the messages of a level."""
    records = [record for record in log.records if record.name.startswith("pmpp.client.")]
    return [record.getMessage() for record in records if record.levelno == level]


def test_what_is_logged(log: pytest.LogCaptureFixture) -> None:
    """The log shows opening, statements, transactions and closing, and no parameters."""
    connections = [memory_database() for _ in range(2)]
    with ParallelConnection(connections, names=["north", "south"]) as pdb:
        cursor = pdb.cursor().execute("create table t (n int)")
        cursor.executemany("insert into t values (?)", [(4711,), (4712,)])
        pdb.rollback()
        cursor.execute("select n from t where n = ?", (4711,)).fetchall()
    assert logged(log) == [
        "opened over connection 0 (north), connection 1 (south)",
        "execute on 2 connections: create table t (n int)",
        "executemany on 2 connections: insert into t values (?)",
        "rollback on 2 connections",
        "execute on 2 connections: select n from t where n = ?",
        "commit on 2 connections",
        "closing 2 connections",
    ]
    assert "471" not in log.text


class Pool:
    """A pool that closes its connections."""

    def putconn(self, connection: sqlite3.Connection) -> None:
        connection.close()


def test_connections_go_back(log: pytest.LogCaptureFixture) -> None:
    """The log shows that connections return to their pools, and not that they are closed."""
    pdb = ParallelConnection([memory_database()])
    pdb.putconn([Pool()])
    pdb.close()
    assert logged(log)[1:] == ["returning 1 connections to their pools"]


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_no_password_is_logged(log: pytest.LogCaptureFixture, dsns: list[str], driver: Any) -> None:
    """The log shows the database of a connection, but never the password of its string."""
    connections = [driver.connect(make_conninfo(dsn, password=PASSWORD)) for dsn in dsns[:2]]
    with ParallelConnection(connections) as pdb:
        cursor = pdb.cursor()
        with pytest.raises(driver.Error):
            cursor.execute("select nope")
        pdb.rollback()
        with pytest.raises(TimeoutError):
            cursor.execute("select pg_sleep(100)", timeout=0.1)
        pdb.rollback()
    assert "dbname=shard1" in log.text
    assert "sent a cancel request to connection 1" in log.text
    assert PASSWORD not in log.text


def test_values_in_composed_statements(connect_shards: Open, log: pytest.LogCaptureFixture) -> None:
    """A statement that is an object is shown by its class, since it contains values."""
    cursor = connect_shards("psycopg", shards=range(1)).cursor()
    cursor.execute(sql.SQL("select {}").format(sql.Literal(PASSWORD)))
    assert logged(log)[-1] == "execute on 1 connections: <class 'psycopg.sql.Composed'>"
    assert PASSWORD not in log.text


@on_each_postgres
def test_cancels_are_logged(
    connect_shards: Open, log: pytest.LogCaptureFixture, driver: str
) -> None:
    """The log shows the cancel request to each connection."""
    pdb = connect_shards(driver, shards=range(2), names=["north", "south"])
    with pytest.raises(TimeoutError):
        pdb.cursor().execute("select pg_sleep(100)", timeout=0.1)
    for name in ("connection 0 (north)", "connection 1 (south)"):
        assert f"sent a cancel request to {name}" in logged(log)
    assert logged(log, logging.WARNING) == []


class RefusesOnce(sqlite3.Connection):
    """A connection that refuses its first interrupt."""

    has_refused = False

    def interrupt(self) -> None:
        if not self.has_refused:
            self.has_refused = True
            raise ValueError("not now")
        super().interrupt()


def test_failed_cancel_is_logged(log: pytest.LogCaptureFixture) -> None:
    """A warning shows the failure of a cancel request, which no exception shows."""
    connection = memory_database(factory=RefusesOnce)
    with ParallelConnection([connection], names=["north"]) as pdb:
        with pytest.raises(TimeoutError):
            pdb.cursor().execute(counting("count(*)"), timeout=0.1)
        assert logged(log, logging.WARNING) == [
            "could not cancel the call on connection 0 (north): ValueError: not now"
        ]


class Unclosable(sqlite3.Cursor):
    """A cursor that cannot be closed."""

    def close(self) -> None:
        raise sqlite3.OperationalError("cannot be closed")


def test_failure_that_cannot_be_attached_is_logged(log: pytest.LogCaptureFixture) -> None:
    """A warning shows the failure of a close if the exception takes no attributes."""
    connection = memory_database()
    with ParallelConnection([connection]) as pdb:
        with suppress(FrozenError), pdb.cursor(Unclosable):
            raise FrozenError
        assert logged(log, logging.WARNING) == [
            "a further failure: OperationalError: cannot be closed"
        ]


# The garbage collector may close a cursor while a handler of the log is locked.
CLOSES_IN_A_HANDLER = """
import logging, sqlite3
from pmpp import ParallelConnection

class Handler(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("execute"):
            cursors.pop().close()

pdb = ParallelConnection([sqlite3.connect(":memory:", check_same_thread=False)])
cursors = [pdb.cursor()]
logging.getLogger("pmpp").addHandler(Handler())
logging.getLogger("pmpp").setLevel(logging.DEBUG)
pdb.cursor().execute("select 1")
pdb.close()
print(cursors)
"""

# A request to cancel fails in a program that has not set up logging.
WITHOUT_LOGGING = f"""
import sqlite3
from pmpp import ParallelConnection

class RefusesOnce(sqlite3.Connection):
    refusals = 1
    def interrupt(self):
        if self.refusals:
            self.refusals = 0
            raise ValueError
        super().interrupt()

connection = sqlite3.connect(":memory:", check_same_thread=False, factory=RefusesOnce)
pdb = ParallelConnection([connection])
try:
    pdb.cursor().execute("{counting("count(*)")}", timeout=0.1)
except TimeoutError:
    print(connection.refusals)
pdb.close()
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [(CLOSES_IN_A_HANDLER, "[]\n"), (WITHOUT_LOGGING, "0\n")],
    ids=["closed in a handler", "without logging"],
)
def test_programs(program: str, output: str) -> None:
    """Programs come to their end, and see nothing of the log without setting it up."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (output, "")
