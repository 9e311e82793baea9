"""Rows that are in order on each connection come in that order."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from client_shards import ALL_ROWS, ROWS, Open, as_tuples, counting, on_each_driver
from pmpp import InterfaceError
from psycopg.rows import class_row, scalar_row


@pytest.mark.parametrize(
    "merge", [1, "n", lambda row: row["n"] if isinstance(row, dict) else row[1]]
)
@pytest.mark.parametrize("reverse", [False, True])
@on_each_driver
def test_merge(
    connect_shards: Open, driver: str, options: dict[str, Any], merge: Any, reverse: bool
) -> None:
    """Rows that are in order on each connection come in that order."""
    with connect_shards(driver).cursor(**options) as cursor:
        cursor.execute(
            f"{ROWS} where n > 0 order by n {'desc' if reverse else ''}",
            merge=merge,
            reverse=reverse,
        )
        rows = [cursor.fetchone(), *cursor.fetchmany(100), *cursor]
    keys = [row["n"] if isinstance(row, dict) else row[1] for row in rows]
    assert keys == sorted(keys, reverse=reverse)
    assert as_tuples(rows) == Counter(row for row in ALL_ROWS if row[1] is not None)


def test_merge_with_source(connect_shards: Open) -> None:
    """The key belongs to the row, not to the pair of source and row."""
    cursor = connect_shards("sqlite3").cursor()
    cursor.execute(ROWS + " where n <= 3 order by n", merge="n", source=True)
    assert cursor.fetchall() == [
        (2, (2, 2)),
        (4, (4, 2)),
        (9, (9, 2)),
        (2, (2, 3)),
        (4, (4, 3)),
        (9, (9, 3)),
    ]


def test_merge_is_lazy(connect_shards: Open) -> None:
    """The first rows of an endless result can be fetched."""
    cursor = connect_shards("sqlite3").cursor()
    cursor.execute(counting("n"), merge=0)
    assert cursor.fetchmany(25) == [(1,)] * 10 + [(2,)] * 10 + [(3,)] * 5


def test_reverse_without_merge(connect_shards: Open) -> None:
    """`reverse` without `merge` is an error."""
    with pytest.raises(ValueError, match="reverse=True is of no use without merge"):
        connect_shards("sqlite3").cursor().execute("select n from t", reverse=True)


def test_merge_of_unordered_rows(connect_shards: Open) -> None:
    """Rows that are not in order are an error, and so is a column that does not exist."""
    cursor = connect_shards("sqlite3").cursor()
    cursor.execute(ROWS + " where n > 0 order by n desc", merge="n")
    with pytest.raises(
        InterfaceError,
        match=r"the rows of connection \d .* are not in the order to merge by: \d+ comes after \d+",
    ):
        cursor.fetchall()
    for merge in ("m", 2):
        cursor.execute(ROWS, merge=merge)
        with pytest.raises(InterfaceError, match=f"no column {merge!r} to merge by among shard, n"):
            cursor.fetchall()


@pytest.mark.parametrize("row", ["'NaN'::float8 as n", "'NaN'::numeric as n"])
def test_merge_by_nan(connect_shards: Open, row: str) -> None:
    """NaN as a key is an error."""
    cursor = connect_shards("psycopg").cursor()
    cursor.execute(f"select {row} union all select 2 order by 1", merge="n")
    with pytest.raises(InterfaceError, match=r"a key that has no place in an order: .*(nan|NaN)"):
        cursor.fetchall()


@pytest.mark.parametrize("row_factory", [scalar_row, class_row(SimpleNamespace)])
@pytest.mark.parametrize("column", ["n", "n::text"])
def test_merge_without_columns(connect_shards: Open, row_factory: Any, column: str) -> None:
    """Rows that have no columns can be merged by a function only, and the error says so."""
    cursor = connect_shards("psycopg").cursor(row_factory=row_factory)
    for merge in ("n", 0):
        cursor.execute(f"select {column} from t", merge=merge)
        with pytest.raises(InterfaceError, match=f"to get {merge!r} from: merge by a function"):
            cursor.fetchall()
