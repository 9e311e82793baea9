"""A call does not wait for a query that waits for the session that made the call."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from cluster import Cluster
from forwarder import Forwarder
from helpers import PASSWORD, WORKERS, Connect, NewRole, eventually, notices

CALL = "select * from pmpp.meta(%s, %s, num_workers => %s, setup_commands => %s)"
ROW = "update held set n = 1"
STATUS = "select query, status, sqlstate from pmpp.last_run() order by query_number"


@pytest.fixture(autouse=True)
def held(db: psycopg.Connection) -> None:
    """Tables that sessions hold locks on, and a time that is short to wait for."""
    db.execute(
        """
        create table held (n int primary key);
        insert into held values (0);
        create table parted (n int) partition by list (n);
        create table part partition of parted for values in (1);
        """
    )
    # A call that waits for ever fails the test instead.
    db.execute("set statement_timeout to '30s'; set deadlock_timeout to '200ms'")


@pytest.mark.parametrize(
    ("holding", "query"),
    [
        (ROW, ROW),
        (ROW, "create index concurrently on held (n)"),
        ("insert into held values (1)", "insert into held values (1)"),
        ("select from held for key share", "delete from held"),
        ("lock table held", "do 'begin perform from held; end'"),
        ("lock table held in share mode", "insert into held values (2)"),
        ("select from held", "vacuum full held"),
        ("select from held", "alter table held add m int"),
        ("select from held", "reindex (verbose) table held"),
        ("select from pg_class", "vacuum full pg_class"),
        ("select from pg_proc", "vacuum full pg_proc"),
        ("select from pg_authid", "reindex table pg_authid"),
        ("lock table pg_class in share mode", "create table more (n int)"),
        ("select pg_advisory_xact_lock(7)", "do 'begin perform pg_advisory_lock(7); end'"),
        ("select pg_advisory_lock_shared(7)", "select pg_advisory_xact_lock(7), ''"),
        ("select", "create index concurrently on held (n)"),
        ("select", "reindex index concurrently held_pkey"),
        ("select", "reindex table concurrently held"),
        ("select from parted", "alter table parted detach partition part concurrently"),
        ("create role holding", "create role holding"),
    ],
)
def test_locks(db: psycopg.Connection, here: str, holding: str, query: str) -> None:
    """Whatever the caller holds, and whatever waits for it, the call ends and says why."""
    db.execute("begin")
    db.execute(holding)
    with pytest.raises(psycopg.errors.DeadlockDetected) as raised:
        db.execute(CALL, [here, [query], 1, None])
    waits, _, context = str(raised.value.diag.message_detail).partition("\n")
    assert waits.startswith("Process ")
    assert waits.endswith(
        f"blocked by process {db.info.backend_pid}, the session that made the call."
    )
    assert context == f"Query 1 of item 1 on {here.rpartition(' ')[0]}: {query}"
    assert "Release the lock before the call" in str(raised.value.diag.message_hint)
    db.execute("rollback")
    assert db.execute(STATUS).fetchall() == [(query, "failed", "40P01")]
    assert db.execute("select detail, context from pmpp.last_run()").fetchone() == (waits, context)


@pytest.mark.parametrize("form", ["polymorphic", "record"])
def test_create_index_concurrently(db: psycopg.Connection, here: str, form: str) -> None:
    """Without any transaction block, a call waits for no index that waits for its statement."""
    query = "create index concurrently on held (n)"
    calls = {
        "polymorphic": "pmpp.meta(%s, array[%s])",
        "record": "pmpp.distribute(array[row(%s, array[%s], null, 1, null, null)::pmpp.query_manifest])"
        " as (command text, tag text)",
    }
    with pytest.raises(psycopg.errors.DeadlockDetected, match="deadlock detected"):
        db.execute(f"select * from {calls[form]}", [here, query])


def test_from_another_database(db: psycopg.Connection, here: str, connect: Connect) -> None:
    """As the hint says, an index is created when the call is made from another database."""
    db.execute("drop database if exists another")
    db.execute("create database another")
    other = connect(dbname="another")
    other.execute("create extension pmpp cascade")
    rows = other.execute(CALL, [here, ["create index concurrently on held (n)"], 1, None])
    assert [tag for _, tag in rows.fetchall()] == ["CREATE INDEX"]


def test_deferrable_transaction(db: psycopg.Connection, here: str) -> None:
    """A worker may also wait for a safe snapshot until the caller's transaction has ended."""
    db.execute("begin isolation level serializable")
    db.execute("update held set n = 1")
    with pytest.raises(psycopg.errors.DeadlockDetected) as raised:
        db.execute(
            "select * from pmpp.distribute(null::int, %s, array['select n from held'],"
            " setup_commands => array['begin isolation level serializable, read only, deferrable'])",
            [here],
        )
    assert "Process " in str(raised.value.diag.message_detail)
    db.execute("rollback")


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_setup_commands(db: psycopg.Connection, here: str, on_error: str) -> None:
    """A setup command that waits for the caller is an error that names it."""
    db.execute(f"set pmpp.on_error = '{on_error}'")
    db.execute("begin")
    db.execute("lock table held")
    with pytest.raises(psycopg.errors.DeadlockDetected) as raised:
        db.execute(CALL, [here, ["select 1"], 2, ["begin", "lock table held"]])
    assert "Setup command 2 of item 1" in str(raised.value.diag.message_detail)


