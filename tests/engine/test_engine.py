"""The engine outside of a server, with whichever libpq the environment brings."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import psycopg
import pytest
from cluster import Cluster
from helpers import eventually, manifest_entry, wait_until, workers_of
from pmpp.core.interrupts import Interrupts
from pmpp.core.limits import Bound, Limiter, Limits
from pmpp.core.literals import as_rows
from pmpp.core.manifest import parse
from pmpp.core.notices import Notice
from pmpp.core.settings import Settings
from pmpp.core.target import Address
from pmpp.errors import PmppError
from pmpp.remote.policy import Caller, from_string
from pmpp.remote.results import Reader
from pmpp.remote.value_format import has_other_dates
from pmpp.scheduler.engine import Delivery, Engine

SUPERUSER = Caller("postgres", True, 42, Address("/nowhere", "1"))
SETTINGS = Settings()
NO_LIMITS = Limits()


class Interrupted(Exception):
    """What the server would raise for a cancel."""


def engine(
    *items: Mapping[str, object],
    settings: Settings = SETTINGS,
    limits: Limits = NO_LIMITS,
    check_interrupts: Callable[[], None] = lambda: None,
    on_notice: Callable[[Notice], None] = lambda notice: None,
) -> Engine:
    manifest = parse([manifest_entry(**item) for item in items], Interrupts(check_interrupts))
    targets = [from_string("item", item.connection, SUPERUSER) for item in manifest]
    return Engine(manifest, targets, settings, limits, check_interrupts, on_notice)


def rows(deliveries: Iterator[Delivery]) -> list[str]:
    return [
        row
        for delivery in deliveries
        for batch in Reader(delivery.encoding).batches(delivery.part, as_rows)
        for row in batch
        if row is not None
    ]


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 299, 300, 301, 320, 5000])
def test_every_row_comes_once(here: str, count: int, result_format: str | None) -> None:
    """The engine delivers every row once, however many rows there are and however large its batches."""
    run = engine(
        {
            "connection": here,
            "queries": [f"select generate_series(1, {count})"] * 3,
            "num_workers": 2,
            "result_format": result_format,
        },
    ).run()
    assert sorted(rows(run)) == sorted(3 * [f'("{n}")' for n in range(1, count + 1)])


def test_rows_of_every_width(here: str) -> None:
    """The engine delivers short and long rows, and adapts its batches to them."""
    query = "select repeat('x', n * n * 100) from generate_series(1, 100) n"
    run = engine({"connection": here, "queries": [query]}).run()
    assert [len(row) - 4 for row in rows(run)] == [n * n * 100 for n in range(1, 101)]


def test_many_queries(here: str) -> None:
    """The queue serves far more queries than there are connections."""
    queries = [f"select {n}" for n in range(20000)]
    run = engine({"connection": here, "queries": queries, "num_workers": 3}).run()
    assert sorted(rows(run)) == sorted(f'("{n}")' for n in range(20000))


def test_nothing_is_left(here: str, db: psycopg.Connection) -> None:
    """The engine closes every descriptor and session, after a run and after a failure."""
    before = os.listdir("/proc/self/fd")
    rows(engine({"connection": here, "queries": ["select 1"] * 5, "num_workers": 3}).run())
    failing = {"connection": here, "queries": ["select pg_sleep(100)", "x"], "num_workers": 2}
    with pytest.raises(PmppError, match="syntax error"):
        rows(engine(failing).run())
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_consumer_stops(here: str, cluster: Cluster) -> None:
    """When the consumer stops, the engine cancels what runs and closes the connections."""
    queries = ["select 1", "select pg_sleep(100)"]
    run = engine({"connection": here, "queries": queries, "num_workers": 2}).run()
    next(run)
    run.close()
    eventually(cluster, f"not exists ({workers_of(42)})")


def test_interrupt(here: str, cluster: Cluster) -> None:
    """An interrupt ends the run at once, and the engine cancels the queries on the remote servers."""
    deadline = time.monotonic() + 0.3

    def check_interrupts() -> None:
        if time.monotonic() > deadline:
            raise Interrupted

    run = engine(
        {"connection": here, "queries": ["select pg_sleep(100)"] * 20, "num_workers": 20},
        check_interrupts=check_interrupts,
    ).run()
    with pytest.raises(Interrupted):
        rows(run)
    # Without the interrupt the run would take 100 s.
    assert time.monotonic() < deadline + 10
    eventually(cluster, f"not exists ({workers_of(42)})")


def test_cancel_request_reaches_the_server(here: str, db: psycopg.Connection) -> None:
    """Queries end by a cancel request, not only because their client is gone."""
    db.execute("create table witness (sqlstate text)")
    query = """
        do $$ begin
            perform pg_sleep(100);
        exception when query_canceled then
            insert into witness values (sqlstate);
        end $$
    """
    fail_when_it_sleeps = """
        do $$ begin
            while not exists (select from pg_stat_activity
                               where wait_event = 'PgSleep' and query ~ 'into witness' and pid <> pg_backend_pid())
            loop
                perform pg_sleep(0.01), pg_stat_clear_snapshot();
            end loop;
            perform 1/0;
        end $$
    """
    setup = ["set client_connection_check_interval to 0"]
    item = {"connection": here, "queries": [query, fail_when_it_sleeps],
            "num_workers": 2, "setup_commands": setup}  # fmt: skip
    with pytest.raises(PmppError, match="division by zero"):
        rows(engine(item).run())
    wait_until(lambda: db.execute("select from witness").fetchall(), "the query was cancelled")


def test_connect_timeout(here: str) -> None:
    """A listener that never answers is an error after connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        dsn = f"host=127.0.0.1 port={port} connect_timeout=1"
        with pytest.raises(PmppError, match="could not connect to") as raised:
            rows(engine({"connection": dsn, "queries": ["select 1"]}).run())
    assert raised.value.detail == "127.0.0.1 did not answer within 1 s"
    assert raised.value.sqlstate == "08001"


