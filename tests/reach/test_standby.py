"""A primary and its hot standby: queries on them, and calls made there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from cluster import Cluster, free_port
from helpers import PG_CONFIG, TRUST, eventually
from psycopg import errors
from psycopg.conninfo import make_conninfo

CALL = "select n from pmpp.distribute(null::int, %s, %s, num_workers => %s, result_format => %s) n order by n"
ROLE = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
ASK = "select t from pmpp.distribute(null::text, %s, array[%s], num_workers => 1) t"


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    """A server with a table and with pmpp."""
    with Cluster(PG_CONFIG, hba=[TRUST]) as primary:
        with psycopg.connect(primary.superuser(), autocommit=True) as conn:
            conn.execute("create table numbers as select generate_series(1, 1000) as n")
            conn.execute("create extension pmpp cascade")
        yield primary


@pytest.fixture(scope="module")
def standby(primary: Cluster) -> Iterator[Cluster]:
    """Its hot standby."""
    standby = Cluster(PG_CONFIG, hba=[TRUST])
    try:
        standby.copy(primary)
        eventually(standby, "to_regprocedure('pmpp.num_cpus()') is not null")
        yield standby
    finally:
        standby.remove()


def at(*clusters: Cluster, **params: Any) -> str:
    """A connection string for servers, by TCP."""
    ports = ",".join(str(cluster.port) for cluster in clusters)
    hosts = ",".join("127.0.0.1" for _ in clusters)
    return make_conninfo(host=hosts, port=ports, user="postgres", dbname="postgres", **params)


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_rows(caller: psycopg.Connection, standby: Cluster, result_format: str | None) -> None:
    """A standby runs queries with several workers."""
    queries = [f"select n from numbers where n % 4 = {rest}" for rest in range(4)]
    got = caller.execute(CALL, [at(standby), queries, 4, result_format]).fetchall()
    assert got == [(n,) for n in range(1, 1001)]


def test_writing(caller: psycopg.Connection, standby: Cluster) -> None:
    """A standby refuses to write, in its own words."""
    call = "select * from pmpp.meta(%s, array[%s], num_workers => 1)"
    with pytest.raises(
        errors.ReadOnlySqlTransaction, match="cannot execute CREATE TABLE in a read-only"
    ):
        caller.execute(call, [at(standby), "create table t (n int)"])


@pytest.mark.parametrize(
    ("attributes", "reached"),
    [
        ("any", "first"),
        ("read-write", "primary"),
        ("primary", "primary"),
        ("read-only", "standby"),
        ("standby", "standby"),
        ("prefer-standby", "standby"),
    ],
)
def test_several_hosts(
    caller: psycopg.Connection, primary: Cluster, standby: Cluster, attributes: str, reached: str
) -> None:
    """target_session_attrs chooses among several hosts, in whatever order they are."""
    for first, hosts in [("primary", (primary, standby)), ("standby", (standby, primary))]:
        there = at(*hosts, target_session_attrs=attributes)
        expected = first if reached == "first" else reached
        assert caller.execute(ASK, [there, ROLE]).fetchall() == [(expected,)]


def test_only_a_primary(caller: psycopg.Connection, primary: Cluster) -> None:
    """prefer-standby takes the primary if it must, standby does not."""
    assert caller.execute(
        ASK, [at(primary, target_session_attrs="prefer-standby"), ROLE]
    ).fetchall() == [("primary",)]
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(ASK, [at(primary, target_session_attrs="standby"), ROLE])
    assert "server is not in hot standby mode" in (raised.value.diag.message_detail or "")


def test_host_that_is_down(caller: psycopg.Connection, primary: Cluster) -> None:
    """pmpp passes over a host that does not answer; if no host answers, the error names each."""
    down = free_port()
    there = make_conninfo(at(primary), host="127.0.0.1,127.0.0.1", port=f"{down},{primary.port}")
    assert caller.execute(ASK, [there, ROLE]).fetchall() == [("primary",)]
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(ASK, [make_conninfo(there, port=f"{down},{down}"), ROLE])
    assert (raised.value.diag.message_detail or "").count(f'"127.0.0.1", port {down} failed') == 2


def test_call_on_a_standby(primary: Cluster, standby: Cluster) -> None:
    """On a standby, where no type can be created, the form without a row type calls any server."""
    call = """
        select role, n from pmpp.distribute(jsonb_build_array(
            jsonb_build_object('connection', %s::text, 'query', %s::text),
            jsonb_build_object('connection', %s::text, 'query', %s::text)))
        as (role text, n bigint) order by role
    """
    query = f"select ({ROLE}), count(*) from numbers"
    with psycopg.connect(standby.superuser(), autocommit=True) as conn:
        got = conn.execute(call, [at(primary), query, at(standby), query]).fetchall()
    assert got == [("primary", 1000), ("standby", 1000)]
