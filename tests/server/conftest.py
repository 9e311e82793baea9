"""Remote servers, and an ordinary user, for the tests of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, TRUST, Connect, NewRole, NewServer, assert_log_is_clean, tcp
from psycopg import sql


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
    return tcp(remote.port)


@pytest.fixture
def standby(cluster: Cluster, db: psycopg.Connection) -> Iterator[Cluster]:
    """A hot standby of the server."""
    standby = Cluster(PG_CONFIG)
    try:
        standby.copy(cluster)
        yield standby
    finally:
        standby.remove()


@pytest.fixture
def user(new_role: NewRole) -> str:
    """An ordinary role that is a member of pmpp."""
    return new_role()


@pytest.fixture
def session(connect: Connect, user: str) -> psycopg.Connection:
    """A session of that role."""
    return connect(user=user)


@pytest.fixture
def new_server(cluster: Cluster, db: psycopg.Connection) -> NewServer:
    """Create a foreign server without a user mapping, which leads back to the test's database."""

    def new_server(name: str, host: str = cluster.host) -> str:
        db.execute("create extension if not exists postgres_fdw")
        db.execute(
            sql.SQL(
                "create server {} foreign data wrapper postgres_fdw"
                " options (host {}, port {}, dbname {})"
            ).format(sql.Identifier(name), host, str(cluster.port), db.info.dbname)
        )
        return name

    return new_server


@pytest.fixture
def shop(new_server: NewServer) -> str:
    """A foreign server that leads back by TCP, which nobody may use yet."""
    return new_server("shop", "127.0.0.1")


@pytest.fixture
def may_set_parameter(db: psycopg.Connection) -> Iterator[Callable[[str, str], None]]:
    """Let a role set a parameter until the end of the test.

    Privileges on parameters belong to the server, and not to the test's database.
    """
    granted: list[sql.Composed] = []

    def may_set_parameter(role: str, parameter: str) -> None:
        names = sql.SQL(parameter), sql.Identifier(role)
        db.execute(sql.SQL("grant set on parameter {} to {}").format(*names))
        granted.append(sql.SQL("revoke set on parameter {} from {}").format(*names))

    yield may_set_parameter
    for revoke in granted:
        db.execute(revoke)
