"""Calls through PgBouncer, in session mode and in transaction mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, SLEEP, eventually
from other_servers import pgbouncer
from psycopg import errors
from psycopg.conninfo import make_conninfo

CALL = "select n from pmpp.distribute(null::int, %s, %s, num_workers => %s) n order by n"
POOL_SIZE = 4
SOMEBODY_SLEEPS = (
    f"exists (select from pg_stat_activity where query = '{SLEEP}' and state = 'active')"
)


@pytest.fixture(scope="module")
def database(session: psycopg.Connection) -> str:
    """The name of the database that is called, with settings of its own."""
    name = session.info.dbname
    session.execute(f"alter database {name} set client_connection_check_interval to '100ms'")
    session.execute(f"alter database {name} set search_path to public, shop")
    return name


@pytest.fixture(scope="module")
def by_session(cluster: Cluster, database: str) -> Iterator[str]:
    """A connection string that leads through PgBouncer in session mode."""
    with pgbouncer(cluster, "session", default_pool_size=POOL_SIZE) as port:
        yield through(port, database)


@pytest.fixture(scope="module")
def by_transaction(cluster: Cluster, database: str) -> Iterator[str]:
    """A connection string that leads through PgBouncer in transaction mode."""
    with pgbouncer(cluster, "transaction", default_pool_size=POOL_SIZE) as port:
        yield through(port, database)


def through(port: int, database: str) -> str:
    return make_conninfo(
        host="127.0.0.1", port=port, dbname=database, user="postgres", password=PASSWORD
    )


@pytest.fixture(params=["by_session", "by_transaction"])
def pooled(request: pytest.FixtureRequest) -> str:
    """A connection string that leads through PgBouncer in either mode."""
    there: str = request.getfixturevalue(request.param)
    return there


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_rows(caller: psycopg.Connection, pooled: str, result_format: str | None) -> None:
    """More workers than there are server connections get every row of every query, once."""
    call = "select count(*), count(distinct n), sum(n) from pmpp.distribute(null::int, %s, %s, num_workers => %s, result_format => %s) n"
    queries = [f"select {n} union all select {n + 500}" for n in range(500)]
    got = caller.execute(call, [pooled, queries, 3 * POOL_SIZE, result_format]).fetchall()
    assert got == [(1000, 1000, 999 * 1000 // 2)]


def test_cpus(caller: psycopg.Connection, pooled: str) -> None:
    """pmpp reads the number of CPUs from the pmpp behind PgBouncer."""
    call = (
        "select n from pmpp.distribute(null::int, %s, array['select 1', 'select 2']) n order by n"
    )
    assert caller.execute(call, [pooled]).fetchall() == [(1,), (2,)]


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_errors(caller: psycopg.Connection, pooled: str, result_format: str | None) -> None:
    """An error of the server arrives, and with on_error = continue the other queries succeed."""
    call = "select n from pmpp.distribute(null::int, %s, %s, num_workers => 2, result_format => %s) n order by n"
    queries = ["select 1", "select 1/0", "selec 1", "select 2"]
    with pytest.raises((errors.DivisionByZero, errors.SyntaxError)):
        caller.execute(call, [pooled, queries, result_format])
    caller.execute("set pmpp.on_error to 'continue'")
    assert caller.execute(call, [pooled, queries, result_format]).fetchall() == [(1,), (2,)]


def test_cancel(caller: psycopg.Connection, cluster: Cluster, pooled: str) -> None:
    """What a cancelled call has started ends at once, and what waits for PgBouncer never starts.

    In transaction mode the server must be set to notice that PgBouncer has hung up: a query that
    starts when others have been cancelled may be on a connection that pmpp has not set up.
    """
    caller.execute("set statement_timeout to '500ms'")
    with pytest.raises(errors.QueryCanceled):
        caller.execute(CALL, [pooled, [SLEEP] * 2 * POOL_SIZE, 2 * POOL_SIZE])
    eventually(cluster, f"not {SOMEBODY_SLEEPS}")


def test_terminated_caller(session: psycopg.Connection, cluster: Cluster, pooled: str) -> None:
    """PgBouncer ends the queries of a caller that is terminated."""
    call = f"select pmpp.distribute(null::int, $1, array['{SLEEP}'], num_workers => 1)"
    with closing(psycopg.connect(session.info.dsn)) as caller:
        caller.pgconn.send_query_params(call.encode(), [pooled.encode()])
        eventually(cluster, SOMEBODY_SLEEPS)
        session.execute("select pg_terminate_backend(%s)", [caller.info.backend_pid])
        eventually(cluster, f"not {SOMEBODY_SLEEPS}")


def test_wrong_password(caller: psycopg.Connection, pooled: str) -> None:
    """An error of PgBouncer itself arrives with its own message."""
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(CALL, [make_conninfo(pooled, password="wrong"), ["select 1"], 1])
    assert "FATAL:  SASL authentication failed" in (raised.value.diag.message_detail or "")


def test_who_asks(caller: psycopg.Connection, pooled: str) -> None:
    """The server sees the application_name of pmpp, not of PgBouncer."""
    call = "select n from pmpp.distribute(null::text, %s, array['show application_name'], num_workers => 1) n"
    assert caller.execute(call, [pooled]).fetchall() == [
        (f"pmpp {caller.info.backend_pid} item 1",)
    ]


def test_setup_by_session(caller: psycopg.Connection, by_session: str) -> None:
    """In session mode what setup commands set holds for all queries, and for nobody else."""
    call = "select distinct n from pmpp.distribute(null::text, %s, %s, num_workers => 8, setup_commands => array['set search_path to shop']) n"
    assert caller.execute(call, [by_session, ["show search_path"] * 40]).fetchall() == [("shop",)]
    plain = "select distinct n from pmpp.distribute(null::text, %s, %s, num_workers => 8) n"
    assert caller.execute(plain, [by_session, ["show search_path"] * 8]).fetchall() == [
        ("public, shop",)
    ]


def test_setup_in_a_transaction(caller: psycopg.Connection, pooled: str) -> None:
    """A setup command that begins a transaction keeps the server connection, in either mode."""
    call = "select distinct n from pmpp.distribute(null::text, %s, %s, num_workers => 8, setup_commands => array['begin', 'set local search_path to shop']) n"
    assert caller.execute(call, [pooled, ["show search_path"] * 40]).fetchall() == [("shop",)]


def test_settings_of_the_database(caller: psycopg.Connection, pooled: str) -> None:
    """What is set for the database or the role holds in transaction mode too."""
    call = "select distinct n from pmpp.distribute(null::text, %s, %s, num_workers => 8) n"
    got = caller.execute(call, [pooled, ["show search_path"] * 40]).fetchall()
    assert got == [("public, shop",)]


def test_options(caller: psycopg.Connection, by_transaction: str, cluster: Cluster) -> None:
    """PgBouncer refuses options in a connection string, unless ignore_startup_parameters has it."""
    there = make_conninfo(by_transaction, options="-c work_mem=8MB")
    call = (
        "select n from pmpp.distribute(null::text, %s, array['show work_mem'], num_workers => 1) n"
    )
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        caller.execute(call, [there])
    # Later versions name the setting behind "in options".
    refused = r"unsupported startup parameter(: | in )options"
    assert re.search(refused, raised.value.diag.message_detail or "")
    with pgbouncer(cluster, "transaction", ignore_startup_parameters="options") as port:
        assert caller.execute(call, [make_conninfo(there, port=port)]).fetchall() == [("4MB",)]


def test_same_snapshot(caller: psycopg.Connection, pooled: str) -> None:
    """Workers see what the caller sees, and not what was committed since."""
    call = """
        select distinct n from pmpp.distribute(null::int, %s, %s, num_workers => 4,
            setup_commands => pmpp.same_snapshot()) n
    """
    caller.execute("drop table if exists seen; create table seen as select 1 as n")
    with caller.transaction():
        caller.execute("set transaction isolation level repeatable read; select from seen")
        with psycopg.connect(caller.info.dsn) as other:
            other.execute("insert into seen values (2)")
        queries = ["select count(*) from seen"] * 20
        assert caller.execute(call, [pooled, queries]).fetchall() == [(1,)]


def test_next_client(session: psycopg.Connection, cluster: Cluster, database: str) -> None:
    """The next client of a pooled session cannot see the call of the client before."""
    call = "select * from pmpp.distribute(null::int, %s, array['select x'], num_workers => 1)"
    left = "select pg_backend_pid(), cardinality(pmpp.unfinished()) from pmpp.last_run()"
    with pgbouncer(cluster, "session", default_pool_size=1) as port:
        there = through(port, database)
        with psycopg.connect(there, autocommit=True) as client:
            with pytest.raises(errors.UndefinedColumn):
                client.execute(call, [session.info.dsn])
            ((pid, count),) = client.execute(left).fetchall()
            assert count == 1
        with psycopg.connect(there, autocommit=True) as client:
            assert client.execute("select pg_backend_pid()").fetchall() == [(pid,)]
            assert client.execute(left).fetchall() == []


STYLES = ["postgres", "sql_standard", "iso_8601", "postgres_verbose"]


@pytest.fixture
def style_of_the_database(
    request: pytest.FixtureRequest, session: psycopg.Connection, database: str
) -> Iterator[None]:
    """New sessions of the database write intervals in the style of the parameter."""
    session.execute(f"alter database {database} set intervalstyle to {request.param}")
    yield
    session.execute(f"alter database {database} reset intervalstyle")


@pytest.mark.usefixtures("style_of_the_database")
@pytest.mark.parametrize("style_of_the_database", STYLES, indirect=True)
def test_intervals(caller: psycopg.Connection, cluster: Cluster, database: str) -> None:
    """Intervals are read right, whichever session has written them and under whatever style."""
    query = "select interval '-1 day -02:03:04', array[interval '-1 day -02:03:04'], row(interval '-1 day -02:03:04')::wrapped"
    caller.execute("drop table if exists got; drop type if exists wrapped")
    caller.execute("create type wrapped as (i interval)")
    caller.execute("create table got (i interval, a interval[], w wrapped)")
    wanted = "interval '-1 day -02:03:04'"
    right = f"i = {wanted} and a = array[{wanted}] and (w).i = {wanted}"
    forms = [
        "pmpp.distribute(null::got, %s, %s, num_workers => 6)",
        "pmpp.distribute(array[row(%s, %s, null, 6, null, null)::pmpp.query_manifest])"
        " as (i interval, a interval[], w wrapped)",
    ]
    with pgbouncer(cluster, "transaction", default_pool_size=POOL_SIZE) as port:
        for local in STYLES:
            caller.execute(f"set intervalstyle to {local}")
            for form in forms:
                call = f"select count(*), bool_and({right}) from {form}"
                got = caller.execute(call, [through(port, database), [query] * 30]).fetchall()
                assert got == [(30, True)]
                assert caller.execute("show intervalstyle").fetchall() == [(local,)]


def test_what_is_left_in_sessions(
    session: psycopg.Connection, caller: psycopg.Connection, cluster: Cluster, database: str
) -> None:
    """pmpp leaves the settings of a pooled session as they were."""
    settings = "select name, setting from pg_settings where source = 'session' and name !~ 'application|encoding|datestyle'"
    session.execute(f"alter database {database} set intervalstyle to sql_standard")
    try:
        with pgbouncer(cluster, "transaction", default_pool_size=1) as port:
            there = through(port, database)
            caller.execute("create table if not exists numbers (n int)")
            caller.execute(CALL, [there, ["select 1"] * 2, 2])
            with psycopg.connect(there) as other:
                assert other.execute(settings).fetchall() == []
    finally:
        session.execute(f"alter database {database} reset intervalstyle")