def test_number_of_cpus(db: psycopg.Connection, here: str) -> None:
    """pmpp finds that reading the number of CPUs waits for a lock of the caller."""
    db.execute("begin")
    db.execute("lock table pg_extension in access exclusive mode")
    with pytest.raises(psycopg.errors.DeadlockDetected, match="its number of CPUs"):
        db.execute(
            "select * from pmpp.distribute(null::int, %s, array['select 1', 'select 2'])", [here]
        )


def test_continue(cluster: Cluster, db: psycopg.Connection, here: str) -> None:
    """With continue, the queries that wait for the caller fail, and the others are done."""
    got = notices(db)
    db.execute("set pmpp.on_error = 'continue'")
    db.execute("begin")
    db.execute("update held set n = 1")
    note = "set work_mem to '5MB'"
    queries = [note, "update held set n = 2", "delete from held", note, note]
    tags = db.execute(CALL, [here, queries, 2, None]).fetchall()
    assert [tag for _, tag in tags] == ["SET"] * 3
    statuses = [(status, state) for _, status, state in db.execute(STATUS).fetchall()]
    failed = ("failed", "40P01")
    assert statuses == [("done", None), failed, failed, ("done", None), ("done", None)]
    contexts = sorted(str(detail).rpartition("\n")[2] for _, _, detail, _ in got)
    assert [context.rpartition(": ")[2] for context in contexts] == queries[1:3]
    # Nothing of them is left to wait, and the transaction of the caller goes on.
    eventually(cluster, f"not exists ({WORKERS})")
    db.execute("commit")
    assert db.execute("select n from held").fetchall() == [(1,)]


def test_only_the_cause_fails(db: psycopg.Connection, here: str) -> None:
    """With continue, pmpp fails only the worker that waits for the caller, not those behind it."""
    db.execute("set pmpp.on_error = 'continue'")
    db.execute("begin")
    db.execute("select from held")
    # The second waits behind the first, which wants more than the caller permits.
    queries = ["alter table held add m int", "insert into held values (3)"]
    locked = "exists (select from pg_locks where relation = 'held'::regclass and not granted)"
    second = f"do $$ begin while not {locked} loop perform pg_sleep(0.01); end loop; {queries[1]}; end $$"
    db.execute(CALL, [here, [queries[0], second], 2, None])
    statuses = [(status, state) for _, status, state in db.execute(STATUS).fetchall()]
    assert statuses == [("failed", "40P01"), ("done", None)]
    db.execute("commit")
    assert db.execute("select n from held order by n").fetchall() == [(0,), (3,)]


def test_through_others(
    cluster: Cluster, db: psycopg.Connection, here: str, connect: Connect
) -> None:
    """The worker may wait for a session that waits for another one that waits for the caller."""
    first, second = connect(), connect()
    db.execute("begin; select pg_advisory_xact_lock(1)")
    with ThreadPoolExecutor(2) as pool:
        first.execute("begin; select pg_advisory_xact_lock(2)")
        second.execute("begin; select pg_advisory_xact_lock(3)")
        waits = [pool.submit(first.execute, "select pg_advisory_xact_lock(1)")]
        waits += [pool.submit(second.execute, "select pg_advisory_xact_lock(2)")]
        eventually(
            cluster, "count(*) = 2 from pg_locks where locktype = 'advisory' and not granted"
        )
        with pytest.raises(psycopg.errors.DeadlockDetected) as raised:
            db.execute(CALL, [here, ["select pg_advisory_xact_lock(3), ''"], 1, None])
        db.execute("rollback")
        waits[0].result()
        first.execute("rollback")
        waits[1].result()
    pids = [conn.info.backend_pid for conn in (second, first, db)]
    named = re.findall(r"process (\d+)", str(raised.value.diag.message_detail))
    assert list(map(int, named)) == pids


