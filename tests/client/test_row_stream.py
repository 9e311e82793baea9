"""Rows come when they are there, and memory is bounded."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections import Counter
from types import SimpleNamespace

import psycopg
import pytest
from client_shards import ALL_ROWS, Open, counting, memory_database, on_each_postgres, script, view
from pmpp import ParallelConnection

MB = 1024 * 1024


@on_each_postgres
def test_slow_shard(connect_shards: Open, dsns: list[str], driver: str) -> None:
    """While one of ten shards waits for a lock, all rows of the others come."""
    held_up = "select 0 as shard, 0 as n from pg_advisory_xact_lock(1)"
    pdb = connect_shards(
        driver,
        prepare=view({0: held_up}),
    )
    with psycopg.connect(dsns[0]) as conn, pdb.cursor(name="c") as cursor:
        conn.execute("select pg_advisory_xact_lock(1)")
        cursor.execute("select * from v")
        assert Counter(cursor.fetchmany(len(ALL_ROWS))) == Counter(ALL_ROWS)
        assert cursor.description is not None
        conn.rollback()
        assert cursor.fetchall() == [(0, 0)]


def test_rows_of_a_slow_query_come_early(connect_shards: Open) -> None:
    """A row does not wait for later rows of its connection."""
    go_on = threading.Event()
    connections = [memory_database() for _ in range(2)]
    for connection in connections:
        connection.create_function("f", 1, lambda n: n if n < 5 else go_on.wait(30) and n)
    with ParallelConnection(connections) as pdb:
        cursor = pdb.cursor().execute(counting("f(n)", 5))
        assert sorted(cursor.fetchmany(6)) == [(1,), (1,), (2,), (2,), (3,), (3,)]
        go_on.set()
        assert sorted(cursor) == [(4,), (4,), (5,), (5,)]


# Prints the number of rows, and by how many bytes fetching them one by one raises the peak of memory.
MEASURE = """
def peak():
    # The peak of getrusage begins with that of the parent process.
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
@on_each_postgres
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
@on_each_postgres
def test_memory_of_wide_rows(dsns: list[str], driver: str, value: str) -> None:
    """Wide rows make batches small: 160 MB on four shards take 24 MB at most."""
    query = f"select n, {value.format(200_000)} from generate_series(1, 200) n"
    count, grown = measure(dsns[:4], driver, query)
    assert count == 800
    assert grown < 24 * MB


class CountingCursor(sqlite3.Cursor):
    """A cursor that counts the calls of fetchmany."""

    calls = 0

    def fetchmany(self, size: int | None = 1) -> list[object]:
        type(self).calls += 1
        return super().fetchmany(size)


def test_rows_that_hold_their_cursor() -> None:
    """Objects that a row refers to, besides its values, do not count as its size."""
    connection = memory_database()
    connection.row_factory = lambda cursor, values: SimpleNamespace(cursor=cursor, values=values)
    with ParallelConnection([connection]) as pdb:
        rows = pdb.cursor(CountingCursor).execute(counting("n", 3000)).fetchall()
    assert [row.values for row in rows] == [(n,) for n in range(1, 3001)]
    assert CountingCursor.calls < 100
