"""How many worker threads there are, when they end, and calls where they cannot be waited for."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from client_shards import ALL_ROWS, ROWS, Open, counting, memory_database, script, wait_for_sleeping
from cluster import Cluster
from helpers import wait_until
from pmpp import ParallelConnection, ParallelCursor


def threads() -> set[int | None]:
    """Return the worker threads."""
    return {
        thread.ident
        for thread in threading.enumerate()
        if thread.name.startswith("ParallelConnection")
    }


@pytest.mark.parametrize(("max_threads", "expected"), [(None, 10), (3, 3), (50, 10)])
def test_threads(connect_shards: Open, max_threads: int | None, expected: int) -> None:
    """There are as many threads as connections, or max_threads, and close ends them."""
    before = threads()
    pdb = connect_shards("sqlite3", max_threads=max_threads)
    started = threads() - before
    assert len(started) == expected
    for _ in range(5):
        assert len(pdb.cursor().execute(ROWS).fetchall()) == len(ALL_ROWS)
        assert threads() - before == started
    pdb.close()
    assert not threads() - before


def test_threads_of_what_was_forgotten(files: list[Path]) -> None:
    """Threads end when an object that nobody has closed is garbage."""
    before = set(threading.enumerate())
    connections = [sqlite3.connect(file, check_same_thread=False) for file in files]
    cursor = ParallelConnection(connections).cursor()
    cursor.execute(ROWS)
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


# Newer versions of Python warn that nobody closes the connection.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_threads_of_what_a_connection_leads_to() -> None:
    """Threads end even if a connection refers to the object."""

    class Store:
        def __init__(self) -> None:
            connection = memory_database()
            connection.set_trace_callback(self.log)
            self.pdb = ParallelConnection([connection])

        def log(self, statement: str) -> None:
            pass

    before = threads()
    Store()
    gc.collect()
    wait_until(lambda: threads() <= before, "the thread has ended")


def test_queries_of_what_was_forgotten(cluster: Cluster, dsns: list[str]) -> None:
    """pmpp cancels the query of a cursor that is garbage."""
    connections = [psycopg2.connect(dsn) for dsn in dsns[:3]]
    cursor = ParallelConnection(connections).cursor(name="c")
    cursor.execute("select 1 union all select 2 from pg_sleep(100)")
    assert cursor.fetchmany(3) == [(1,)] * 3
    wait_for_sleeping(cluster, 3)
    del cursor
    gc.collect()
    wait_for_sleeping(cluster, 0)
    for connection in connections:
        connection.close()


def test_results_of_what_was_forgotten() -> None:
    """The result of a cursor that nobody has closed ends with the last reference to the cursor."""
    connection = memory_database()
    gc.disable()
    try:
        with ParallelConnection([connection], max_threads=1) as pdb:
            cursor = pdb.cursor().execute("create table t as select 1 as n union select 2")
            cursor.execute("insert into t select n from t")
            pdb.commit()
            pdb.cursor().execute("select n from t").fetchone()
            # SQLite refuses this while a result is open.
            cursor.execute("drop table t")
    finally:
        gc.enable()


PRELUDE = f"""
import sqlite3
from pmpp import ParallelConnection

def connect():
    return sqlite3.connect(":memory:", check_same_thread=False)

ROWS = "{counting("n", 20000)}"
pdb = ParallelConnection([connect() for _ in range(3)])

def rows():
    with pdb.cursor() as cursor:
        cursor.execute(ROWS)
        while row := cursor.fetchone():
            yield row
"""

# The garbage collector runs in a worker thread here, and closes a cursor in it.
COLLECTED = """
class Report:
    def __init__(self):
        self.rows = self.read()
    def read(self):
        self.me = self
        yield from rows()

for _ in range(50):
    next(Report().rows)
    with pdb.cursor() as cursor:
        assert len(cursor.execute(ROWS).fetchall()) == 60000
pdb.close()
"""

LEFT_OPEN = """
some = rows()
next(some)
"""

WITH_FINALIZER = """
class Report:
    def __init__(self):
        self.cursor = pdb.cursor().execute(ROWS)
        self.cursor.fetchone()
    def __del__(self):
        self.cursor.close()

report = Report()
"""


@pytest.mark.parametrize(
    "body", [COLLECTED, LEFT_OPEN, WITH_FINALIZER], ids=["collected", "left open", "finalizer"]
)
def test_program_ends(body: str) -> None:
    """A program whose cursors the interpreter closes comes to its end."""
    command = [sys.executable, "-c", f"{PRELUDE}{body}\nprint('the end')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("the end\n", "")


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


def test_forked_process() -> None:
    """Every use in a forked process is an error at once, also while the parent process waits."""
    connection = memory_database()
    is_running = threading.Event()
    connection.create_function("signal_start", 0, is_running.set)
    with ParallelConnection([connection]) as pdb:
        cursor = pdb.cursor()

        def use() -> None:
            with suppress(pdb.InterfaceError, sqlite3.OperationalError):
                cursor.execute(counting("count(signal_start())"))

        thread = threading.Thread(target=use)
        thread.start()
        wait_until(is_running.is_set, "the statement runs")
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(_refused_in_child(pdb, cursor))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        pdb.rollback()
        thread.join()
        assert cursor.execute("select 1").fetchall() == [(1,)]


def _refused_in_child(pdb: ParallelConnection, cursor: ParallelCursor) -> int:
    """Leave `with` blocks, use the objects, and return the number of refusals plus one."""
    with suppress(SystemExit), pdb, cursor:
        sys.exit()
    refused = 1
    for use in (
        pdb.cursor,
        pdb.rollback,
        lambda: cursor.execute("select 1"),
        cursor.fetchone,
        cursor.close,
        pdb.close,
    ):
        try:
            use()
        except pdb.InterfaceError:
            refused += 1
    return refused
