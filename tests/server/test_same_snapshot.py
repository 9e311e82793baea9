"""With same_snapshot() all workers see one state of the database, whatever others write."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import CITUS, PASSWORD, Connect, NewRole
from psycopg import sql
from psycopg.conninfo import make_conninfo

ROUNDS = 10
RUN = "select * from pmpp.distribute(null::bigint, %s, %s, num_workers => %s, setup_commands => {})"
WITH = RUN.format("pmpp.same_snapshot()").encode()
WITHOUT = RUN.format("null").encode()

# What is taken from one account is put into the other, so that the sum is 0. A query between
# those that look lasts until at least one such move has been made. The sequence can be seen
# from any snapshot.
ACCOUNTS = """
    create table giver as select 0::bigint as amount;
    create table taker as select 0::bigint as amount;
    create sequence moves;
    select nextval('moves');
    create function wait_for_a_move() returns bigint language plpgsql as $$
    declare
        goal bigint := (select last_value + 2 from moves);
    begin
        while (select last_value from moves) < goal loop
            perform pg_sleep(0.001);
        end loop;
        return 0;
    end
    $$
"""
MOVE = """
    update giver set amount = amount - 1;
    update taker set amount = amount + 1;
    select nextval('moves')
"""
LOOK = ["select amount from giver", "select wait_for_a_move()", "select amount from taker"]


@pytest.fixture
def moving(db: psycopg.Connection, connect: Connect) -> Iterator[None]:
    """The accounts, and somebody who moves something all the time."""
    db.execute(ACCOUNTS)
    conn = connect()
    ended = threading.Event()

    def move() -> None:
        while not ended.is_set():
            conn.execute(MOVE)

    mover = threading.Thread(target=move)
    mover.start()
    yield
    ended.set()
    mover.join()


def sums(conn: psycopg.Connection, statement: bytes, arguments: list[object]) -> list[int]:
    """Return the sum that is seen in each of a number of calls."""
    return [sum(row[0] for row in conn.execute(statement, arguments)) for _ in range(ROUNDS)]


@pytest.mark.usefixtures("moving")
def test_sums_beside_a_writer(db: psycopg.Connection, here: str) -> None:
    """The sum is right every time with one snapshot, and wrong every time without."""
    assert sums(db, WITH, [here, LOOK, 1]) == [0] * ROUNDS
    assert sums(db, WITH, [here, LOOK * 2, 6]) == [0] * ROUNDS
    assert min(sums(db, WITHOUT, [here, LOOK, 1])) > 0


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_what_the_caller_sees(db: psycopg.Connection, here: str, level: str) -> None:
    """In one statement the caller and the workers see the same."""
    statement = WITH.replace(b"*", b"*, (select amount from taker)", 1)
    query = ["select amount from wait_for_a_move(), taker"]
    with db.transaction():
        db.execute(f"set transaction isolation level {level}".encode())
        for _ in range(ROUNDS):
            ((by_worker, by_caller),) = db.execute(statement, [here, query, 1])
            assert by_worker == by_caller


def test_snapshot_is_gone(db: psycopg.Connection, here: str) -> None:
    """After its transaction a snapshot cannot be used any more, and the error says so."""
    ((commands,),) = db.execute("select pmpp.same_snapshot()").fetchall()
    # Newer servers tell a snapshot that is gone from a name that is none.
    gone = (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject)
    message = 'invalid snapshot identifier|snapshot ".*" does not exist'
    with pytest.raises(gone, match=message):
        db.execute(RUN.format("%s").encode(), [here, ["select 1"], 1, commands])


def test_database_of_any_name(cluster: Cluster, db: psycopg.Connection) -> None:
    """The name of the database may hold what quotes the command that compares it."""
    name = """a $check$ 'b' \\ "c\""""
    quoted = sql.Identifier(name)
    db.execute(sql.SQL("create database {}").format(quoted))
    try:
        here = make_conninfo(cluster.superuser(), dbname=name)
        with psycopg.connect(here, autocommit=True) as conn:
            conn.execute("create extension pmpp cascade")
            assert conn.execute(WITH, [here, ["select 1"], 1]).fetchall() == [(1,)]
    finally:
        db.execute(sql.SQL("drop database {}").format(quoted))


def test_another_server(db: psycopg.Connection, there: str) -> None:
    """Connections to another server are refused, before they can take a snapshot by its name."""
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
        db.execute(WITH, [there, ["select 1"], 1])
    assert raised.value.diag.message_primary == (
        "same_snapshot() is for connections to the database that it is called in"
    )
    assert raised.value.diag.message_hint


def test_standby(standby: Cluster, db: psycopg.Connection, here: str) -> None:
    """A standby, a copy down to the identifier, is another server, and can share its own snapshot."""
    there = make_conninfo(here, host=standby.host, port=standby.port)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.execute(WITH, [there, ["select 1"], 1])
    with psycopg.connect(there, autocommit=True) as conn:
        assert conn.execute(WITH, [there, ["select 1", "select 2"], 2]).fetchall()


# What hides the names that same_snapshot() looks at, from the caller and from workers.
HIDING = """
    create schema hiding;
    create table hiding.pg_extension (extname name);
    create table hiding.pg_dist_partition (logicalrelid regclass);
    create function hiding.version() returns text language sql as $$ select 'PostgreSQL 15' $$;
    create function hiding.differs(name, name) returns boolean language sql as 'select false';
    create operator hiding.= (function = hiding.differs, leftarg = name, rightarg = name);
    set search_path = hiding, pg_catalog, pmpp
"""


def assert_refused(conn: psycopg.Connection) -> None:
    """Check that same_snapshot() fails, with a hint."""
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="several servers") as raised:
        conn.execute("select pmpp.same_snapshot()")
    assert raised.value.diag.message_detail
    assert raised.value.diag.message_hint


def test_citus(
    db: psycopg.Connection,
    here: str,
    new_role: NewRole,
    connect: Connect,
) -> None:
    """same_snapshot() refuses a database in which Citus has a table, whoever hides its names."""
    db.execute(CITUS)
    assert db.execute(WITH, [here, ["select 1"], 1]).fetchall() == [(1,)]
    db.execute("create table spread (id int)")
    db.execute("insert into pg_dist_partition values ('spread', 'h')")
    assert_refused(db)
    assert_refused(connect(user=new_role(), password=PASSWORD))
    db.execute(HIDING)
    assert_refused(db)


@pytest.mark.parametrize(
    "version",
    [
        "PostgreSQL 12.12 (Greenplum Database 7.1.0 build commit:x) on x86_64-pc-linux-gnu",
        "PostgreSQL 16.9 (Apache Cloudberry 3.0.0 build dev) on x86_64-pc-linux-gnu",
        "PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang",
    ],
)
def test_databases_that_spread_tables(db: psycopg.Connection, version: str) -> None:
    """same_snapshot() knows other distributed databases by version()."""
    function = "create or replace function pg_catalog.version() returns text language sql as {}"
    db.execute(sql.SQL(function).format(f"select {sql.quote(version)}"))
    assert_refused(db)
