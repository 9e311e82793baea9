"""Host names: all are resolved at the same time, and nothing waits for a silent name server."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, TRUST, create_pmpp, eventually, wait_until
from name_server import NameServer, name_server
from psycopg import errors
from psycopg.types.json import Jsonb

CALL = "select * from pmpp.distribute(null::text, %s, array['select host(inet_server_addr())'], num_workers => 1)"
MANY = "select * from pmpp.distribute(null::text, %s)"
SILENT = "host=db.silent dbname=postgres user=postgres"

# What PostgreSQL sends to its processes.
SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
           signal.SIGALRM, signal.SIGTERM, signal.SIGURG}  # fmt: skip

ADDRESSES = {
    "four.test": ["127.0.0.1"],
    "six.test": ["::1"],
    "both.test": ["127.0.0.1", "::1"],
    "second.test": ["127.0.0.9", "127.0.0.8", "127.0.0.1"],
    "nothing.test": ["127.0.0.9"],
    "none.test": [],
}


@dataclass
class Place:
    """A server whose only name server is one of the tests."""

    server: Cluster
    names: NameServer

    def at(self, host: str, **params: object) -> str:
        """A connection string that leads from the server to a host, at its own port."""
        there = {"host": host, "port": self.server.port, "user": "postgres",
                 "dbname": "postgres", **params}  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in there.items())


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The server, and the name server."""
    settings = {"listen_addresses": "127.0.0.1,::1"}
    with (
        name_server(ADDRESSES) as names,
        Cluster(
            PG_CONFIG,
            settings=settings,
            hba=[TRUST, "host all all ::1/128 trust"],
            entering=names.entering,
        ) as server,
    ):
        create_pmpp(server)
        yield Place(server, names)


@pytest.fixture
def session(place: Place) -> Iterator[psycopg.Connection]:
    """A session on it. A call that nothing ends in time fails."""
    with psycopg.connect(place.server.superuser(), autocommit=True) as conn:
        conn.execute("set statement_timeout to '20s'")
        yield conn


@contextmanager
def running(session: psycopg.Connection, call: str, *arguments: object) -> Iterator[None]:
    """A call that goes on until the end of the block, and is cancelled then."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.execute, call, arguments)
        try:
            yield
        finally:
            session.cancel()
            with pytest.raises(errors.QueryCanceled, match="user request"):
                running.result()


def threads(conn: psycopg.Connection) -> dict[int, set[int]]:
    """Return the signals that each thread of a server process has blocked, by its id."""
    blocked = {}
    for thread in Path(f"/proc/{conn.info.backend_pid}/task").iterdir():
        mask = int(re.findall(r"SigBlk:\s*(\w+)", (thread / "status").read_text())[0], 16)
        blocked[int(thread.name)] = {n for n in range(1, 32) if mask & 1 << (n - 1)}
    return blocked


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("four.test", {"127.0.0.1"}),
        ("six.test", {"::1"}),
        ("both.test", {"127.0.0.1", "::1"}),
        ("second.test", {"127.0.0.1"}),
        ("FOUR.test.", {"127.0.0.1"}),
        ("localhost", {"127.0.0.1"}),
        ("nothing.test,six.test", {"::1"}),
        ("unknown.test,four.test", {"127.0.0.1"}),
        ("four.test,db.silent", {"127.0.0.1"}),
        ("127.1", {"127.0.0.1"}),
    ],
)
@pytest.mark.parametrize("balance", ["disable", "random"])
def test_addresses(
    place: Place, session: psycopg.Connection, host: str, addresses: set[str], balance: str
) -> None:
    """pmpp tries all addresses of all hosts, as libpq does."""
    if host.endswith("silent") and balance == "random":
        return
    there = place.at(host, load_balance_hosts=balance)
    ((address,),) = session.execute(CALL, [there]).fetchall()
    assert address in addresses


@pytest.mark.parametrize(
    "host", ["unknown.test", "none.test", "with space", "x" * 300, "a..b", "ü"]
)
def test_no_address(session: psycopg.Connection, host: str) -> None:
    """One error names the host and says what the name server said."""
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        session.execute(CALL, [f"host='{host}' user=postgres"])
    assert (raised.value.diag.message_primary or "").startswith("item 1: could not connect to host")
    expected = f'could not translate host name "{host}" to address: '
    assert (raised.value.diag.message_detail or "").startswith(expected)


def test_each_name_once(place: Place, session: psycopg.Connection) -> None:
    """pmpp resolves a name once, however many connections lead to it."""
    before = len(place.names.questions())
    queries = ["select pg_sleep(0.01)::text"] * 8
    manifest = [{"connection": place.at(host), "queries": queries, "num_workers": 4}
                for host in ("four.test", "both.test", "four.test")]  # fmt: skip
    session.execute(MANY, [Jsonb(manifest)])
    asked = place.names.questions()[before:]
    assert sorted(asked) == sorted(
        f"{host} {record}" for host in ("four.test", "both.test") for record in ("A", "AAAA")
    )


def test_at_the_same_time(place: Place, session: psycopg.Connection) -> None:
    """pmpp sends the questions for all names before the first answer has come."""
    hosts = [f"shard{n}.silent" for n in range(30)]
    manifest = [{"connection": place.at(f"{h},{h}.x.silent"), "query": "select 'x'"} for h in hosts]
    with running(session, MANY, Jsonb(manifest)):
        wanted = {f"{name} A" for host in hosts for name in (host, f"{host}.x.silent")}
        wait_until(lambda: wanted <= {*place.names.questions()}, "every name is asked for")


def test_others_do_not_wait(place: Place, session: psycopg.Connection) -> None:
    """Connections whose host is known do their work while others wait for the name server."""
    session.execute("create table done (host text)")
    known = ["four.test", "localhost", "127.0.0.1", place.server.host, ""]
    manifest: list[dict[str, object]] = [
        {"connection": place.at(f"{n}.silent"), "query": "select 'x'"} for n in range(20)
    ]
    manifest += [{"connection": place.at(host or "''"), "num_workers": 1, "query":
                  f"insert into done values ('{host}') returning host"} for host in known]  # fmt: skip
    with running(session, MANY, Jsonb(manifest)):
        eventually(place.server, f"(select count(*) = {len(known)} from done)")
    session.execute("drop table done")


def test_timeout(place: Place, session: psycopg.Connection) -> None:
    """statement_timeout ends the wait, with PostgreSQL's own message."""
    session.execute("set statement_timeout to '300ms'")
    with pytest.raises(
        errors.QueryCanceled, match=r"^canceling statement due to statement timeout"
    ):
        session.execute(CALL, [SILENT])
    ((alive,),) = session.execute("select 1").fetchall()
    assert alive == 1


