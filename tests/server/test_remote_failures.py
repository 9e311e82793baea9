"""Remote servers and networks that fail: one clear error, and nothing is left."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from forwarder import Fault, Forwarder
from helpers import PG_CONFIG, SLEEP, TRUST, descriptors, eventually, notices, running, tcp
from listener import listener

RUN = "select * from pmpp.distribute(null::text, %s, %s, num_workers => %s)"
META = "select * from pmpp.meta(%s, %s, num_workers => %s)"
WIDE = "create type wide as (a int, b int, c int, d int, e int, f int, g int, h int)"


def failure(
    db: psycopg.Connection, connection: str, queries: list[str], workers: int, call: str = RUN
) -> psycopg.Error:
    """Return the error of a call, after which nothing may be left in its process."""
    db.execute("select pmpp._load()")
    pid = db.info.backend_pid
    before = descriptors(pid)
    with pytest.raises(psycopg.Error) as raised:
        db.execute(call, [connection, queries, workers])
    assert descriptors(pid) == before
    assert "Traceback" not in str(raised.value.diag.context)
    return raised.value


@pytest.fixture
def throwaway() -> Iterator[Cluster]:
    """A remote server that a test may break."""
    with Cluster(PG_CONFIG, hba=[TRUST]) as cluster:
        yield cluster


@pytest.mark.parametrize("fault", ["reset", "close"])
@pytest.mark.parametrize("after", [3, 300, 100_000, 3_000_000])
def test_connection_is_cut(
    db: psycopg.Connection, remote: Cluster, fault: Fault, after: int
) -> None:
    """A connection that ends too early is an error; pmpp never takes its result for complete."""
    query = "select repeat('x', 1000) from generate_series(1, 10000)"
    with Forwarder(remote.port, fault, after) as network:
        error = failure(db, tcp(network.port), [query, SLEEP], 2)
    assert error.sqlstate in ("08001", "08006")
    assert f"host=127.0.0.1 port={network.port} dbname=postgres" in str(error)
    if error.sqlstate == "08006":
        assert "item 1" in str(error.diag.message_detail)
    eventually(remote, f"not {running(db, SLEEP)}")


def test_worker_is_terminated(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """When a worker is terminated, its own error arrives and pmpp cancels the other workers."""
    queries = [SLEEP, "select pg_terminate_backend(pg_backend_pid())::text"]
    error = failure(db, there, queries, 2)
    assert error.sqlstate == "57P01"
    assert "terminating connection due to administrator command" in str(error)
    assert "Query 2 of item 1" in str(error.diag.message_detail)
    eventually(remote, f"not {running(db, SLEEP)}")


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_server_is_stopped(db: psycopg.Connection, throwaway: Cluster, mode: str) -> None:
    """If a remote server is stopped during a query, the error names the query."""

    def stop() -> None:
        eventually(throwaway, running(db, SLEEP))
        throwaway.control("stop", f"--mode={mode}")

    thread = threading.Thread(target=stop)
    thread.start()
    error = failure(db, tcp(throwaway.port), [SLEEP], 1)
    thread.join()
    assert error.sqlstate in ("57P01", "57P02", "08006")
    assert "Query 1 of item 1" in str(error.diag.message_detail)
    error = failure(db, tcp(throwaway.port), [SLEEP], 1)
    assert error.sqlstate == "08001"
    assert "onnection refused" in str(error.diag.message_detail)


def test_backend_dies_before_the_first_query(db: psycopg.Connection, there: str) -> None:
    """A connection that is lost after connecting is an error that says where that was."""
    with pytest.raises(psycopg.Error) as raised:
        db.execute(
            "select * from pmpp.distribute(null::text, %s, array['select 1'],"
            " setup_commands => array['select pg_terminate_backend(pg_backend_pid())'])",
            [there],
        )
    assert raised.value.sqlstate == "57P01"
    assert "Setup command 1 of item 1" in str(raised.value.diag.message_detail)


def test_server_in_recovery(db: psycopg.Connection, throwaway: Cluster) -> None:
    """A standby that takes no connections is an error with its own words."""
    standby = Cluster(PG_CONFIG, settings={"hot_standby": "off"})
    try:
        standby.copy(throwaway)
        error = failure(db, standby.superuser(), [SLEEP], 1)
        assert error.sqlstate == "08001"
        assert "the database system" in str(error.diag.message_detail)
    finally:
        standby.remove()


NONSENSE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(1000),
    "long_error": b"E\x7f\xff\xff\xff" + b"x" * 1000,
    "unknown_authentication": b"R\x00\x00\x00\x08\x00\x00\x00\x63",
    "unexpected_row": b"R\x00\x00\x00\x08\x00\x00\x00\x00D\x00\x00\x00\x06\x00\x00",
    "error_without_fields": b"E\x00\x00\x00\x05\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_something_that_is_not_postgresql(db: psycopg.Connection, answer: bytes) -> None:
    """Whatever a listener answers, the call ends with an error of pmpp."""

    def serve(client: socket.socket) -> None:
        client.recv(10000)
        client.sendall(answer)

    with listener(serve) as port:
        error = failure(db, f"{tcp(port)} sslmode=disable", [SLEEP], 1)
    assert error.sqlstate == "08001"
    assert str(error.diag.message_primary) == (
        f"item 1: could not connect to host=127.0.0.1 port={port} dbname=postgres"
    )


@pytest.mark.parametrize(
    "limit",
    ["alter role few connection limit 2", "alter database postgres connection limit 3",
     "alter system set max_connections to 12"],
)  # fmt: skip
def test_too_many_connections(throwaway: Cluster, db: psycopg.Connection, limit: str) -> None:
    """With fewer connections than wanted a call goes on and warns once; with none it fails."""
    with psycopg.connect(throwaway.superuser(), autocommit=True) as conn:
        conn.execute("create role few login")
        conn.execute(limit)
    throwaway.control("restart")
    got = notices(db)
    connection = tcp(throwaway.port).replace("user=postgres", "user=few")
    rows = db.execute(RUN, [connection, ["select 'x' from pg_sleep(0.1)"] * 50, 20]).fetchall()
    assert rows == [("x",)] * 50
    ((severity, message, _, _),) = got
    assert severity == "WARNING"
    assert re.fullmatch(r"item 1: going on with \d+ of 20 connections", str(message))
    with psycopg.connect(throwaway.superuser(), autocommit=True) as conn:
        conn.execute("alter role few connection limit 0")
    error = failure(db, connection, [SLEEP], 5)
    assert error.sqlstate == "08001"
    assert "too many connections" in str(error.diag.message_detail)


@pytest.mark.parametrize(
    "definition",
    ["select -5", "select 0", "select 2000000000", "select null::int", "select 1/0", "select 2, 3"],
)
def test_absurd_number_of_cpus(db: psycopg.Connection, remote: Cluster, definition: str) -> None:
    """A remote server that reports an absurd number of CPUs fails the call."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute("drop database if exists absurd with (force)")
        conn.execute("create database absurd")
    with psycopg.connect(remote.superuser("absurd")) as conn:
        conn.execute("create extension pmpp cascade; set check_function_bodies to off")
        conn.execute(
            f"create or replace function pmpp.num_cpus() returns int language sql as '{definition}'"
        )
    with pytest.raises(psycopg.Error, match="has no usable number") as raised:
        db.execute(
            "select * from pmpp.distribute(null::text, %s, array['select 1', 'select 2'])",
            [tcp(remote.port).replace("dbname=postgres", "dbname=absurd")],
        )
    assert "Set num_workers" in str(raised.value.diag.message_hint)


