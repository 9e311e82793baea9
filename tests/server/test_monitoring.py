"""What users see of a call while it runs: pmpp.activity, and pmpp.progress."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, WORKERS, Connect, NewRole, eventually, notices

LOCK = "select 1 from pg_advisory_xact_lock(42)"
RUN = "select * from pmpp.distribute(null::int, %s, %s, num_workers => %s)"


class Held:
    """A lock that queries wait for until it is released."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.pid = conn.info.backend_pid
        conn.execute("select pg_advisory_lock(42)")

    def release(self) -> None:
        self._conn.execute("select pg_advisory_unlock_all()")


@pytest.fixture
def held(connect: Connect) -> Iterator[Held]:
    """That lock, held in the test's database."""
    held = Held(connect())
    yield held
    held.release()


@pytest.fixture
def start(held: Held) -> Iterator[Callable[..., threading.Thread]]:
    """Run something in a thread; it has ended when the test is over."""
    threads = []

    def start(*arguments: object) -> threading.Thread:
        thread = threading.Thread(target=arguments[0], args=arguments[1:])  # type: ignore[arg-type]
        threads.append(thread)
        thread.start()
        return thread

    yield start
    held.release()
    for thread in threads:
        thread.join()


def test_activity(
    cluster: Cluster, db: psycopg.Connection, here: str, connect: Connect, held: Held,
    start: Callable[..., threading.Thread],
) -> None:  # fmt: skip
    """While a call waits there is a row for each of its workers, and none afterwards."""
    looker = connect()
    manifest = (
        f"array[row('{here}', array['{LOCK}', '{LOCK}'], null, 2, null, null),"
        f" row('{here}', array['{LOCK}'], null, null, null, null)]::pmpp.query_manifest[]"
    )
    start(db.execute, f"select * from pmpp.distribute(null::int, {manifest})")
    eventually(cluster, "count(*) = 3 from pg_stat_activity where wait_event = 'advisory'")
    seen = looker.execute(
        "select caller_pid, item, usename, datname, state, query, running_time > interval '0',"
        f" wait_event_type, wait_event, {held.pid} = any (blocked_by) from pmpp.activity"
        " order by item"
    ).fetchall()
    caller, database = db.info.backend_pid, db.info.dbname
    assert seen == [
        (caller, n, "postgres", database, "active", LOCK, True, "Lock", "advisory", True)
        for n in (1, 1, 2)
    ]
    pids = {pid for (pid,) in looker.execute("select pid from pmpp.activity")}
    assert len(pids) == 3
    held.release()
    eventually(cluster, f"not exists ({WORKERS})")
    assert looker.execute("select * from pmpp.activity").fetchall() == []
    recorded = db.execute("select pid from pmpp.last_run()").fetchall()
    assert {pid for (pid,) in recorded} == pids


def test_backslashes_in_strings(db: psycopg.Connection, here: str) -> None:
    """The view is the same in a database where a backslash in a string is an escape."""
    db.execute("set standard_conforming_strings = off; drop extension pmpp; create extension pmpp")
    (row,) = db.execute(RUN, [here, ["select caller_pid from pmpp.activity"], 1]).fetchall()
    assert row == (db.info.backend_pid,)


def test_who_may_see_it(
    cluster: Cluster, db: psycopg.Connection, by_network: str, connect: Connect,
    new_role: NewRole, start: Callable[..., threading.Thread],
) -> None:  # fmt: skip
    """pmpp.activity shows the workers of others only if pg_stat_activity shows their queries."""
    user, other, watcher, stranger = new_role(), new_role(), new_role(), new_role(member=False)
    db.execute(f'grant pg_read_all_stats to "{watcher}"')
    connection = f"{by_network} password={PASSWORD}"
    start(connect(user=user).execute, RUN, [connection, [LOCK], 1])
    eventually(cluster, "count(*) = 1 from pg_stat_activity where wait_event = 'advisory'")
    expected = {user: [(user, LOCK)], watcher: [(user, LOCK)], other: []}
    for role, rows in expected.items():
        seen = connect(user=role).execute("select usename, query from pmpp.activity").fetchall()
        assert seen == rows
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(user=stranger).execute("select * from pmpp.activity")


def test_other_sessions_are_not_workers(db: psycopg.Connection, connect: Connect) -> None:
    """pmpp.activity shows no session whose application_name is not that of a worker."""
    for name in (
        "pmpp",
        "pmpp 1 item",
        "pmpp x item 1",
        "xpmpp 1 item 1",
        "pmpp 99999999999 item 1",
    ):
        connect(application_name=name)
    assert db.execute("select * from pmpp.activity").fetchall() == []


def test_progress(
    db: psycopg.Connection, here: str, held: Held, start: Callable[..., threading.Thread]
) -> None:
    """pmpp.progress has a notice report from time to time, in one line, how far the call is."""
    reports: list[str] = []
    enough = threading.Event()

    def collect(notice: psycopg.errors.Diagnostic) -> None:
        assert notice.severity_nonlocalized == "NOTICE"
        reports.append(str(notice.message_primary))
        if "2 of 6 done, 3 running, 1 failed" in reports[-1] and len(reports) > 2:
            enough.set()

    db.execute("set client_min_messages to 'notice'")
    db.execute("set pmpp.on_error = 'continue'")
    db.execute("set pmpp.progress = '50ms'")
    queries = [
        "select i from generate_series(1, 100) i",
        "select 1/0",
        "select 2",
        LOCK,
        LOCK,
        LOCK,
    ]
    db.add_notice_handler(lambda d: collect(d) if d.sqlstate == "00000" else None)
    start(db.execute, RUN, [here, queries, 3])
    assert enough.wait(10)
    held.release()
    line = r"queries: \d of 6 done, \d running, \d failed; rows: \d+; connections: \d; \d+\.\d s"
    assert all(re.fullmatch(line, report) for report in reports)
    assert "1 failed; rows: 101; connections: 3; " in reports[-1]


def test_no_progress(db: psycopg.Connection, here: str) -> None:
    """pmpp sends no notice if pmpp.progress is not set."""
    got = notices(db)
    for command in ("select", "set pmpp.progress = '0'"):
        db.execute(command)
        db.execute(RUN, [here, ["select 1 from pg_sleep(0.2)"], 1])
    assert got == []
