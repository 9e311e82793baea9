"""Calls from where nobody can be waited for: its own threads, the end of a program, a fork."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from helpers import wait_until
from pmpp import ParallelConnection, ParallelCursor

PRELUDE = """
import sqlite3
from pmpp import ParallelConnection

def connect():
    return sqlite3.connect(":memory:", check_same_thread=False)

ROWS = "with recursive r(n) as (select 1 union all select n + 1 from r limit 20000) select n from r"
pdb = ParallelConnection([connect() for _ in range(3)])

def rows():
    with pdb.cursor() as cursor:
        cursor.execute(ROWS)
        while row := cursor.fetchone():
            yield row
"""

# What the garbage collector finds while a thread makes rows, it closes in that thread.
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
    """A program in which cursors are closed by the interpreter comes to its end."""
    command = [sys.executable, "-c", f"{PRELUDE}{body}\nprint('the end')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("the end\n", "")


def test_forked_process() -> None:
    """A forked process, which has no threads, is refused at once, also what another one uses."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    is_running = threading.Event()
    connection.create_function("tell", 0, is_running.set)
    endless = (
        "with recursive c(n) as (select tell() union all select 1 from c) select count(*) from c"
    )
    with ParallelConnection([connection]) as pdb:
        cursor = pdb.cursor()

        def use() -> None:
            with suppress(pdb.InterfaceError, sqlite3.OperationalError):
                cursor.execute(endless)

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
    """Leave blocks, then use it in every way; return how often that was refused, and one more."""
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
