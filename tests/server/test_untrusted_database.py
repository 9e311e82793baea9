"""pmpp's own statements execute nothing that the owner of a remote database has made."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster

CALL = "select n from pmpp.distribute(null::int, %s, array['select 1', 'select 2']) n order by n"

# All that mallory needs is that somebody with a superuser's rights executes one of these.
TRAP = """language plpgsql as $$ begin alter role mallory superuser; return null; end $$"""
TRAPS = f"""
    create schema pmpp;
    create function pmpp.num_cpus() returns int {TRAP};
    create schema evil;
    create function evil.equal_oid(oid, oid) returns bool {TRAP};
    create function evil.equal_char("char", "char") returns bool {TRAP};
    create function evil.equal_name(name, name) returns bool {TRAP};
    create function evil.equal_text(text, text) returns bool {TRAP};
    create function evil.equal_int(smallint, int) returns bool {TRAP};
    create operator evil.= (leftarg = oid, rightarg = oid, function = evil.equal_oid);
    create operator evil.= (leftarg = "char", rightarg = "char", function = evil.equal_char);
    create operator evil.= (leftarg = name, rightarg = name, function = evil.equal_name);
    create operator evil.= (leftarg = text, rightarg = text, function = evil.equal_text);
    create operator evil.= (leftarg = smallint, rightarg = int, function = evil.equal_int);
    create operator evil.<> (leftarg = text, rightarg = text, function = evil.equal_text);
    create function evil.quote_ident(text) returns text {TRAP};
    create function evil.concat(variadic text[]) returns text {TRAP};
    create function evil.concat_ws(text, variadic text[]) returns text {TRAP};
    create function evil.current_database() returns name {TRAP};
    create function evil.pg_postmaster_start_time() returns timestamptz {TRAP};
    create function evil.date_part(text, timestamptz) returns float {TRAP};
    create function evil.extract(text, timestamptz) returns numeric {TRAP};
    create table evil.pg_proc (like pg_catalog.pg_proc);
    create table evil.pg_extension (like pg_catalog.pg_extension);
    create table evil.pg_depend (like pg_catalog.pg_depend);
"""


@pytest.fixture
def theirs(remote: Cluster) -> Iterator[str]:
    """A database of mallory's, and a superuser's connection string for it."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute("create role mallory login")
        conn.execute("create database theirs owner mallory")
        conn.execute("alter database theirs set search_path = evil, public, pg_catalog")
        address = f"host=127.0.0.1 port={remote.port} dbname=theirs"
        with psycopg.connect(f"{address} user=mallory") as mallory:
            mallory.execute(TRAPS)
        yield f"{address} user=postgres"
        still = conn.execute("select rolsuper from pg_roles where rolname = 'mallory'").fetchall()
        conn.execute("drop database theirs with (force)")
        conn.execute("drop role mallory")
    assert still == [(False,)]


def test_function_of_the_right_name(db: psycopg.Connection, theirs: str) -> None:
    """A function pmpp.num_cpus() that is not of the extension is not run."""
    with pytest.raises(psycopg.errors.UndefinedObject, match="has no function num_cpus") as raised:
        db.execute(CALL, [theirs])
    assert "Set num_workers" in str(raised.value.diag.message_hint)


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_other_statements(db: psycopg.Connection, theirs: str, result_format: str | None) -> None:
    """The statements of pmpp before a query call no function or operator of the database's owner."""
    call = "select * from pmpp.distribute(null::int, %s, array['select 1'], result_format => %s, num_workers => 1)"
    assert db.execute(call, [theirs, result_format]).fetchall() == [(1,)]


def test_same_snapshot(db: psycopg.Connection, theirs: str) -> None:
    """The setup commands of same_snapshot() call no function or operator of the database's owner."""
    call = "select * from pmpp.meta(%s, array['select 1'], setup_commands => pmpp.same_snapshot())"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.execute(call, [theirs])


def test_extension_that_is_installed(
    db: psycopg.Connection, remote: Cluster, theirs: str, there: str
) -> None:
    """pmpp reads the number of CPUs from the extension, also as a role that may not call it."""
    with psycopg.connect(theirs, autocommit=True) as conn:
        conn.execute("set search_path to pg_catalog; drop schema pmpp cascade")
        conn.execute("create extension pmpp cascade")
    assert db.execute(CALL, [theirs]).fetchall() == [(1,), (2,)]
    stranger = theirs.replace("user=postgres", "user=mallory")
    assert db.execute(CALL, [stranger]).fetchall() == [(1,), (2,)]


def test_extension_in_c(db: psycopg.Connection, remote: Cluster, theirs: str) -> None:
    """pmpp calls a function in C of the extension, but not one that an ordinary user owns."""
    with psycopg.connect(theirs, autocommit=True) as conn:
        conn.execute("set search_path to pg_catalog; drop schema pmpp cascade")
        conn.execute("create extension pmpp cascade")
        # Bit by bit, the smallest floats are the smallest integers.
        conn.execute("alter database theirs set pg_trgm.similarity_threshold = 2.803e-45")
        conn.execute(
            "create or replace function pmpp.num_cpus() returns int language c"
            " as '$libdir/pg_trgm', 'show_limit'"
        )
        workers = "select distinct n from pmpp.distribute(null::text, %s, %s) n"
        queries = ["select application_name from pg_stat_activity where pid = pg_backend_pid()"]
        assert len(db.execute(workers, [theirs, queries * 2]).fetchall()) == 1
        for kind, name in (("schema", "pmpp"), ("function", "pmpp.num_cpus()")):
            conn.execute(f"alter {kind} {name} owner to mallory")
            with pytest.raises(psycopg.Error, match="has no usable number"):
                db.execute(CALL, [theirs])
            conn.execute(f"alter {kind} {name} owner to postgres")