def test_next_host_is_tried(cluster: object, here: str) -> None:
    """The engine tries the next host after connect_timeout if a host does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        parameters = psycopg.conninfo.conninfo_to_dict(here)
        dsn = psycopg.conninfo.make_conninfo(
            here,
            host=f"127.0.0.1,{parameters['host']}",
            port=f"{port},{parameters['port']}",
            connect_timeout=1,
        )
        assert rows(engine({"connection": dsn, "queries": ["select 1"]}).run()) == ['("1")']


@pytest.mark.parametrize(
    "settings",
    [
        ["datestyle to 'German'"],
        ["datestyle to 'SQL, DMY'"],
        ["bytea_output to 'escape'", "timezone to 'Asia/Kathmandu'"],
        ["client_encoding to 'latin1'", "extra_float_digits to -15"],
    ],
)
def test_values_are_written_as_we_read_them(
    here: str, db: psycopg.Connection, settings: Sequence[str]
) -> None:
    """Settings of the remote database do not change the values that arrive."""
    for setting in settings:
        db.execute(f'alter database "{db.info.dbname}" set {setting}')
    query = """
        select date '2020-02-03', 'äöü', 0.1::float8 + 0.2::float8,
               timestamptz '2020-02-03 04:05:06+00' = '2020-02-03 04:05:06+00'
    """
    (row,) = rows(engine({"connection": here, "queries": [query]}).run())
    assert row.startswith('("2020-02-03","äöü",')


@pytest.mark.parametrize("style", ["ISO, DMY", "German", "SQL, DMY", "SQL, MDY", "Postgres"])
@pytest.mark.parametrize("type", ["date", "timestamp", "timestamptz"])
def test_dates_of_another_session(db: psycopg.Connection, style: str, type: str) -> None:
    """pmpp sees whether dates are in ISO style, since a session behind a pooler may have another."""
    db.execute(f"set datestyle to '{style}'")
    values = "(null), ('-infinity'), ('2020-02-03'), ('10000-01-01')"
    cursor = db.execute(f"select v::{type} from (values {values}) v(v)")
    assert cursor.pgresult is not None
    assert has_other_dates(cursor.pgresult, 0) == (not style.startswith("ISO"))


def test_client_encoding_of_a_setup_command(here: str) -> None:
    """A setup command may choose another encoding; text still arrives right."""
    item = {"connection": here, "queries": ["select 'äöü', 'x'"],
            "setup_commands": ["set client_encoding to latin1"]}  # fmt: skip
    assert rows(engine(item).run()) == ['("äöü","x")']


def test_query_that_the_client_encoding_lacks(here: str) -> None:
    """A query that cannot be sent in the chosen encoding is an error and not garbled."""
    item = {"connection": here, "queries": ["select '€'"],
            "setup_commands": ["set client_encoding to latin1"]}  # fmt: skip
    with pytest.raises(PmppError, match="characters that client_encoding") as raised:
        rows(engine(item).run())
    assert raised.value.sqlstate == "22P05"


def test_queries_go_on_while_a_result_is_consumed(db: psycopg.Connection, here: str) -> None:
    """A consumer that takes its time lets the connection run one query after the other."""
    db.execute("create table seen (n int)")
    queries = [f"insert into seen values ({n}) returning n" for n in (1, 2, 3)]
    busy = engine({"connection": here, "queries": queries, "num_workers": 1})
    run = busy.run()
    next(run)

    def are_all_seen() -> bool:
        busy.go_on()
        return db.execute("select count(*) from seen").fetchall() == [(3,)]

    wait_until(are_all_seen, "all queries have run")
    assert rows(run) == ['("2")', '("3")']


def test_notices(here: str) -> None:
    """The engine delivers a notice with all its fields, which libpq frees soon after."""
    notices: list[Notice] = []
    query = "do $$ begin raise warning 'w' using detail = 'd', hint = 'h'; raise notice 'n'; end $$"
    engine_run = engine({"connection": here, "queries": [query]}, on_notice=notices.append).run()
    assert [delivery.part.result.command_status for delivery in engine_run] == [b"DO"]
    where = f"Query 1 of item 1 on {here.removesuffix(' user=postgres')}: {query}"
    assert notices == [
        Notice("WARNING", "w", f"d\n{where}", "h", "01000"),
        Notice("NOTICE", "n", where, None, "00000"),
    ]


def test_notices_before_an_error(here: str) -> None:
    """The engine delivers the notices that a remote server sends together with an error."""
    notices: list[Notice] = []
    query = "do $$ begin raise notice 'n'; raise exception 'e'; end $$"
    with pytest.raises(PmppError, match=r"^e$"):
        rows(engine({"connection": here, "queries": [query]}, on_notice=notices.append).run())
    where = f"Query 1 of item 1 on {here.removesuffix(' user=postgres')}: {query}"
    assert notices == [Notice("NOTICE", "n", where, None, "00000")]


def test_high_file_descriptors(here: str) -> None:
    """The engine uses descriptors above 1,024, which select() cannot watch."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
    low = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert max(low) > 1024
        run = engine({"connection": here, "queries": ["select 1"] * 20, "num_workers": 5}).run()
        assert rows(run) == ['("1")'] * 20
        failing = {"connection": here, "queries": ["select pg_sleep(100)", "x"], "num_workers": 2}
        with pytest.raises(PmppError, match="syntax error"):
            rows(engine(failing).run())
    finally:
        for descriptor in low:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("result_format", [None, "text"])
def test_held_results_are_bounded(here: str, result_format: str | None) -> None:
    """The bound on a buffered result counts all its rows, also where libpq delivers chunks."""
    query = "select generate_series(1, 1000000)"
    run = engine(
        {"connection": here, "queries": [query], "result_format": result_format},
        settings=Settings(on_error="continue", max_result_size=1_000_000),
    )
    with pytest.raises(PmppError, match=r"larger than pmpp\.max_result_size"):
        rows(run.run())


@pytest.mark.parametrize("limits", [Limits(), Limits({"*": 3})])
def test_many_items(here: str, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items there are, the end of a connection has pmpp look at few of them."""
    asked: list[int] = []
    acquire = Limiter.acquire

    def counted(limiter: Limiter, item: int) -> Bound | None:
        asked.append(item)
        return acquire(limiter, item)

    monkeypatch.setattr(Limiter, "acquire", counted)
    items = [{"connection": here, "queries": ["select 1"], "num_workers": 1}] * 60
    run = engine(*items, settings=SETTINGS._replace(max_workers=5), limits=limits)
    assert len(rows(run.run())) == len(items)
    assert len(asked) <= 4 * len(items)