def test_waiting_for_others_is_no_deadlock(
    cluster: Cluster, db: psycopg.Connection, here: str, connect: Connect
) -> None:
    """A worker that waits for a session that waits for nobody goes on when that one commits."""
    other = connect()
    other.execute("begin; update held set n = 4")
    db.execute("set deadlock_timeout to '20ms'")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(db.execute, CALL, [here, ["update held set n = n + 1"], 1, None])
        eventually(
            cluster,
            "count(*) = 1 from pg_locks l where not l.granted"
            " and pg_sleep(0) is not null and exists (select from pg_stat_activity a"
            " where a.pid = l.pid and a.query_start < clock_timestamp() - interval '0.3 s')",
        )
        other.execute("commit")
        assert [tag for _, tag in running.result().fetchall()] == ["UPDATE 1"]
    assert db.execute("select n from held").fetchall() == [(5,)]


def test_two_calls_that_wait_for_each_other(
    cluster: Cluster, db: psycopg.Connection, here: str, connect: Connect
) -> None:
    """Two callers whose workers wait for the other caller do not wait for ever."""
    other = connect()
    other.execute("set statement_timeout to '30s'; begin; select pg_advisory_xact_lock(1)")
    db.execute("begin; select pg_advisory_xact_lock(2)")
    other.execute("set deadlock_timeout to '20s'")
    call = "select * from pmpp.distribute(null::int, %s, array['select 1 from pg_advisory_xact_lock({})'], num_workers => 1)"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(other.execute, call.format(2), [here])
        eventually(
            cluster, "count(*) = 1 from pg_locks where locktype = 'advisory' and not granted"
        )
        with pytest.raises(psycopg.errors.DeadlockDetected) as raised:
            db.execute(call.format(1), [here])
        assert str(other.info.backend_pid) in str(raised.value.diag.message_detail)
        db.execute("rollback")
        assert running.result().fetchall() == [(1,)]
    other.execute("rollback")


@pytest.mark.parametrize("depth", [1, 2])
def test_nested_calls(db: psycopg.Connection, here: str, depth: int) -> None:
    """A call in a worker ends if its own worker waits for the caller of the outer call."""
    db.execute(f"alter database {db.info.dbname} set deadlock_timeout to '100ms'")
    query = "update held set n = 5"
    for _ in range(depth):
        query = f"select * from pmpp.meta($${here}$$, array[{psycopg.sql.quote(query)}])"
    db.execute("begin; set local deadlock_timeout to '20s'")
    db.execute("update held set n = 6")
    call = "select * from pmpp.distribute(null::pmpp.command_with_result, %s, %s, num_workers => 1)"
    with pytest.raises(psycopg.errors.DeadlockDetected, match="deadlock detected"):
        db.execute(call, [here, [query]])
    db.execute("rollback")


def test_other_role(
    db: psycopg.Connection, by_network: str, connect: Connect, new_role: NewRole,
    may_set_parameter: Callable[[str, str], None],
) -> None:  # fmt: skip
    """pmpp finds a deadlock of a worker that the caller may not see, since its role is another."""
    ann, bob = new_role(), new_role()
    db.execute("grant all on held to public")
    may_set_parameter(ann, "deadlock_timeout")
    caller = connect(user=ann)
    caller.execute("set statement_timeout to '30s'; set deadlock_timeout to '100ms'; begin")
    caller.execute("update held set n = 7")
    bobs = f"{by_network} user='{bob}' password={PASSWORD}"
    with pytest.raises(psycopg.errors.DeadlockDetected):
        caller.execute(CALL, [bobs, ["update held set n = 8"], 1, None])
    caller.execute("rollback")


@pytest.mark.parametrize("network", ["unix", "tcp", "forwarded"])
def test_known_by_socket_or_name(
    cluster: Cluster, db: psycopg.Connection, by_network: str, here: str,
    new_role: NewRole, network: str,
) -> None:  # fmt: skip
    """pmpp knows a worker by its socket, or by its application_name if a proxy is between."""
    user = new_role()
    db.execute("grant all on held to public")
    db.execute("begin; update held set n = 9")
    tcp = f"{by_network} user='{user}' password={PASSWORD}"
    with Forwarder(cluster.port, "none") as forwarder:
        connection = {
            "unix": f"{here} application_name=mine",
            "tcp": f"{tcp} application_name=''",
            "forwarded": f"{tcp} port={forwarder.port}",
        }[network]
        with pytest.raises(psycopg.errors.DeadlockDetected):
            db.execute(CALL, [connection, [ROW], 1, None])
    db.execute("rollback")