def test_connect_timeout(place: Place, session: psycopg.Connection) -> None:
    """connect_timeout bounds the wait for a name; the next host is tried then."""
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        session.execute(CALL, [f"{SILENT} connect_timeout=1"])
    assert raised.value.diag.message_detail == (
        'could not translate host name "db.silent" to address: no answer within 1 s'
    )
    there = place.at("db.silent,four.test", connect_timeout=1)
    assert session.execute(CALL, [there]).fetchall() == [("127.0.0.1",)]


def test_signals(place: Place, session: psycopg.Connection) -> None:
    """No signal that PostgreSQL sends can come to the thread, and all come to the process."""
    ((main, before),) = threads(session).items()
    with running(session, CALL, SILENT):
        wait_until(lambda: len(threads(session)) == 2, "a thread resolves the name")
        during = threads(session)
        assert during.pop(main) == before
        assert not before & (SIGNALS - {signal.SIGURG})  # PostgreSQL reads it from a descriptor
        (blocked,) = during.values()
        assert blocked == set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}


def test_threads_do_not_pile_up(place: Place, session: psycopg.Connection) -> None:
    """A call that needs a name which a thread is resolving already waits for that thread."""
    session.execute("set statement_timeout to '100ms'")
    for _ in range(20):
        with pytest.raises(errors.QueryCanceled):
            session.execute(CALL, [SILENT.replace("db.", "again.")])
    assert len(threads(session)) <= 2


def ends_its_session(conn: psycopg.Connection) -> None:
    conn.execute("set statement_timeout to '100ms'")
    with pytest.raises(errors.QueryCanceled):
        conn.execute(CALL, [SILENT])
    conn.close()


def is_terminated(conn: psycopg.Connection) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(conn.execute, CALL, [SILENT])
        wait_until(lambda: len(threads(conn)) == 2, "a thread resolves the name")
        with psycopg.connect(conn.info.dsn, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(errors.AdminShutdown):
            call.result()


@pytest.mark.parametrize("end", [ends_its_session, is_terminated])
def test_end_of_a_session(
    place: Place, session: psycopg.Connection, end: Callable[[psycopg.Connection], None]
) -> None:
    """A server process ends while its thread still waits, and the server goes on."""
    with psycopg.connect(place.server.superuser(), autocommit=True) as conn:
        pid = conn.info.backend_pid
        end(conn)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process has ended", within=2)
    # The session has survived.
    assert session.execute("select 1").fetchall() == [(1,)]


def test_garbage_is_collected_again(place: Place, session: psycopg.Connection) -> None:
    """Python collects garbage in the session as soon as no thread runs."""
    session.execute("create extension if not exists plpython3u")
    session.execute(
        "create or replace function collects() returns bool language plpython3u "
        "as 'import gc; return gc.isenabled()'"
    )
    assert session.execute(CALL, [place.at("four.test")]).fetchall() == [("127.0.0.1",)]
    wait_until(lambda: session.execute("select collects()").fetchall() == [(True,)], "it collects")
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection):
        session.execute(CALL, [f"{SILENT} connect_timeout=1"])
    assert session.execute("select collects()").fetchall() == [(False,)]


LIMIT = """
    create function pg_temp.limit_processes() returns void language plpython3u as
    'import resource; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))'
"""


def test_no_thread(place: Place, session: psycopg.Connection) -> None:
    """If the operating system permits no thread, pmpp raises an error and still connects to addresses."""
    session.execute("create extension if not exists plpython3u")
    session.execute(LIMIT)
    session.execute("select pg_temp.limit_processes()")
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as raised:
        session.execute(CALL, [place.at("limited.test")])
    assert raised.value.diag.message_detail == (
        'could not translate host name "limited.test" to address: can\'t start new thread'
    )
    assert session.execute(CALL, [place.at("127.0.0.1")]).fetchall() == [("127.0.0.1",)]
    assert session.execute("select 1").fetchall() == [(1,)]


def test_storm_of_signals(place: Place, session: psycopg.Connection) -> None:
    """A session with a thread gets its notifications, and a cancel ends the call."""
    session.execute("listen storm")
    with (
        psycopg.connect(place.server.superuser(), autocommit=True) as other,
        running(session, CALL, SILENT.replace("db.", "storm.")),
    ):
        wait_until(lambda: len(threads(session)) == 2, "a thread resolves the name")
        for number in range(200):
            other.execute("select pg_notify('storm', %s)", [str(number)])
    session.execute("select 1")
    got = [int(notification.payload) for notification in session.notifies(timeout=0)]
    assert got == list(range(200))
