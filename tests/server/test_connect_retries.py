"""pmpp.connect_retries repeats attempts to connect, and never a query."""

from __future__ import annotations

import socket

import psycopg
import pytest
from cluster import Cluster
from forwarder import Forwarder
from helpers import PASSWORD, NewRole, descriptors
from listener import listener, message
from psycopg.types.json import Jsonb

RUN = "select * from pmpp.distribute(null::int, %s, %s, num_workers => 1)"


@pytest.mark.parametrize("after", [0, 60])
def test_dropped_connections(
    db: psycopg.Connection, remote: Cluster, there: str, after: int
) -> None:
    """pmpp reconnects if a connection is dropped before a query was sent and retries are left."""
    for retries, succeeds in ((0, False), (2, True)):
        db.execute(f"set pmpp.connect_retries = {retries}")
        with Forwarder(remote.port, "close", after, times=2) as network:
            call = [f"{there} port={network.port}", ["select 1", "select 2"]]
            if succeeds:
                assert sorted(db.execute(RUN, call).fetchall()) == [(1,), (2,)]
            else:
                with pytest.raises(psycopg.OperationalError):
                    db.execute(RUN, call)
            assert network.accepted == retries + 1


def test_refused_connections(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """pmpp retries until a server listens that starts during the call."""
    db.execute("set pmpp.connect_retries = 20")
    with Forwarder(remote.port, is_late=True) as network:
        db.add_notice_handler(lambda _: network.listen())
        now = "do $$ begin raise notice 'now'; end $$"
        manifest = [
            {"connection": f"{there} port={network.port}", "query": "select 2"},
            {"connection": there, "query": "select 1", "setup_commands": [now]},
        ]
        rows = db.execute("select * from pmpp.distribute(null::int, %s)", [Jsonb(manifest)])
        assert sorted(rows.fetchall()) == [(1,), (2,)]
    assert network.accepted == 1


def test_wrong_password(
    db: psycopg.Connection, cluster: Cluster, new_role: NewRole, by_network: str
) -> None:
    """pmpp does not retry a password, so that the account is not locked."""
    role = new_role()
    db.execute("set pmpp.connect_retries = 5")
    twice = f"{by_network} host=127.0.0.1,127.0.0.1 user='{role}'"
    with pytest.raises(psycopg.OperationalError, match="could not connect"):
        db.execute(RUN, [f"{twice} password=wrong", ["select 1", "select 2"]])
    failed = f'password authentication failed for user "{role}"'
    log = cluster.read_log().splitlines()
    assert len([line for line in log if failed in line and "DETAIL:" not in line]) == 1


def test_wrong_kind_of_server(db: psycopg.Connection, new_role: NewRole, by_network: str) -> None:
    """pmpp tries the next host if a server takes the password and is not of the wanted kind."""
    connection = f"{by_network} host=127.0.0.1,127.0.0.1 user='{new_role()}' password={PASSWORD}"
    with pytest.raises(psycopg.OperationalError) as raised:
        db.execute(RUN, [f"{connection} target_session_attrs=standby", ["select 1"]])
    assert str(raised.value.diag.message_detail).count("server is not in hot standby mode") == 2


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0"), "going down"),
        (b"", "lost the connection to host=127.0.0.1"),
    ],
    ids=["with an error", "without a word"],
)
def test_session_that_is_ended_at_once(db: psycopg.Connection, ended: bytes, error: str) -> None:
    """pmpp reconnects if the remote server ends a session before a query was sent."""
    version = message(b"S", b"server_version\x0015.0\0")
    ready = message(b"R", bytes(4)) + version + message(b"Z", b"I")
    starts: list[bytes] = []

    def serve(client: socket.socket) -> None:
        starts.append(client.recv(1000))
        client.sendall(ready)
        client.recv(1000)
        client.sendall(ended)

    with listener(serve) as port:
        db.execute("set pmpp.connect_retries = 2")
        place = f"host=127.0.0.1 port={port} sslmode=disable"
        with pytest.raises(psycopg.OperationalError, match=error):
            db.execute(RUN, [f"{place} gssencmode=disable", ["select 1"]])
    assert len(starts) == 3


def test_cancel_while_it_pauses(db: psycopg.Connection, there: str) -> None:
    """The pause between two attempts ends with the call, and nothing is left."""
    db.execute("select pmpp._load()")
    before = descriptors(db.info.backend_pid)
    db.execute("set pmpp.connect_retries = 1000000")
    db.execute("set statement_timeout to '400ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.execute(RUN, [f"{there} port=1", ["select 1"]])
    assert descriptors(db.info.backend_pid) == before


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_query_is_never_sent_twice(
    db: psycopg.Connection, remote: Cluster, there: str, on_error: str
) -> None:
    """A connection that is lost after a query was sent is an error, however many retries are left."""
    db.execute("set pmpp.connect_retries = 5")
    db.execute(f"set pmpp.on_error = '{on_error}'")
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute("create sequence sent")
        with Forwarder(remote.port, "close", 10_000) as network:
            counted = (
                "with once as materialized (select nextval('sent')::int as n)"
                " select n from once, generate_series(1, 10000)"
            )
            with pytest.raises(psycopg.OperationalError, match="lost the connection"):
                db.execute(RUN, [f"{there} port={network.port}", [counted]])
        killed = "select nextval('sent')::int from pg_terminate_backend(pg_backend_pid())"
        with pytest.raises(psycopg.errors.AdminShutdown):
            db.execute(RUN, [there, [killed]])
        assert conn.execute("select last_value from sent").fetchall() == [(2,)]
        conn.execute("drop sequence sent")
