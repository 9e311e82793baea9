"""What more than one test module needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psycopg
from cluster import Cluster

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")

# A line for a remote server that does not ask for a password.
TRUST = "host all all 127.0.0.1/32 trust"

# The password of every role that tests create; it must never show.
PASSWORD = "s3cret-Passw0rd"


def descriptors(pid: int) -> list[str]:
    """Return what a process has open to talk to others and to wait for them."""
    links = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith(("socket:", "anon_inode:"))]


def eventually(
    cluster: Cluster, condition: str, within: float = 10, *, dbname: str = "postgres"
) -> None:
    """Wait until a condition in SQL is true on a server; fail after that many seconds."""
    deadline = time.monotonic() + within
    with psycopg.connect(cluster.superuser(dbname), autocommit=True) as conn:
        while conn.execute(f"select {condition}").fetchall() != [(True,)]:  # type: ignore[arg-type]
            if time.monotonic() > deadline:
                raise AssertionError(f"this has not come true within {within} s: {condition}")
            time.sleep(0.01)


def assert_log_is_clean(cluster: Cluster) -> None:
    """No password is in a server's log, but in statements that a test itself has written."""
    written_by_tests = ("STATEMENT:", "create role", "create user mapping", "alter role")
    for line in cluster.log.read_text(errors="replace").splitlines():
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