def test_flood_of_notices(db: psycopg.Connection, there: str) -> None:
    """Very many and very long notices arrive."""
    got = notices(db)
    query = (
        "do $$ begin for i in 1..2000 loop raise notice '%', repeat('n', 10000); end loop; end $$"
    )
    db.execute("select * from pmpp.meta(%s, array[%s])", [there, query])
    assert len(got) == 2000


def test_endless_notices_can_be_cancelled(db: psycopg.Connection, there: str) -> None:
    """A cancel ends a call that is receiving notices without end."""
    # On a busy machine, loading pmpp takes longer than the timeout.
    db.execute("select pmpp._load()")
    db.execute("set client_min_messages to warning; set statement_timeout to '500ms'")
    endless = "do $$ begin loop raise notice 'again'; end loop; end $$"
    error = failure(db, there, [endless], 1, META)
    assert error.sqlstate == "57014"


def test_endless_result(db: psycopg.Connection, there: str) -> None:
    """A result without end stops at pmpp.max_result_size."""
    db.execute("set pmpp.max_result_size to '20MB'")
    error = failure(db, there, ["select repeat('x', 1000 + 0 * generate_series(1, 1000000000))"], 1)
    assert error.sqlstate == "54000"
    assert "pmpp.max_result_size" in str(error)
    db.execute("set pmpp.max_result_size to 'huge'")
    error = failure(db, there, ["select 1"], 1)
    assert error.sqlstate == "22023"
    db.execute("reset pmpp.max_result_size")
    assert db.execute(RUN, [there, ["select 1"], 1]).fetchall() == [("1",)]


