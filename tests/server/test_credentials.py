"""Which credentials a caller must supply, and which of the server it may use."""

from __future__ import annotations

import socket

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, SESSION_USER, answer
from listener import listener
from psycopg import sql
from server_files import password_file, shared_directory


def test_superuser_needs_no_password(db: psycopg.Connection, here: str) -> None:
    """A superuser may connect in any way that works."""
    assert answer(db, SESSION_USER, here) == "postgres"


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("{by_network} password={password}", "{user}"),
        ("{by_network} user='{user}' password={password}", "{user}"),
        ("postgresql://127.0.0.1:{port}/{dbname}?password={password}", "{user}"),
        # The string has no password, or a wrong one.
        ("{by_network}", "2F003"),
        ("{by_network} password=''", "2F003"),
        ("{by_network} password=wrong", "08001"),
        # The server does not require the password.
        ("{here} password={password}", "2F003"),
        ("{here} user='{user}' password={password}", "2F003"),
        # The string names files.
        ("{by_network} passfile=/tmp/pgpass", "42501"),
        ("{by_network} password={password} sslcert=/tmp/x", "42501"),
        ("service=x", "42501"),
        # The text is not a connection string.
        ("{password}=", "22023"),
        ("host=localhost password={password} x", "22023"),
    ],
)
def test_string_of_an_ordinary_user(
    session: psycopg.Connection, here: str, by_network: str, user: str, string: str, expected: str
) -> None:
    """Non-superusers must supply a password, and the remote server must require it."""
    values = {
        "here": here,
        "by_network": by_network,
        "user": user,
        "password": PASSWORD,
        "port": session.info.port,
        "dbname": session.info.dbname,
    }
    assert answer(session, SESSION_USER, string.format(**values)) == expected.format(**values)


def test_nothing_is_sent_before_the_password_is_checked(
    db: psycopg.Connection, session: psycopg.Connection, here: str
) -> None:
    """Neither setup commands nor queries run on a connection that is refused."""
    db.execute("create table trace (i int); grant all on trace to public")
    with pytest.raises(psycopg.Error) as raised:
        session.execute(
            "select * from pmpp.meta(%s, array['insert into trace values (1)'],"
            " setup_commands => array['insert into trace values (2)'])",
            [f"{here} password=x"],
        )
    assert raised.value.sqlstate == "2F003"
    assert "did not ask for the password" in str(raised.value)
    assert db.execute("select * from trace").fetchall() == []


def test_options_are_applied_after_the_check(
    session: psycopg.Connection, by_network: str, user: str
) -> None:
    """pmpp applies the settings in options after the password check, and not on connecting."""
    there = f"{by_network} password={PASSWORD}"
    call = "select * from pmpp.distribute(null::text, %s, array[%s])"
    options = (
        r"-c search_path=one,two --work-mem=3MB -capp.path=a\\\\b\\ c -c client_encoding=latin1"
    )
    shown = """
        select current_setting('search_path') || current_setting('work_mem')
            || current_setting('app.path') || current_setting('client_encoding')
    """
    assert session.execute(call, [f"{there} options='{options}'", shown]).fetchall() == [
        (r"one,two3MBa\b cUTF8",)
    ]
    with pytest.raises(psycopg.Error) as raised:
        session.execute(call, [f"{there} options='-c log_connections=on'", shown])
    # PostgreSQL sets this only on connecting.
    assert raised.value.sqlstate == "55P02"
    assert str(raised.value.diag.message_detail).startswith("Options of item 1 on host=127.0.0.1")


def test_options_of_one_who_is_not_let_in(
    cluster: Cluster, session: psycopg.Connection, here: str
) -> None:
    """A server that trusts the connection loads no library that the options name."""
    text = f"{here} password=x options='-c session_preload_libraries=nosuch_library'"
    assert answer(session, SESSION_USER, text) == "2F003"
    assert "nosuch_library" not in "".join(
        line for line in cluster.read_log().splitlines() if "FATAL" in line
    )


@pytest.mark.parametrize(
    "answer",
    [
        # The server requires a Kerberos ticket.
        b"R\0\0\0\x08\0\0\0\x07",
        # The server requires nothing; its version does not report whether it is read-only.
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x17server_version\x009.6\0Z\0\0\0\x05I",
    ],
    ids=["ticket", "trust"],
)
def test_server_that_asks_for_no_password(session: psycopg.Connection, answer: bytes) -> None:
    """A server that requires no password receives no Kerberos ticket and no query of libpq."""
    got: list[bytes] = []

    def serve(client: socket.socket) -> None:
        # libpq first requests TLS.
        client.recv(8)
        client.sendall(b"N")
        client.recv(4096)
        client.sendall(answer)
        got.append(client.recv(4096))

    with listener(serve) as port:
        there = f"host=localhost hostaddr=127.0.0.1 port={port} password=x target_session_attrs=read-write"
        with pytest.raises(psycopg.Error) as raised:
            session.execute(SESSION_USER, [there])
    assert got == [b""]
    assert raised.value.sqlstate == "2F003"
    assert "did not ask for the password" in str(raised.value)


