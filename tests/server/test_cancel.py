"""A call ends when it is cancelled, wherever it waits."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from cluster import Cluster
from forwarder import Fault, Forwarder
from helpers import (
    PG_CONFIG,
    SLEEP,
    WORKERS,
    Connect,
    descriptors,
    eventually,
    open_terminal,
    wait_until,
    workers_of,
)
from psycopg import sql

# Seconds within which a call must end, on a machine however busy. What waits here would wait for
# 100 s or for ever. How fast a call ends is measured by make bench.
LIMIT = 10


class Call(NamedTuple):
    """A call that waits until it is stopped.

    Attributes:
        text: the statement.
        is_waiting: returns True once all its workers have got to where they wait.
    """

    text: str
    is_waiting: Callable[[], object]


PLACES = ["connecting", "authentication", "cpus", "setup", "query", "half_result", "sending"]
FORMS = {
    "polymorphic": "select * from pmpp.distribute(null::int, {}::pmpp.query_manifest[])",
    "record": "select * from pmpp.distribute({}::pmpp.query_manifest[]) as (i int)",
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """The two ways in which rows are returned."""
    return FORMS[request.param]


@pytest.fixture(params=[1, pytest.param(50, marks=pytest.mark.slow)])
def workers(request: pytest.FixtureRequest) -> int:
    """How many connections wait."""
    return int(request.param)


@pytest.fixture(params=PLACES)
def call(
    request: pytest.FixtureRequest, form: str, workers: int, remote: Cluster, there: str
) -> Iterator[Call]:
    """A call that waits in one of the places where a call can wait."""
    rows = "select generate_series(1, 100000000)"
    # More than the network buffers. PL/Python takes a second to read 200 MB of queries.
    long = "x" * (8_000_000 if workers == 1 else 1_500_000)
    places: dict[str, tuple[Fault, int, str, list[str] | None, int | None]] = {
        "connecting": ("mute", 0, "select 1", None, workers),
        "authentication": ("stall", 5, "select 1", None, workers),
        "cpus": ("none", 0, "select 1", None, None),
        "setup": ("none", 0, "select 1", [SLEEP], workers),
        "query": ("none", 0, SLEEP, None, workers),
        "half_result": ("stall", 100_000, rows, None, workers),
        "sending": ("deaf", 10_000, f"select /*{long}*/ 1", None, workers),
    }
    fault, after, query, setup, count = places[request.param]
    network = Forwarder(remote.port, fault, after)
    dbname = "slow_cpus" if request.param == "cpus" else "postgres"
    connection = f"{there} port={network.port} dbname={dbname}"

    def literal(value: object) -> str:
        return sql.Literal(value).as_string(None)

    manifest = (
        f"array[row({literal(connection)}, array_fill({literal(query)}::text, array[{workers + 1}]),"
        f" null, {literal(count)}, {literal(setup)}::text[], null)::pmpp.query_manifest]"
    )
    waiting = ("relation", 1) if request.param == "cpus" else ("PgSleep", workers)

    def are_all_asleep() -> bool:
        asleep = (
            "select wait_event, count(*) from pg_stat_activity"
            " where wait_event = %s and backend_type = 'client backend' group by 1"
        )
        return watcher.execute(asleep, waiting[:1]).fetchall() == [waiting]

    is_waiting = {
        "mute": lambda: network.accepted == workers,
        "stall": lambda: network.held == workers,
        "deaf": lambda: network.held == workers,
        "none": are_all_asleep,
    }[fault]
    with network, psycopg.connect(remote.superuser(), autocommit=True) as watcher:
        yield Call(form.format(manifest), is_waiting)


def run_and_stop(conn: psycopg.Connection, call: Call, stop: Callable[[], object]) -> psycopg.Error:
    """Run a call, stop it when it waits, and return its error."""

    def stop_when_waiting() -> float:
        try:
            wait_until(call.is_waiting, "the call waits", within=30)
        finally:
            stopped = time.monotonic()
            stop()
        return stopped

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(stop_when_waiting)
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(call.text)
        assert time.monotonic() - stopped.result() < LIMIT
    return raised.value


def assert_nothing_is_left(db: psycopg.Connection, remote: Cluster, before: list[str]) -> None:
    """The connections are closed, the remote server is idle, and the next call succeeds."""
    pid = db.info.backend_pid
    assert descriptors(pid) == before
    eventually(remote, f"not exists ({workers_of(pid)} and state = 'active')")
    rows = db.execute(
        "select * from pmpp.distribute(null::int, %s, array['select 1', 'select 2'])",
        [remote.superuser()],
    ).fetchall()
    assert sorted(rows) == [(1,), (2,)]


def test_pg_cancel_backend(
    db: psycopg.Connection, connect: Connect, call: Call, remote: Cluster
) -> None:
    """pg_cancel_backend ends a call and its remote queries, and the session goes on."""
    other = connect()
    pid = db.info.backend_pid
    before = descriptors(pid)
    error = run_and_stop(db, call, lambda: other.execute("select pg_cancel_backend(%s)", [pid]))
    assert error.sqlstate == "57014"
    assert_nothing_is_left(db, remote, before)


@pytest.mark.parametrize("workers", [50], indirect=True)
def test_statement_timeout(db: psycopg.Connection, call: Call, remote: Cluster) -> None:
    """statement_timeout ends a call, with the server's own words."""
    db.execute("select pmpp._load()")
    before = descriptors(db.info.backend_pid)
    db.execute("set statement_timeout to '500ms'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled, match="due to statement timeout"):
        db.execute(call.text)
    assert time.monotonic() - started < LIMIT
    db.execute("reset statement_timeout")
    assert_nothing_is_left(db, remote, before)


def test_lock_timeout_of_the_remote(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """lock_timeout on the remote server ends the call with the remote server's own error."""
    with psycopg.connect(remote.superuser()) as holder:
        holder.execute("create table locked (i int)")
        holder.commit()
        holder.execute("lock table locked")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="due to lock timeout"):
            db.execute(
                "select * from pmpp.distribute(null::int, %s, array['select * from locked'],"
                " setup_commands => array['set lock_timeout to 50'])",
                [there],
            )
        holder.execute("drop table locked")


def test_deaf_remote(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """A remote query that catches cancel requests does not delay the caller."""
    stubborn = """
        do $$ begin
            loop begin perform pg_sleep(1); exception when query_canceled then null; end; end loop;
        end $$
    """
    db.execute("select pmpp._load()")
    db.execute("set statement_timeout to '500ms'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.execute("select * from pmpp.meta(%s, %s, num_workers => 20)", [there, [stubborn] * 20])
    assert time.monotonic() - started < LIMIT
    db.execute("reset statement_timeout")
    db.execute("select * from pmpp.meta(%s, %s)", [
        there, ["select pg_terminate_backend(pid), '' from pg_stat_activity where application_name ~ '^pmpp ' and pid <> pg_backend_pid()"]
    ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_caller_dies(remote: Cluster, there: str, number: signal.Signals) -> None:
    """When the caller's process is terminated or killed, its workers end."""
    call = "select * from pmpp.distribute(null::int, %s, array[%s])"
    with Cluster(PG_CONFIG) as cluster:
        db = psycopg.connect(cluster.superuser(), autocommit=True)
        db.execute("create extension pmpp cascade")
        pid = db.info.backend_pid

        def die() -> None:
            eventually(remote, f"exists ({workers_of(pid)})")
            os.kill(pid, number)

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(psycopg.OperationalError):
            db.execute(call, [there, SLEEP])
        thread.join()
        eventually(remote, f"not exists ({workers_of(pid)})")


@pytest.mark.parametrize("form", ["polymorphic"], indirect=True)
def test_interrupt_key_in_psql(here: str, call: Call, remote: Cluster, tmp_path: Path) -> None:
    """Ctrl-C in psql ends a call wherever it waits."""
    script = tmp_path / "call.sql"
    script.write_text(f"select pmpp._load() is null as loaded;\n{call.text};\n")
    master, slave = open_terminal()
    psql = subprocess.Popen(
        [remote.bindir / "psql", "-X", "--no-readline", "-P", "pager=off", here, "-f", str(script)],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    output = _read(master, until=b"loaded")
    wait_until(call.is_waiting, "the call waits", within=30)
    psql.send_signal(signal.SIGINT)
    output += _read(master, until=b"user request")
    psql.wait()
    os.close(master)
    assert b"ERROR:  canceling statement due to user request" in output
    eventually(remote, f"not exists ({WORKERS} and state = 'active')")


def _read(terminal: int, until: bytes) -> bytes:
    """Read what a program prints, until it has printed something or is closed."""
    output = b""
    while until not in output and select.select([terminal], [], [], LIMIT)[0]:
        try:
            output += os.read(terminal, 1024)
        except OSError:
            # The program has closed its end of the terminal.
            break
    return output


@pytest.mark.parametrize(("interval", "written"), [("0", 1), ("100ms", 0)])
def test_client_goes_away(
    cluster: Cluster, db: psycopg.Connection, interval: str, written: int
) -> None:
    """A call outlives its client unless client_connection_check_interval is set."""
    db.execute("create table note (n int)")
    db.execute("select pg_advisory_lock(1)")
    here = cluster.superuser(db.info.dbname)
    query = "insert into note select 1 from pg_advisory_xact_lock_shared(1)"
    call = f"select * from pmpp.meta('{here}', array['{query}'])"
    client = subprocess.Popen(
        [cluster.bindir / "psql", "-Xq", "-c", call,
         f"{here} application_name=client options='-c client_connection_check_interval={interval}'"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    name = db.info.dbname
    worker = f"{WORKERS} and datname = '{name}'"
    caller = (
        f"select from pg_stat_activity where datname = '{name}' and application_name = 'client'"
    )
    gone = f"not exists ({caller}) and not exists ({worker})"
    eventually(cluster, f"exists ({worker} and wait_event_type = 'Lock')")
    client.kill()
    client.wait()
    if not written:
        eventually(cluster, gone)
    db.execute("select pg_advisory_unlock(1)")
    eventually(cluster, gone)
    assert db.execute("select count(*) from note").fetchall() == [(written,)]