def test_connection_is_cut_between_rows(
    db: psycopg.Connection, remote: Cluster, there: str
) -> None:
    """A connection that ends between wide rows is an error."""
    db.execute(WIDE)
    query = "select n, n, n, n, n, n, n, n from generate_series(1, 100000) n"
    with (
        Forwarder(remote.port, "close", 100_000) as network,
        pytest.raises(psycopg.Error) as raised,
    ):
        db.execute(
            "select * from pmpp.distribute(null::wide, %s, %s)", [tcp(network.port), [query]]
        )
    assert raised.value.sqlstate == "08006"


def test_bad_value_while_the_query_runs(
    db: psycopg.Connection, remote: Cluster, there: str
) -> None:
    """A value of a wide row that its column does not take ends a query that would run for long."""
    db.execute(WIDE)
    query = """
        select n, n, n, n, n, n, n, 'x' from generate_series(1, 1000) n
        union all select 1, 1, 1, 1, 1, 1, 1, 'y' from pg_sleep(100)
    """
    db.execute("set statement_timeout = '50s'")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation) as raised:
        db.execute("select * from pmpp.distribute(null::wide, %s, %s)", [there, [query]])
    assert str(raised.value.diag.message_detail).startswith("In a row of query 1 of item 1")
    eventually(remote, "not exists (select from pg_stat_activity where wait_event = 'PgSleep')")


def test_failure_after_many_records(db: psycopg.Connection, there: str) -> None:
    """Without a row type, the DETAIL of a failure after work_mem of rows names the query."""
    queries = ["select repeat('x', 100) from generate_series(1, 100000)", "select 1/0"]
    manifest = [{"connection": there, "queries": queries, "num_workers": 1}]
    db.execute("set work_mem to '64kB'")
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        db.execute("select * from pmpp.distribute(%s::json) as (a text)", [json.dumps(manifest)])
    assert raised.value.diag.message_primary == "error fetching next item from iterator"
    reason, where = str(raised.value.diag.message_detail).splitlines()
    assert reason == "pmpp: division by zero"
    assert where.startswith("Query 2 of item 1 on host=127.0.0.1")


def test_temp_file_limit(db: psycopg.Connection, there: str) -> None:
    """Rows that exceed temp_file_limit end the call with PostgreSQL's own error."""
    db.execute("set temp_file_limit to '1MB'")
    db.execute("set work_mem to '64kB'")
    error = failure(db, there, ["select generate_series(1, 1000000)"], 1)
    assert error.sqlstate == "53400"
