"""Remote servers for the tests of calls."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, TRUST, assert_log_is_clean


@pytest.fixture(scope="session")
def remote() -> Iterator[Cluster]:
    """A second server, with pmpp, that trusts everybody; it stands for another machine.

    In its database slow_cpus nobody can read which extensions there are.
    """
    with Cluster(PG_CONFIG, hba=[TRUST]) as cluster:
        with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
            conn.execute("create extension pmpp cascade")
            conn.execute("create database slow_cpus")
        with psycopg.connect(cluster.superuser(dbname="slow_cpus")) as conn:
            conn.execute("lock table pg_extension in access exclusive mode")
            yield cluster
        assert_log_is_clean(cluster)


@pytest.fixture
def there(remote: Cluster) -> str:
    """A connection string for the remote server, by TCP."""
    return f"host=127.0.0.1 port={remote.port} user=postgres dbname=postgres"


@pytest.fixture
def standby(cluster: Cluster, db: psycopg.Connection) -> Iterator[Cluster]:
    """A hot standby of the server."""
    standby = Cluster(PG_CONFIG)
    try:
        standby.copy(cluster)
        yield standby
    finally:
        standby.remove()
