"""A call ends when it is told to, wherever it is waiting."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

Connect = Callable[..., psycopg.Connection]

LIMIT = 0.5  # seconds from the cancel to the error


@pytest.fixture
def silent() -> Iterator[str]:
    """A connection string of something that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"host=127.0.0.1 port={listener.getsockname()[1]}"


POLYMORPHIC = "select * from pmpp.distribute(null::int, {manifest}::pmpp.query_manifest[])"
RECORD = "select * from pmpp.distribute({manifest}::pmpp.query_manifest[]) as (i int)"


@pytest.fixture(params=[POLYMORPHIC, RECORD], ids=["polymorphic", "record"])
def form(request: pytest.FixtureRequest) -> str:
    """The two ways in which rows are returned."""
    return str(request.param)


@pytest.fixture(params=["connecting", "setup", "query", "rows"])
def call(request: pytest.FixtureRequest, form: str, here: str, silent: str) -> str:
    """A call that waits in one of the places where a call can wait."""
    connection, query, setup = {
        "connecting": (silent, "select 1", None),
        "setup": (here, "select 1", ["select pg_sleep(100)"]),
        "query": (here, "select 1 from pg_sleep(100)", None),
        "rows": (here, "select 1 from generate_series(1, 1000000000)", None),
    }[request.param]

    def literal(value: object) -> str:
        return psycopg.sql.Literal(value).as_string(None)

    manifest = (
        f"array[row({literal(connection)}, {literal([query] * 3)}, null, 3,"
        f" {literal(setup)}::text[], null)::pmpp.query_manifest]"
    )
    return form.format(manifest=manifest)


def run_and_stop(
    conn: psycopg.Connection, call: str, stop: Callable[[], None]
) -> tuple[psycopg.Error, float]:
    """Run a call, stop it when it has been waiting for a while; return its error and its delay."""
    stopped: list[float] = []

    def stop_later() -> None:
        time.sleep(0.7)
        stopped.append(time.monotonic())
        stop()

    conn.execute("select pmpp._load()")
    thread = threading.Thread(target=stop_later)
    thread.start()
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(call)
    delay = time.monotonic() - stopped[0]
    thread.join()
    return raised.value, delay


def test_pg_cancel_backend(
    db: psycopg.Connection, connect: Connect, call: str, wait_until: Callable[[str], None]
) -> None:
    """pg_cancel_backend ends a call and its remote queries, and the session goes on."""
    other = connect()
    pid = db.info.backend_pid
    error, delay = run_and_stop(
        db, call, lambda: other.execute("select pg_cancel_backend(%s)", [pid])
    )
    assert error.sqlstate == "57014"
    assert delay < LIMIT
    wait_until(f"not exists (select from pg_stat_activity where application_name = 'pmpp {pid}')")
    assert db.execute("select 1").fetchall() == [(1,)]


def test_statement_timeout(db: psycopg.Connection, call: str) -> None:
    """statement_timeout ends a call, with the server's own words."""
    db.execute("select pmpp._load()")
    db.execute("set statement_timeout to '300ms'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled, match="due to statement timeout"):
        db.execute(call)
    assert time.monotonic() - started < 0.3 + LIMIT


def test_terminated_caller(
    db: psycopg.Connection, connect: Connect, here: str, wait_until: Callable[[str], None]
) -> None:
    """When the caller's session is terminated, the remotes notice and end their work."""
    pid = db.info.backend_pid
    other = connect()
    call = (
        f"select * from pmpp.distribute(null::int, '{here}', array['select 1 from pg_sleep(100)'])"
    )
    error, delay = run_and_stop(
        db, call, lambda: other.execute("select pg_terminate_backend(%s)", [pid])
    )
    assert error.sqlstate == "57P01"
    assert delay < LIMIT
    wait_until(f"not exists (select from pg_stat_activity where application_name = 'pmpp {pid}')")


def test_interrupt_key_in_psql(here: str, wait_until: Callable[[str], None]) -> None:
    """Ctrl-C in psql ends a call."""
    call = (
        f"select * from pmpp.distribute(null::int, '{here}', array['select 1 from pg_sleep(100)'])"
    )
    master, slave = pty.openpty()
    psql = subprocess.Popen(
        ["psql", "-X", "--no-readline", here, "-c", call],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    wait_until("exists (select from pg_stat_activity where query = 'select 1 from pg_sleep(100)')")
    psql.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    output = b""
    while select.select([master], [], [], 10)[0]:
        try:
            output += os.read(master, 1024)
        except OSError:  # the other end is closed
            break
    assert psql.wait() == 1
    assert time.monotonic() - pressed < 2 * LIMIT
    os.close(master)
    assert re.search(rb"ERROR:  canceling statement due to user request", output)
    wait_until("not exists (select from pg_stat_activity where application_name ~ '^pmpp')")
