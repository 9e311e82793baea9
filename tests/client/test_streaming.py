"""Rows come when they are there, memory is bounded, and threads and queries end."""

from __future__ import annotations

import gc
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psycopg
import psycopg2
import pytest
from client_shards import ALL_ROWS, Open
from cluster import Cluster
from helpers import eventually, wait_until
from pmpp import ParallelConnection

MB = 1024 * 1024


def threads() -> set[int | None]:
    """Return the threads that work for connections."""
    return {
        thread.ident
        for thread in threading.enumerate()
        if thread.name.startswith("ParallelConnection")
    }


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_slow_shard(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """While one of ten shards is held up, all rows of the others come, and their description."""
    held_up = "select 0 as shard, 0 as n from pg_advisory_xact_lock(1)"
    pdb = connect_shards(
        driver,
        prepare=lambda shard: (
            f"create temp view v as {held_up if shard == 0 else 'select * from t'}"
        ),
    )
    with psycopg.connect(dsns[0]) as conn, pdb.cursor(name="c") as cursor:
        conn.execute("select pg_advisory_xact_lock(1)")
        cursor.execute("select * from v")
        assert Counter(cursor.fetchmany(len(ALL_ROWS))) == Counter(ALL_ROWS)
        assert cursor.description is not None
        conn.rollback()
        assert cursor.fetchall() == [(0, 0)]


def test_rows_of_a_slow_query_come_early(connect_shards: Open) -> None:
    """A row does not wait for those that its connection has not worked out yet."""
    go_on = threading.Event()
    connections = [sqlite3.connect(":memory:", check_same_thread=False) for _ in range(2)]
    for connection in connections:
        connection.create_function("f", 1, lambda n: n if n < 5 else go_on.wait(30) and n)
    counting = "with recursive c(n) as (select 1 union all select n + 1 from c limit 5)"
    with ParallelConnection(connections) as pdb:
        cursor = pdb.cursor().execute(f"{counting} select f(n) from c")
        assert sorted(cursor.fetchmany(6)) == [(1,), (1,), (2,), (2,), (3,), (3,)]
        go_on.set()
        assert sorted(cursor) == [(4,), (4,), (5,), (5,)]


@pytest.mark.parametrize(("max_threads", "expected"), [(None, 10), (3, 3), (50, 10)])
def test_threads(connect_shards: Open, max_threads: int | None, expected: int) -> None:
    """They are started once, as many as connections or as allowed, and end with close."""
    before = threads()
    pdb = connect_shards("sqlite3", max_threads=max_threads)
    started = threads() - before
    assert len(started) == expected
    for _ in range(5):
        assert len(pdb.cursor().execute("select shard, n from t").fetchall()) == len(ALL_ROWS)
        assert threads() - before == started
    pdb.close()
    assert not threads() - before


def test_threads_of_what_was_forgotten(files: list[Path]) -> None:
    """Threads end with an object that nobody has closed."""
    before = set(threading.enumerate())
    connections = [sqlite3.connect(file, check_same_thread=False) for file in files]
    cursor = ParallelConnection(connections).cursor()
    cursor.execute("select shard, n from t")
    cursor.fetchone()
    started = set(threading.enumerate()) - before
    assert len(started) == 10
    del cursor
    gc.collect()
    for thread in started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in started)
    for connection in connections:
        connection.close()


# The connection that is forgotten here is not closed, and newer versions of Python warn of that.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_threads_of_what_a_connection_leads_to() -> None:
    """Threads also end if a connection refers to the object that was dropped."""

    class Store:
        def __init__(self) -> None:
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            connection.set_trace_callback(self.log)
            self.pdb = ParallelConnection([connection])

        def log(self, statement: str) -> None:
            pass

    before = threads()
    Store()
    gc.collect()
    wait_until(lambda: threads() <= before, "the thread has ended")


def test_queries_of_what_was_forgotten(cluster: Cluster, dsns: list[str]) -> None:
    """Rows that are fetched ahead for nobody are not worked out to the end."""
    connections = [psycopg2.connect(dsn) for dsn in dsns[:3]]
    cursor = ParallelConnection(connections).cursor(name="c")
    cursor.execute("select 1 union all select 2 from pg_sleep(100)")
    assert cursor.fetchmany(3) == [(1,)] * 3
    running = "select from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'"
    eventually(cluster, f"(select count(*) from ({running}) _) = 3")
    del cursor
    gc.collect()
    eventually(cluster, f"not exists ({running})")
    for connection in connections:
        connection.close()


