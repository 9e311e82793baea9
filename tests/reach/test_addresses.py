"""pmpp connects by TLS, SCRAM, Unix socket and IPv6, and to several hosts in one string."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, NewRole, assert_log_is_clean, eventually
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from server_files import certificates, shared_directory

CALL = "select t from pmpp.distribute(null::text, %s, array[%s], num_workers => 1) t"
IN_USE = "select ssl::text || ' ' || version from pg_stat_ssl where pid = pg_backend_pid()"

# Who comes by TCP must use TLS and SCRAM, whatever the address.
HBA = [f"{kind} all all {net} {method}" for net in ("127.0.0.0/8", "::1/128")
       for kind, method in (("hostssl", "scram-sha-256"), ("hostnossl", "reject"))]  # fmt: skip


@dataclass
class Secure:
    """A server with a certificate for localhost and 127.0.0.1.

    Attributes:
        cluster: the server.
        authority: the certificate of who signed its certificate.
        stranger: the certificate of somebody else.
    """

    cluster: Cluster
    authority: Path
    stranger: Path

    def at(self, host: str, **params: Any) -> str:
        """A connection string for it."""
        there: dict[str, Any] = {
            "port": self.cluster.port, "dbname": "postgres", "user": "postgres",
            "password": PASSWORD, "sslmode": "verify-full", "sslrootcert": self.authority,
        }  # fmt: skip
        return make_conninfo(host=host, **{**there, **params})


@pytest.fixture(scope="module")
def secure() -> Iterator[Secure]:
    """A server that wants TLS and SCRAM, on IPv4 and IPv6."""
    _assert_ipv6()
    with shared_directory() as files:
        settings = {"listen_addresses": "127.0.0.1,127.0.0.2,::1", **certificates(files)}
        with Cluster(PG_CONFIG, settings=settings, hba=HBA) as cluster:
            with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
                conn.execute(sql.SQL("alter role postgres password {}").format(PASSWORD))
            yield Secure(cluster, files / "authority.crt", files / "stranger.crt")
            assert_log_is_clean(cluster)


def _assert_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError as ex:
            pytest.fail(
                f"these tests need the IPv6 loopback address ::1, which this machine lacks: {ex}"
            )


@pytest.mark.parametrize(
    ("host", "addresses"),
    [("localhost", {"127.0.0.1", "::1"}), ("127.0.0.1", {"127.0.0.1"}), ("::1", {"::1"})],
)
def test_verify_full(
    caller: psycopg.Connection, secure: Secure, host: str, addresses: set[str]
) -> None:
    """A server whose certificate is signed and fits is called by TLS, also by IPv6."""
    assert caller.execute(CALL, [secure.at(host), IN_USE]).fetchall() == [("true TLSv1.3",)]
    ((address,),) = caller.execute(
        CALL, [secure.at(host), "select host(inet_server_addr())"]
    ).fetchall()
    assert address in addresses


def test_uri(caller: psycopg.Connection, secure: Secure) -> None:
    """A connection URI leads to the server by TLS."""
    uri = (
        f"postgresql://postgres:{PASSWORD}@[::1]:{secure.cluster.port}/postgres"
        f"?sslmode=verify-full&sslrootcert={secure.authority}"
    )
    assert caller.execute(CALL, [uri, IN_USE]).fetchall() == [("true TLSv1.3",)]


def test_scram(caller: psycopg.Connection, secure: Secure) -> None:
    """The server requires the password by SCRAM, and libpq binds it to the TLS connection."""
    there = secure.at("localhost", channel_binding="require")
    assert caller.execute(CALL, [there, "select 'in'"]).fetchall() == [("in",)]


@pytest.mark.parametrize(
    ("host", "params", "message"),
    [
        (
            "127.0.0.2",
            {},
            'certificate for "localhost" (and 2 other names) does not match host name "127.0.0.2"',
        ),
        ("localhost", {"sslrootcert": "{stranger}"}, "certificate verify failed"),
        (
            "localhost",
            {"sslrootcert": "/nowhere"},
            'root certificate file "/nowhere" does not exist',
        ),
        ("localhost", {"sslmode": "disable"}, "no encryption"),
        ("localhost", {"password": "wrong"}, 'password authentication failed for user "postgres"'),
    ],
)
def test_refused(
    caller: psycopg.Connection, secure: Secure, host: str, params: dict[str, str], message: str
) -> None:
    """libpq refuses a server that does not fit, and the error says why."""
    params = {name: value.format(stranger=secure.stranger) for name, value in params.items()}
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(CALL, [secure.at(host, **params), "select 1"])
    assert message in (raised.value.diag.message_detail or "")
    assert PASSWORD not in str(raised.value)


def test_ordinary_user(db: psycopg.Connection, secure: Secure, new_role: NewRole) -> None:
    """An ordinary user, who may not name files, uses a foreign server that names the authority."""
    role = sql.Identifier(new_role())
    options = {"host": "localhost", "port": secure.cluster.port, "dbname": "postgres",
               "sslmode": "verify-full", "sslrootcert": secure.authority}  # fmt: skip
    db.execute("create extension postgres_fdw")
    db.execute(
        sql.SQL("create server secure foreign data wrapper postgres_fdw options ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(str(value)))
                for name, value in options.items()
            )
        )
    )
    db.execute(
        sql.SQL("create user mapping for {} server secure options (user 'postgres', password {})")
        .format(role, sql.Literal(PASSWORD))
    )  # fmt: skip
    db.execute(sql.SQL("grant usage on foreign server secure to {0}; set role {0}").format(role))
    assert db.execute(CALL, ["secure", IN_USE]).fetchall() == [("true TLSv1.3",)]
    with pytest.raises(
        errors.InsufficientPrivilege, match="parameter sslrootcert may only be used by superusers"
    ):
        db.execute(CALL, [secure.at("localhost"), IN_USE])


@pytest.mark.parametrize("is_trusted", [True, False])
def test_authorities_of_the_system(secure: Secure, is_trusted: bool) -> None:
    """With sslrootcert=system, the authorities count that OpenSSL is configured to trust."""
    authority = secure.authority if is_trusted else secure.stranger
    with (
        Cluster(PG_CONFIG, environment={"SSL_CERT_FILE": str(authority)}) as cluster,
        psycopg.connect(cluster.superuser(), autocommit=True) as conn,
    ):
        conn.execute("create extension pmpp cascade")
        conn.execute("create role ann in role pmpp")
        conn.execute("set role ann")
        there = secure.at("localhost", sslrootcert="system")
        if is_trusted:
            assert conn.execute(CALL, [there, IN_USE]).fetchall() == [("true TLSv1.3",)]
        else:
            with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
                conn.execute(CALL, [there, IN_USE])
            assert "certificate verify failed" in str(raised.value.diag.message_detail)


def test_cancel(caller: psycopg.Connection, secure: Secure) -> None:
    """A cancel request reaches a server that is called by IPv6."""
    call = """
        select pmpp.distribute(null::text, %s, array['select from pg_sleep(100)'], num_workers => 1,
            setup_commands => array['set client_connection_check_interval to 0'])
    """
    caller.execute("set statement_timeout to '300ms'")
    with pytest.raises(errors.QueryCanceled):
        caller.execute(call, [secure.at("::1")])
    eventually(
        secure.cluster,
        "not exists (select from pg_stat_activity where query like '%sleep(100)' and state = 'active')",
    )


def test_socket(caller: psycopg.Connection, secure: Secure) -> None:
    """pmpp connects by the Unix socket in a directory, and requirepeer names the account of the server."""
    owner = secure.cluster.directory.owner()
    there = secure.at(secure.cluster.host, sslmode="prefer", requirepeer=owner)
    assert caller.execute(CALL, [there, IN_USE]).fetchall() == [(None,)]
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(CALL, [make_conninfo(there, requirepeer="nobody"), "select 1"])
    assert "requirepeer" in (raised.value.diag.message_detail or "")
