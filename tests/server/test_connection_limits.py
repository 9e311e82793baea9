"""connection_limit and pmpp.max_workers bound how many connections a call has open."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from cluster import Cluster
from helpers import MEET, PG_CONFIG, Connect, NewRole, NewServer, create_pmpp, notices
from psycopg.types.json import Jsonb

LIMIT = "insert into pmpp.connection_limit values (%s, %s)"


@pytest.fixture
def socket(cluster: Cluster, db: psycopg.Connection, here: str) -> str:
    """The name of the host of `here`, where queries can meet."""
    db.execute(MEET)
    return cluster.host


def most(db: psycopg.Connection, wanted: int, *items: Mapping[str, object]) -> tuple[int, int]:
    """Run queries of which so many are to meet; return how many there were and how many
    connections there were at most."""
    db.execute("select setval('arrivals', 1, false)")
    manifest = [
        {"num_workers": 20, "queries": [f"select meet({wanted})"] * 6, **item} for item in items
    ]
    ((count, most),) = db.execute(
        "select count(*), max(n) from pmpp.distribute(null::int, %s) n", [Jsonb(manifest)]
    ).fetchall()
    return count, most


def test_host(db: psycopg.Connection, socket: str, here: str) -> None:
    """All items that lead to a host share its limit, and every query runs."""
    db.execute(LIMIT, [socket, 3])
    assert most(db, 3, {"connection": here}) == (6, 3)
    assert most(db, 3, {"connection": here}, {"connection": here}) == (12, 3)
    db.execute("update pmpp.connection_limit set max_workers = 1")
    assert most(db, 1, *[{"connection": here}] * 5) == (30, 1)


def test_server(db: psycopg.Connection, new_server: NewServer, socket: str) -> None:
    """A foreign server has the limit of its name and that of its host."""
    for name in ("one", "Two"):
        db.execute(
            f"create user mapping for postgres server \"{new_server(name)}\" options (user 'postgres')"
        )
    db.execute(LIMIT, ["Two", 1])
    assert most(db, 1, {"connection": "Two"}) == (6, 1)
    assert most(db, 6, {"connection": "one"}) == (6, 6)
    assert most(db, 7, {"connection": "one"}, {"connection": "Two"}) == (12, 7)
    db.execute(LIMIT, [socket, 4])
    assert most(db, 4, {"connection": "one"}, {"connection": "Two"}) == (12, 4)


def test_everywhere(db: psycopg.Connection, cluster: Cluster, socket: str, here: str) -> None:
    """* is the limit for each host that has none of its own."""
    db.execute(LIMIT, ["*", 2])
    assert most(db, 2, {"connection": here}, {"connection": here}) == (12, 2)
    db.execute("create role anybody superuser login password 'x'")
    network = f"{here} host=127.0.0.1 user=anybody password=x"
    assert most(db, 4, {"connection": here}, {"connection": network}) == (12, 4)
    db.execute(LIMIT, ["127.0.0.1", 5])
    assert most(db, 7, {"connection": here}, {"connection": network}) == (12, 7)
    db.execute("drop role anybody")


def test_list_of_what_is_allowed(
    db: psycopg.Connection, cluster: Cluster, here: str, new_role: NewRole, new_server: NewServer
) -> None:
    """With 0 under * calls connect only to listed servers, whatever a user writes to evade that."""
    for name in ("warehouse", "db1", "other"):
        db.execute(
            f"create user mapping for public server {new_server(name)} options (user 'postgres')"
        )
    owner = new_role()
    db.execute(f'grant usage on foreign data wrapper postgres_fdw to "{owner}"')
    db.execute(f'alter server db1 owner to "{owner}"')
    for listed, limit in (("*", 0), ("warehouse", 8), ("db1", 8)):
        db.execute(LIMIT, [listed, limit])
    call = "select * from pmpp.distribute(null::int, %s, array['select 1'])"
    assert db.execute(call, ["warehouse"]).fetchall() == [(1,)]
    port = f"port={cluster.port} dbname={db.info.dbname} user=postgres"
    for evading in ("other", "db1", here, port, f"host=db1,{cluster.host} {port}",
                    f"host=db1,127.0.0.1 {port}", f"host=db1 hostaddr=127.0.0.1 {port}",
                    f"host=db1, {port}", f"host=warehouse hostaddr=127.0.0.1 {port}",
                    f"postgresql://postgres@db1,127.0.0.1:{cluster.port}/{db.info.dbname}"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="are not allowed"):
            db.execute(call, [evading])


def test_cpus_that_were_asked_for(db: psycopg.Connection, socket: str, here: str) -> None:
    """The limit also bounds workers whose number comes from the CPUs of the remote server."""
    db.execute("create or replace function pmpp.num_cpus() returns int language sql as 'select 8'")
    asks = {"connection": here, "num_workers": None}
    assert most(db, 6, asks) == (6, 6)
    db.execute(LIMIT, [socket, 2])
    assert most(db, 2, asks) == (6, 2)
    assert most(db, 2, asks, asks, asks) == (18, 2)


def test_call_as_a_whole(db: psycopg.Connection, socket: str, here: str) -> None:
    """pmpp.max_workers bounds the workers of a call, and every query runs."""
    db.execute("set pmpp.max_workers = 2")
    assert most(db, 2, {"connection": here}, {"connection": here}) == (12, 2)
    db.execute("set pmpp.max_workers = 1")
    alone, asks = {"connection": here}, {"connection": here, "num_workers": None}
    assert most(db, 1, *[alone] * 4, *[asks] * 4) == (48, 1)
    db.execute("set pmpp.on_error = 'continue'")
    broken = {"connection": "host=127.0.0.1 port=1"}
    lost = {
        "connection": here,
        "queries": ["select pg_terminate_backend(pg_backend_pid())::int"] * 2,
    }
    unset = {"connection": here, "setup_commands": ["select 1/0"]}
    assert most(db, 1, broken, lost, {"connection": here}, unset, broken) == (6, 1)


@pytest.fixture(scope="module")
def few_files() -> Iterator[psycopg.Connection]:
    """A session on a server that lets a process open few files, and take few connections."""
    settings = {"max_files_per_process": "130", "max_connections": "60"}
    with (
        Cluster(PG_CONFIG, settings=settings) as cluster,
        psycopg.connect(cluster.superuser(), autocommit=True) as conn,
    ):
        create_pmpp(cluster, "dblink")
        conn.execute(MEET)
        yield conn


def test_files_of_the_process(few_files: psycopg.Connection) -> None:
    """A call has no more connections than PostgreSQL lets the process have, and a warning says so."""
    got = notices(few_files)
    here = f"host={few_files.info.host} port={few_files.info.port} user=postgres dbname=postgres"
    many = {"connection": here, "num_workers": 50, "queries": ["select meet(20)"] * 60}
    assert most(few_files, 20, many)[0] == 60
    ((severity, message, _, hint),) = got
    found = re.fullmatch(r"the call goes on with (\d+) connections", str(message))
    assert (severity, bool(found)) == ("WARNING", True)
    assert "max_files_per_process" in str(hint)
    limit = int(found[1]) if found else 0
    assert 20 <= limit <= 130 // 3
    many["queries"] = [f"select meet({limit})"] * 60
    assert most(few_files, limit, many) == (60, limit)
    # Those of dblink count too, and those of a call that has ended do not. Since PostgreSQL 17,
    # dblink needs another file while it connects.
    for number in range(limit - 2):
        few_files.execute("select dblink_connect(%s, %s)", [f"c{number}", here])
    many["queries"] = ["select meet(2)"] * 5
    assert most(few_files, 2, many) == (5, 2)
    assert got[-1][:2] == ("WARNING", "the call goes on with 2 connections")
    many["queries"] = [f"select meet({limit})"] * 60
    few_files.execute("select dblink_disconnect(c) from unnest(dblink_get_connections()) c")
    assert most(few_files, limit, many) == (60, limit)


def test_more_items_than_the_server_takes(few_files: psycopg.Connection) -> None:
    """Where a server has no connection left, the hint names the settings that help."""
    here = f"host={few_files.info.host} port={few_files.info.port} user=postgres dbname=postgres"
    waiting, manifest = (
        Jsonb([{"connection": here, "query": query}] * 30)
        for query in ("select meet(31)", "select 1")
    )
    few_files.execute("select setval('arrivals', 1, false)")
    call = "select count(*) from pmpp.distribute(null::int, %s)"
    with few_slots(few_files):
        with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection) as raised:
            few_files.execute(call, [waiting])
        for setting in ("pmpp.max_workers", "pmpp.connect_retries"):
            assert setting in str(raised.value.diag.message_hint)
        few_files.execute("set pmpp.max_workers = 5")
        assert few_files.execute(call, [manifest]).fetchall() == [(30,)]
        few_files.execute("reset pmpp.max_workers; set pmpp.connect_retries = 20")
        assert few_files.execute(call, [manifest]).fetchall() == [(30,)]


@contextmanager
def few_slots(conn: psycopg.Connection) -> Iterator[None]:
    """Leave ten connections of the server."""
    with ExitStack() as stack:
        for _ in range(49):
            stack.enter_context(psycopg.connect(conn.info.dsn))
        yield


def test_who_may_write_it(db: psycopg.Connection, connect: Connect, new_role: NewRole) -> None:
    """Members of pmpp can read the table, its owner can write it, and others can do neither."""
    db.execute(LIMIT, ["db1", 3])
    member, stranger = connect(user=new_role()), connect(user=new_role(member=False))
    assert member.execute("select * from pmpp.connection_limit").fetchall() == [("db1", 3)]
    for change in ("update pmpp.connection_limit set max_workers = 9", "delete from pmpp.connection_limit",
                   "insert into pmpp.connection_limit values ('*', 9)"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            member.execute(change)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute("select * from pmpp.connection_limit")
    for wrong in (-1, None):
        with pytest.raises(psycopg.errors.IntegrityError):
            db.execute(LIMIT, ["db2", wrong])


def test_dump(db: psycopg.Connection, cluster: Cluster, here: str) -> None:
    """pg_dump keeps the limits, and they are there after it is restored."""
    db.execute(LIMIT, ["db1", 3])
    dump = subprocess.run(
        [cluster.bindir / "pg_dump", here], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    db.execute("create database restored")
    restored = f"{here} dbname=restored"
    subprocess.run([cluster.bindir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", restored], input=dump, text=True,
                   stdout=subprocess.DEVNULL, check=True)  # fmt: skip
    with psycopg.connect(restored) as conn:
        assert conn.execute("select * from pmpp.connection_limit").fetchall() == [("db1", 3)]
    db.execute("drop database restored")