def test_results_of_what_was_forgotten() -> None:
    """A cursor that nobody has closed holds its result no longer than the program holds it."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    gc.disable()
    try:
        with ParallelConnection([connection], max_threads=1) as pdb:
            cursor = pdb.cursor().execute("create table t as select 1 as n union select 2")
            cursor.execute("insert into t select n from t")
            pdb.commit()
            pdb.cursor().execute("select n from t").fetchone()
            cursor.execute("drop table t")  # which SQLite refuses while a result is open
    finally:
        gc.enable()


# Is given connection strings, a driver, the name of a cursor or null, and a query.
PRELUDE = """
import importlib, json, sys, threading
from pmpp import ParallelConnection

dsns, driver, name, query = json.loads(sys.argv[1])
driver = importlib.import_module(driver)
pdb = ParallelConnection([driver.connect(dsn) for dsn in dsns])
cursor = pdb.cursor(name) if name else pdb.cursor()
"""


def script(body: str, *arguments: object) -> list[str]:
    """Return a command that runs a program after PRELUDE."""
    return [sys.executable, "-c", PRELUDE + body, json.dumps(arguments)]


# Prints how many rows there are, and by how many bytes fetching them one by one raises the peak.
MEASURE = """
def peak():  # not that of getrusage, which begins with that of the parent process
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024

cursor.execute(query)
cursor.fetchone()
before, count = peak(), 1
for row in cursor:
    count += 1
cursor.close()
pdb.close()
print(count, peak() - before)
"""


def measure(dsns: list[str], driver: str, query: str) -> tuple[int, int]:
    """Return what MEASURE prints for a query with server-side cursors."""
    command = script(MEASURE, dsns, driver, "c", query)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    count, grown = map(int, printed.split())
    return count, grown


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_memory_is_bounded(dsns: list[str], driver: str) -> None:
    """A million rows of server-side cursors on ten shards take 16 MB at most."""
    query = "select n, repeat('x', 100) from generate_series(1, 100000) n"
    count, grown = measure(dsns, driver, query)
    assert count == 1_000_000
    assert grown < 16 * MB


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    ["repeat('x', {})", "decode(repeat('61', {}), 'hex')", "json_build_array(repeat('x', {}))"],
    ids=["text", "bytea", "json"],
)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_memory_of_wide_rows(dsns: list[str], driver: str, value: str) -> None:
    """Fewer of them are fetched at a time: 160 MB on four shards take 24 MB at most."""
    query = f"select n, {value.format(200_000)} from generate_series(1, 200) n"
    count, grown = measure(dsns[:4], driver, query)
    assert count == 800
    assert grown < 24 * MB


class CountingCursor(sqlite3.Cursor):
    """Counts how often rows are asked for."""

    calls = 0

    def fetchmany(self, size: int | None = 1) -> list[object]:
        type(self).calls += 1
        return super().fetchmany(size)


def test_rows_that_hold_their_cursor() -> None:
    """What a row refers to, besides its values, does not make it wide."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.row_factory = lambda cursor, values: SimpleNamespace(cursor=cursor, values=values)
    query = (
        "with recursive r(n) as (select 1 union all select n + 1 from r limit 3000) select n from r"
    )
    with ParallelConnection([connection]) as pdb:
        rows = pdb.cursor(CountingCursor).execute(query).fetchall()
    assert [row.values for row in rows] == [(n,) for n in range(1, 3001)]
    assert CountingCursor.calls < 100


def test_program_that_closes_nothing(dsns: list[str]) -> None:
    """A program may end without closing, also while a query runs."""
    body = """
try:
    cursor.execute("select 1")
    cursor.fetchone()
    cursor.execute(query, timeout=0.2)
except TimeoutError:
    print("the end")
"""
    command = script(body, dsns, "psycopg", None, "select pg_sleep(100)")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout == "the end\n"


@pytest.mark.parametrize("name", [None, "c"], ids=["execute", "fetch"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_interrupt(cluster: Cluster, dsns: list[str], driver: str, name: str | None) -> None:
    """Ctrl-C in a long query cancels it everywhere and leaves no thread behind."""
    body = """
try:
    cursor.execute(query)
    cursor.fetchall()
except KeyboardInterrupt:
    pdb.rollback()
    with pdb.cursor() as again:
        print(len(again.execute("select 1").fetchall()))
    pdb.close()
    print(threading.active_count())
"""
    command = script(body, dsns, driver, name, "select 'interrupt me', pg_sleep(100)")
    running = "select from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            eventually(cluster, f"(select count(*) from ({running}) _) = {len(dsns)}")
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=60) == ("10\n1\n", "")
        finally:
            child.kill()
    eventually(cluster, f"not exists ({running})")
