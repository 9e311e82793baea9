"""What several modules of the tests of ParallelConnection need."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
import psycopg2.errors
import psycopg2.extras
import pytest
from cluster import Cluster
from helpers import eventually
from pmpp import InterfaceError, ParallelConnection, ParallelCursor
from psycopg.rows import dict_row

# How many rows each shard has. Most have none, and one has more than a batch.
SIZES = [0, 0, 3, 0, 2500, 0, 1, 0, 0, 40]

ROWS = "select shard, n from t"
INSERT = "insert into t values (-1, -1)"
INSERTED = "select 1 from t where shard = -1"
SLEEP = "select 1 as shard, 2 as n from pg_sleep(100)"

DIVISION_BY_ZERO = {
    "psycopg": psycopg.errors.DivisionByZero,
    "psycopg2": psycopg2.errors.DivisionByZero,
}

on_each_postgres = pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])

# Drivers, each with options for cursors.
CURSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "psycopg": ("psycopg", {}),
    "psycopg, dict_row": ("psycopg", {"row_factory": dict_row}),
    "psycopg, server-side": ("psycopg", {"name": "c"}),
    "psycopg2": ("psycopg2", {}),
    "psycopg2, RealDictCursor": ("psycopg2", {"cursor_factory": psycopg2.extras.RealDictCursor}),
    "psycopg2, server-side": ("psycopg2", {"name": "c"}),
    "sqlite3": ("sqlite3", {}),
    "mixed": ("mixed", {}),
}

on_each_driver = pytest.mark.parametrize(("driver", "options"), CURSORS.values(), ids=CURSORS)


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that takes no attributes."""

    number: int = 1


Open = Callable[..., ParallelConnection]

Row = tuple[int | None, int | None]


def rows_of(shard: int) -> list[Row]:
    """Return the rows of a shard: its number and their numbers; all is null in the first."""
    return [(None, None) if n == 1 else (shard, n) for n in range(1, SIZES[shard] + 1)]


ALL_ROWS = [row for shard in range(len(SIZES)) for row in rows_of(shard)]


def as_tuples(rows: Iterable[Any]) -> Counter[tuple[Any, ...]]:
    """Count rows, which may be mappings or tuples."""
    return Counter(tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in rows)


def memory_database(**options: Any) -> sqlite3.Connection:
    """Return a connection to a new database of SQLite, which other threads may use."""
    connection: sqlite3.Connection = sqlite3.connect(":memory:", check_same_thread=False, **options)
    return connection


def counting(columns: str, limit: int | None = None) -> str:
    """Return a query for numbers n from 1 on, up to a limit or without end."""
    end = "" if limit is None else f"limit {limit}"
    numbers = f"select 1 union all select n + 1 from c {end}"
    return f"with recursive c(n) as ({numbers}) select {columns} from c"


def wait_for_sleeping(cluster: Cluster, count: int) -> None:
    """Wait until as many sessions of a server run pg_sleep."""
    sleeping = "from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'"
    eventually(cluster, f"(select count(*) {sleeping}) = {count}")


def view(queries: dict[int, str], others: str = ROWS) -> Callable[[int], str]:
    """Return a function that returns, for each shard, a statement that makes its view `v`."""
    return lambda shard: f"create temp view v as {queries.get(shard, others)}"


def inserted(dsns: list[str]) -> int:
    """Return the number of committed rows of INSERT."""
    with ParallelConnection([psycopg.connect(dsn) for dsn in dsns]) as pdb:
        return len(pdb.cursor().execute(INSERTED).fetchall())


def dividing_by(divisor: str) -> str:
    """Return a query that fails when the divisor is 0."""
    return f"select shard, n + 1 / ({divisor}) as n from t"


def other_failures(failure: BaseException) -> list[BaseException]:
    """Return the failures of other connections."""
    failures: list[BaseException] = failure.other_failures  # type: ignore[attr-defined]
    return failures


def assert_no_rows(cursor: ParallelCursor) -> None:
    """Check that fetching is an error after a failure, and not an empty result."""
    for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.__next__):
        with pytest.raises(InterfaceError, match="the last call has failed"):
            fetch()


def assert_usable(cursor: ParallelCursor) -> None:
    """Check that the cursor works after a rollback."""
    cursor.connection.rollback()
    assert sorted(cursor.execute(ROWS + " where n = 2")) == [(2, 2), (4, 2), (9, 2)]


# The arguments are connection strings, a driver, the name of a cursor or null, and a query.
_PRELUDE = """
import importlib, json, sys, threading
from pmpp import ParallelConnection

dsns, driver, name, query = json.loads(sys.argv[1])
driver = importlib.import_module(driver)
pdb = ParallelConnection([driver.connect(dsn) for dsn in dsns])
cursor = pdb.cursor(name) if name else pdb.cursor()
"""


def script(body: str, *arguments: object) -> list[str]:
    """Return a command that runs a program with the names of _PRELUDE."""
    return [sys.executable, "-c", _PRELUDE + body, json.dumps(arguments)]
