"""Eight databases behind a ParallelConnection, and other ways to query them all."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import psycopg2
from testbed import Bench, Run

SHARDS = 8
QUERY = "select n, md5(n::text) from t where n % 100 = 0"

# On PyPI; what ParallelConnection took its interface from.
OLDER_PACKAGE = "parallel_connection"


def contenders(bench: Bench) -> dict[str, Run]:
    """Return contenders who query all shards and must return the same rows.

    They have the same connections, of psycopg2: the older package was written for that driver.
    The shards are made when they are first queried.
    """

    @cache
    def connections() -> Sequence[Any]:
        return _create_shards(bench, rows=bench.scaled(500_000))

    @cache
    def together(module: str) -> Any:
        return importlib.import_module(module).ParallelConnection(connections())

    def one_after_the_other() -> list[Any]:
        return [row for connection in connections() for row in _ask(connection)]

    @cache
    def expected() -> Counter[Any]:
        return Counter(one_after_the_other())

    def timed(way: Callable[[], list[Any]]) -> float:
        started = time.perf_counter()
        rows = way()
        elapsed = time.perf_counter() - started
        if Counter(map(tuple, rows)) != expected():
            raise RuntimeError("other rows than one shard after the other")
        return elapsed

    found = {
        "ParallelConnection": lambda: timed(lambda: _ask(together("pmpp"))),
        "one shard after the other": lambda: timed(one_after_the_other),
    }
    if find_spec(OLDER_PACKAGE):
        module = f"{OLDER_PACKAGE}.{OLDER_PACKAGE}"
        found["the package parallel-connection"] = lambda: timed(lambda: _ask(together(module)))
    return found


def _create_shards(bench: Bench, rows: int) -> Sequence[Any]:
    """Make a database with that many rows for each shard; return connections to them."""
    shards = [f"shard_{number}" for number in range(SHARDS)]
    for shard in shards:
        bench.conn.execute(f"create database {shard}")
    connections = [psycopg2.connect(bench.cluster.superuser(shard)) for shard in shards]
    for number, connection in enumerate(connections):
        first = number * rows + 1
        connection.cursor().execute(
            f"create table t as select n from generate_series({first}, {first + rows - 1}) n"
        )
        connection.commit()
    return connections


def _ask(connection: Any) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(QUERY)
    rows: list[Any] = cursor.fetchall()
    return rows
