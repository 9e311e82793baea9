"""A connection without a host leads to the server that calls, whatever its environment says."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, TRUST, create_pmpp
from psycopg import errors
from server_files import shared_directory

CALL = "select * from pmpp.distribute(null::text, %s, array['select current_setting(''data_directory'')'], num_workers => 1)"

# Another machine, for libpq, if nothing else is said.
ENVIRONMENT = {
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.2",
    "PGPORT": "1",
    "PGUSER": "postgres",
    "PGSERVICE": "elsewhere",
}
SERVICES = """
[elsewhere]
host=192.0.2.3
hostaddr=192.0.2.4
port=2
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server with an environment that leads elsewhere."""
    with shared_directory() as directory:
        services = directory / "services"
        services.write_text(SERVICES)
        environment = {**ENVIRONMENT, "PGSERVICEFILE": str(services)}
        with Cluster(PG_CONFIG, hba=[TRUST], environment=environment) as server:
            create_pmpp(server, "postgres_fdw")
            yield server


@pytest.fixture
def session(server: Cluster) -> Iterator[psycopg.Connection]:
    """A superuser's session, whose calls fail if they go elsewhere."""
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("set statement_timeout to '10s'")
        yield conn


@pytest.mark.parametrize(
    "connection",
    [
        "dbname=postgres",
        "dbname=postgres host=",
        "dbname=postgres host='' hostaddr='' port=''",
        "options='-c a.b=c' dbname=postgres",
        "dbname=postgres port={port}",
        "postgres:///postgres",
        "postgresql://:{port}/postgres",
        "postgresql:///postgres?application_name=x",
        "dbname=postgres host=,",
        "dbname=postgres host=,127.0.0.1 port=,1",
        "dbname=postgres host=/nowhere,",
        "dbname=postgres hostaddr=127.0.0.1 port={port}",
        "dbname=postgres host=127.0.0.1 port={port}",
    ],
)
def test_superuser(server: Cluster, session: psycopg.Connection, connection: str) -> None:
    """Every string without a host leads here."""
    there = connection.format(port=server.port)
    assert session.execute(CALL, [there]).fetchall() == [(str(server.data),)]


@pytest.mark.parametrize("options", ["", "options (port '{port}')", "options (dbname 'postgres')"])
def test_foreign_server(server: Cluster, session: psycopg.Connection, options: str) -> None:
    """A foreign server without a host leads here too."""
    session.execute(
        "create server here foreign data wrapper postgres_fdw " + options.format(port=server.port)
    )
    session.execute("create user mapping for public server here options (user 'postgres')")
    try:
        assert session.execute(CALL, ["here"]).fetchall() == [(str(server.data),)]
    finally:
        session.execute("drop server here cascade")


def test_ordinary_user(server: Cluster, session: psycopg.Connection) -> None:
    """An ordinary user connects here, and the password rule applies."""
    session.execute(f"create role ann login password '{PASSWORD}' in role pmpp")
    session.execute("set role ann")
    with pytest.raises(
        errors.ProhibitedSqlStatementAttempted, match="did not ask for the password"
    ):
        session.execute(CALL, [f"dbname=postgres password={PASSWORD}"])
    session.execute("reset role")
    session.execute("drop role ann")


def test_default_port_of_others(session: psycopg.Connection) -> None:
    """The port of another host is libpq's default, and not this server's."""
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        session.execute(CALL, ["host=/nowhere dbname=postgres"])
    assert '"/nowhere/.s.PGSQL.5432"' in str(raised.value.diag.message_detail)


@pytest.mark.parametrize("connection", ["dbname=postgres", "port={port}", "host='{host}/.//'"])
def test_limit(server: Cluster, session: psycopg.Connection, connection: str) -> None:
    """The limit of the socket's directory bounds connection strings without a host."""
    session.execute("insert into pmpp.connection_limit values ('*', 0), (%s, 1)", [server.host])
    there = connection.format(host=server.host, port=server.port)
    if not connection.startswith("host"):
        assert session.execute(CALL, [there]).fetchall() == [(str(server.data),)]
    session.execute("update pmpp.connection_limit set max_workers = 0")
    with pytest.raises(errors.InsufficientPrivilege, match="are not allowed"):
        session.execute(CALL, [there])
    session.execute("delete from pmpp.connection_limit")


@pytest.mark.parametrize("listen", ["127.0.0.1", "*", "0.0.0.0", "localhost", "::1", "::"])
def test_without_a_socket(listen: str) -> None:
    """A server without a socket is called by TCP."""
    settings = {"listen_addresses": listen}
    with Cluster(PG_CONFIG, settings, hba=[TRUST, "host all all ::1/128 trust"],
                 environment={"PGUSER": "postgres"}) as server:  # fmt: skip
        create_pmpp(server)
        with (server.data / "postgresql.conf").open("a") as conf:
            conf.write("unix_socket_directories = ''\n")
        server.control("restart")
        host = (
            listen if listen in ("::1", "localhost") else "::1" if listen == "::" else "127.0.0.1"
        )
        with psycopg.connect(f"{server.superuser()} host={host}", autocommit=True) as conn:
            assert conn.execute(CALL, ["dbname=postgres"]).fetchall() == [(str(server.data),)]
