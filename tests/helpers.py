"""What more than one test module needs."""

from __future__ import annotations

import os
import time

import psycopg
from cluster import Cluster

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")

# The password of every role that tests create; it must never show.
PASSWORD = "s3cret-Passw0rd"


def eventually(cluster: Cluster, condition: str, within: float = 10) -> None:
    """Wait until a condition in SQL is true on a server; fail after that many seconds."""
    deadline = time.monotonic() + within
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        while conn.execute(f"select {condition}").fetchall() != [(True,)]:  # type: ignore[arg-type]
            if time.monotonic() > deadline:
                raise AssertionError(f"this has not come true within {within} s: {condition}")
            time.sleep(0.01)