@pytest.mark.parametrize(
    ("usage", "mapping", "expected"),
    [
        (True, "create user mapping for {user} server shop options (password {password})", "{user}"),
        (True, "create user mapping for public server shop options (user {user}, password {password})",
         "{user}"),
        (True, "create user mapping for {user} server shop options (password_required 'false')", "08001"),
        (True, "create user mapping for {user} server shop", "2F003"),
        (True, "create user mapping for {user} server shop options (password 'wrong')", "08001"),
        (True, "create user mapping for postgres server shop options (password {password})", "42704"),
        (False, "create user mapping for {user} server shop options (password {password})", "42501"),
        (False, "create user mapping for public server shop options (password {password})", "42501"),
    ],
)  # fmt: skip
def test_server(
    db: psycopg.Connection,
    session: psycopg.Connection,
    user: str,
    shop: str,
    usage: bool,
    mapping: str,
    expected: str,
) -> None:
    """A foreign server needs USAGE and a mapping of one's own or of PUBLIC."""
    if usage:
        db.execute(sql.SQL("grant usage on foreign server shop to {}").format(sql.Identifier(user)))
    is_option = "(user {user}" in mapping
    db.execute(
        sql.SQL(mapping).format(
            user=sql.Literal(user) if is_option else sql.Identifier(user),
            password=sql.Literal(PASSWORD),
        )
    )
    assert answer(session, SESSION_USER, shop) == expected.format(user=user)


@pytest.mark.parametrize("text", ["port=1 dbname=shop", "postgres://:1/shop"])
def test_server_named_like_a_connection_string(
    db: psycopg.Connection, session: psycopg.Connection, text: str
) -> None:
    """A server that somebody has named like a connection string receives no queries for it."""
    db.execute("create foreign data wrapper lax; grant usage on foreign data wrapper lax to public")
    db.execute(
        sql.SQL("grant create on database {} to public").format(sql.Identifier(db.info.dbname))
    )
    session.execute(
        sql.SQL(
            "create server {0} foreign data wrapper lax options (host '127.0.0.1', port '2');"
            "create user mapping for public server {0} options (user 'thief', password 'x');"
            "grant usage on foreign server {0} to public"
        ).format(sql.Identifier(text))
    )
    assert answer(db, SESSION_USER, text) == "08001"
    label = db.execute("select connection from pmpp.last_run()").fetchall()
    assert label == [("port=1 dbname=shop",)]
    # The text has no password.
    assert answer(session, SESSION_USER, text) == "2F003"


def test_password_required_of_another_wrapper(
    db: psycopg.Connection, session: psycopg.Connection, user: str, cluster: object
) -> None:
    """password_required in a mapping counts only if the wrapper's validator guards it."""
    db.execute("create foreign data wrapper lax")
    db.execute(
        sql.SQL("create server lax foreign data wrapper lax options (host {}, port {}, dbname {})").format(
            cluster.host, str(cluster.port), db.info.dbname)  # type: ignore[attr-defined]
    )  # fmt: skip
    db.execute("grant usage on foreign server lax to public")
    session.execute(
        "create user mapping for current_user server lax "
        "options (user 'postgres', password 'x', password_required 'false')"
    )
    assert answer(session, SESSION_USER, "lax") == "2F003"


def test_password_file_is_for_superusers() -> None:
    """Only superusers use the password file in the server's environment."""
    with (
        shared_directory() as files,
        Cluster(PG_CONFIG, environment={"PGPASSFILE": str(password_file(files))}) as cluster,
        psycopg.connect(
            host=cluster.host, port=cluster.port, user="postgres", autocommit=True
        ) as db,
    ):
        db.execute("create extension pmpp cascade")
        db.execute(f"create role bob login password '{PASSWORD}' in role pmpp")
        by_network = f"host=127.0.0.1 port={cluster.port} dbname=postgres user=bob"
        assert answer(db, SESSION_USER, by_network) == "bob"
        db.execute("set role bob")
        assert answer(db, SESSION_USER, by_network) == "2F003"
        assert answer(db, SESSION_USER, f"{by_network} password=wrong") == "08001"
        assert answer(db, SESSION_USER, f"{by_network} password={PASSWORD}") == "bob"
