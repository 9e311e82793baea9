"""A real server for the tests, and a database of its own for each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace

import hypothesis
import psycopg
import pytest
from cluster import Cluster, server_for_tests
from helpers import PASSWORD, PG_CONFIG, assert_log_is_clean
from installation import not_of_the_tree
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories

# The tests in these directories call the installed pmpp.
USE_THE_INSTALLATION = {"server", "reach"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--any-installation", action="store_true",
                     help="also test an installed pmpp that is not the one of this tree")  # fmt: skip


def pytest_configure() -> None:
    # Tests ignore what is set for other servers, and compare messages in English.
    for name in [name for name in os.environ if name.startswith("PG") and name != "PG_CONFIG"]:
        del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"
    # A busy machine is slow, and examples that failed are in the message.
    hypothesis.settings.register_profile(
        "pmpp", deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    hypothesis.settings.load_profile("pmpp")
    # With this handler, fixtures remove their servers also when the run is terminated.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell starts background jobs with SIGINT ignored, which tests of Ctrl-C would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"libpq {psycopg.pq.version()}, psycopg {psycopg.__version__} ({psycopg.pq.__impl__})"


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--any-installation") or session.config.getoption("--collect-only"):
        return
    if any(item.path.parent.name in USE_THE_INSTALLATION for item in session.items):
        problem = not_of_the_tree(PG_CONFIG)
        if problem:
            raise pytest.UsageError(problem)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server under test."""
    with server_for_tests(PG_CONFIG) as cluster:
        yield cluster
        assert_log_is_clean(cluster)


@pytest.fixture(scope="session")
def address(cluster: Cluster) -> SimpleNamespace:
    """The server in the words of pytest-postgresql."""
    return SimpleNamespace(
        host=cluster.host,
        port=cluster.port,
        user="postgres",
        password=None,
        options="",
        maintenance_dbname="postgres",
        template_dbname=None,
    )


def _create_extension(**conninfo: object) -> None:
    with psycopg.connect(**conninfo) as conn:  # type: ignore[arg-type]
        conn.execute("create extension if not exists pmpp cascade")


server_process = factories.postgresql_noproc(
    depends_on="address", dbname="pmpp_test", load=[_create_extension]
)
postgresql = factories.postgresql("server_process")


@pytest.fixture
def db(postgresql: psycopg.Connection) -> psycopg.Connection:
    """A connection of a superuser to a fresh database with pmpp."""
    postgresql.autocommit = True
    return postgresql


@pytest.fixture
def here(cluster: Cluster, db: psycopg.Connection) -> str:
    """A connection string that leads back to that database, without a password."""
    return make_conninfo(
        host=cluster.host, port=cluster.port, dbname=db.info.dbname, user="postgres"
    )


@pytest.fixture
def by_network(cluster: Cluster, db: psycopg.Connection) -> str:
    """A connection string that leads back by TCP, where the server requires a password."""
    return make_conninfo(host="127.0.0.1", port=cluster.port, dbname=db.info.dbname)


@pytest.fixture
def connect(db: psycopg.Connection) -> Iterator[Callable[..., psycopg.Connection]]:
    """Open another session in the same database; closed at the end of the test."""
    opened = []

    def connect(**parameters: object) -> psycopg.Connection:
        conn = psycopg.connect(db.info.dsn, autocommit=True, **parameters)  # type: ignore[arg-type]
        opened.append(conn)
        return conn

    yield connect
    for conn in opened:
        conn.close()


_numbers = count(1)


@pytest.fixture
def new_role(db: psycopg.Connection) -> Callable[..., str]:
    """Create a role that can log in with PASSWORD."""

    def new_role(*, member: bool = True, options: str = "") -> str:
        name = f"Role {next(_numbers)}"
        db.execute(
            sql.SQL("create role {} login password {} " + options).format(
                sql.Identifier(name), sql.Literal(PASSWORD)
            )
        )
        if member:
            db.execute(sql.SQL("grant pmpp to {}").format(sql.Identifier(name)))
        return name

    return new_role
