"""What more than one test module needs."""

from __future__ import annotations

import os
import pty
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from installation import default_pg_config
from psycopg import sql

# What the fixtures `connect`, `new_role` and `new_server` are.
Connect = Callable[..., psycopg.Connection]
NewRole = Callable[..., str]
NewServer = Callable[..., str]

PG_CONFIG = default_pg_config()

# A line for a remote server that requires no password.
TRUST = "host all all 127.0.0.1/32 trust"

# The password of every role that tests create; it must never show.
PASSWORD = "s3cret-Passw0rd"

# A query that lasts longer than any test.
SLEEP = "select 1 from pg_sleep(100)"

# With these functions, queries meet: meet(n) waits until n queries have called it, and
# wait_for_arrivals(n) does so without being counted. Both return how many workers are active then,
# and give up after a minute, so that a test fails instead of waiting for ever.
MEET = """
    create sequence arrivals;
    create function wait_for_arrivals(wanted int) returns int language plpgsql as $$
    begin
        for i in 1..3000 loop
            exit when (select last_value from arrivals where is_called) >= wanted;
            perform pg_sleep(0.02);
        end loop;
        return count(*) from pg_stat_activity
         where application_name ~ '^pmpp ' and state = 'active';
    end $$;
    create function meet(wanted int) returns int language plpgsql as $$
    begin
        perform nextval('arrivals');
        return wait_for_arrivals(wanted);
    end $$
"""

# A call that returns as whom it has connected.
SESSION_USER = "select * from pmpp.distribute(null::text, %s, array['select session_user'])"

# Stands for Citus: its name among the extensions, and its table of the tables that it has spread.
CITUS = """
    set allow_system_table_mods = on;
    create table pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char");
    grant select on pg_catalog.pg_dist_partition to public;
    insert into pg_extension
    select 99999, 'citus', extowner, extnamespace, false, '12.1-1' from pg_extension where extname = 'pmpp'
"""


def manifest_entry(**fields: object) -> dict[str, object]:
    """Return an item as the server hands it to pmpp: all fields, null unless they are given."""
    names = ("connection", "queries", "cpu_multiplier", "num_workers", "setup_commands",
             "result_format")  # fmt: skip
    return {**dict.fromkeys(names), **fields}


def tcp(port: int) -> str:
    """Return a connection string for a server of this machine that trusts postgres."""
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"


def create_pmpp(cluster: Cluster, *others: str, dbname: str = "postgres") -> None:
    """Create the extension, and others, in a database of a server."""
    with psycopg.connect(cluster.superuser(dbname), autocommit=True) as conn:
        for name in ("pmpp", *others):
            conn.execute(f"create extension {name} cascade")


def open_terminal() -> tuple[int, int]:
    """Return both ends of a new terminal; say what is missing where none can be made."""
    try:
        return pty.openpty()
    except OSError as ex:
        pytest.fail(f"no terminal can be made ({ex}): mount a devpts on /dev/pts", pytrace=False)


def descriptors(pid: int) -> list[str]:
    """Return what a process has open to talk to others and to wait for them."""
    links = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith(("socket:", "anon_inode:"))]


def wait_until(is_true: Callable[[], object], what: str, within: float = 10) -> None:
    """Wait until a condition is true; fail after that many seconds, telling what was awaited."""
    deadline = time.monotonic() + within
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"this has not come true within {within} s: {what}")
        time.sleep(0.01)


def eventually(cluster: Cluster, condition: str, *, dbname: str = "postgres") -> None:
    """Wait until a condition in SQL is true on a server."""
    with psycopg.connect(cluster.superuser(dbname), autocommit=True) as conn:
        query = f"select {condition}"
        wait_until(lambda: conn.execute(query).fetchall() == [(True,)], condition)


# The workers of all sessions, for conditions that begin with "exists".
WORKERS = "select from pg_stat_activity where application_name ~ '^pmpp '"


def workers_of(pid: int) -> str:
    """Return the query that finds the workers of a session."""
    return f"select from pg_stat_activity where application_name ~ '^pmpp {pid} '"


def running(conn: psycopg.Connection, query: str) -> str:
    """Return the condition that a worker of a session runs a query, for `eventually`."""
    workers = workers_of(conn.info.backend_pid)
    return f"exists ({workers} and state = 'active' and query = {sql.quote(query)})"


def cancel_once(
    cluster: Cluster, condition: str, conn: psycopg.Connection, call: Callable[[], object]
) -> None:
    """Make a call that uses a connection, and cancel it once a condition is true on a server.

    Raises:
        psycopg.Error: what the call raises then.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        eventually(cluster, condition)
        conn.cancel()
        running.result()


def answer(conn: psycopg.Connection, query: str, *parameters: str) -> str:
    """Return the one value of a query, or the SQLSTATE of its error, which shows no password."""
    try:
        ((value,),) = conn.execute(query, parameters).fetchall()
    except psycopg.Error as ex:
        assert PASSWORD not in f"{ex} {ex.diag.context}"
        assert "Traceback" not in str(ex.diag.context)
        return str(ex.sqlstate)
    return str(value)


def assert_log_is_clean(cluster: Cluster) -> None:
    """No password is in a server's log, but in statements that a test itself has written."""
    written_by_tests = ("STATEMENT:", "create role", "create user mapping", "alter role")
    for line in cluster.read_log().splitlines():
        if PASSWORD in line and not any(part in line for part in written_by_tests):
            raise AssertionError(f"a password in the log of a server: {line}")


def notices(conn: psycopg.Connection) -> list[tuple[str | None, ...]]:
    """Return a list to which each notice that a session gets is added: severity, message,
    detail and hint."""
    got: list[tuple[str | None, ...]] = []
    conn.add_notice_handler(
        lambda d: got.append(
            (d.severity_nonlocalized, d.message_primary, d.message_detail, d.message_hint)
        )
    )
    return got
