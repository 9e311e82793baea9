"""Every row of every connection comes exactly once, however it is fetched."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from client_shards import (
    ALL_ROWS,
    ROWS,
    Open,
    as_tuples,
    on_each_driver,
    on_each_postgres,
    rows_of,
    view,
)
from pmpp import InterfaceError, ParallelCursor


def fetch_one_by_one(cursor: ParallelCursor) -> Iterator[Any]:
    return iter(cursor.fetchone, None)


def fetch_some(cursor: ParallelCursor) -> Iterator[Any]:
    while rows := cursor.fetchmany(7):
        yield from rows


def fetch_by_arraysize(cursor: ParallelCursor) -> Iterator[Any]:
    assert cursor.arraysize == 1
    cursor.arraysize = 60
    while rows := cursor.fetchmany():
        assert len(rows) <= 60
        yield from rows


@pytest.mark.parametrize(
    "fetch",
    [fetch_one_by_one, fetch_some, fetch_by_arraysize, iter, ParallelCursor.fetchall],
    ids=["fetchone", "fetchmany", "arraysize", "iteration", "fetchall"],
)
@on_each_driver
def test_rows_of_all_shards(
    connect_shards: Open,
    driver: str,
    options: dict[str, Any],
    fetch: Callable[[ParallelCursor], Iterable[Any]],
) -> None:
    """Each way to fetch returns the rows of all shards, also rows of nulls, and then no more."""
    with connect_shards(driver).cursor(**options) as cursor:
        cursor.execute(ROWS)
        assert as_tuples(fetch(cursor)) == Counter(ALL_ROWS)
        assert cursor.description is not None
        assert [column[0] for column in cursor.description] == ["shard", "n"]
        assert cursor.fetchone() is None
        assert cursor.fetchmany(3) == []
        assert cursor.fetchall() == []


@on_each_driver
def test_all_shards_are_empty(connect_shards: Open, driver: str, options: dict[str, Any]) -> None:
    """A result without rows returns none."""
    pdb = connect_shards(driver)
    for fetch in (ParallelCursor.fetchone, ParallelCursor.fetchall):
        with pdb.cursor(**options) as cursor:
            cursor.execute(ROWS + " where n < 0")
            assert not fetch(cursor)


@pytest.mark.slow
def test_interleavings(connect_shards: Open) -> None:
    """A thousand random mixtures of all ways to fetch return each row exactly once."""
    expected = Counter(ALL_ROWS)
    chance = random.Random(1)
    connections = {
        threads: connect_shards("sqlite3", max_threads=threads) for threads in (None, 1, 3)
    }
    for _ in range(1000):
        cursor = connections[chance.choice([None, 1, 3])].cursor()
        cursor.execute(ROWS)
        rows: list[Any] = []
        while True:
            way = chance.random()
            if way < 0.5:
                row = cursor.fetchone()
                got = [] if row is None else [row]
            elif way < 0.9:
                got = cursor.fetchmany(chance.choice([1, 10, 200, 1500]))
            elif way < 0.97:
                got = [row for _, row in zip(range(chance.randrange(1, 100)), cursor, strict=False)]
            else:
                got = cursor.fetchall()
            rows += got
            if not got:
                break
        cursor.close()
        assert as_tuples(rows) == expected


@on_each_postgres
def test_rowcount(connect_shards: Open, driver: str) -> None:
    """`rowcount` is the sum of rows returned, or of rows changed."""
    pdb = connect_shards(driver)
    cursor = pdb.cursor()
    assert cursor.rowcount == -1
    cursor.execute(ROWS)
    assert cursor.rowcount == len(ALL_ROWS)
    cursor.execute("update t set n = 0 where n = 2")
    assert cursor.rowcount == 3
    pdb.rollback()


def test_rowcount_is_unknown(connect_shards: Open) -> None:
    """`rowcount` is -1 if one driver does not know it."""
    cursor = connect_shards("mixed").cursor()
    cursor.execute(ROWS)
    assert cursor.rowcount == -1


def test_rowcount_after_the_rows(connect_shards: Open) -> None:
    """`rowcount` is known after the rows if drivers know it only then."""
    cursor = connect_shards("sqlite3", shards=range(3)).cursor()
    rows = cursor.execute("insert into t values (0, 1), (0, 2) returning n").fetchall()
    assert cursor.rowcount == len(rows) == 6
    cursor.connection.rollback()
    cursor = connect_shards("psycopg2").cursor(name="c").execute(ROWS)
    assert cursor.rowcount == -1
    cursor.fetchall()
    assert cursor.rowcount >= 0


def test_executemany(connect_shards: Open) -> None:
    """Every connection runs the statement with all parameters, also those of a generator."""
    pdb = connect_shards("psycopg2", shards=range(3))
    cursor = pdb.cursor()
    cursor.executemany("insert into t values (%s, %s)", ((7, n) for n in range(4)))
    cursor.execute("select count(*) from t where shard = 7")
    assert cursor.fetchall() == [(4,)] * 3
    pdb.rollback()
    cursor.execute("select count(*) from t where shard = 7")
    assert cursor.fetchall() == [(0,)] * 3


@pytest.mark.parametrize("source", [False, True])
def test_further_results(connect_shards: Open, source: bool) -> None:
    """`nextset` goes to the next result of all connections."""
    cursor = connect_shards("psycopg", shards=range(2, 4)).cursor()
    cursor.execute(
        "select n from t; select count(*) as count from t; select 7 as n, 8 as m", source=source
    )
    # The other rows of this result must not come with the next one.
    assert cursor.fetchone() is not None
    for columns, rows in ((["count"], [(3,), (0,)]), (["n", "m"], [(7, 8), (7, 8)])):
        assert cursor.nextset()
        assert cursor.description is not None
        assert [column[0] for column in cursor.description] == columns
        assert cursor.rowcount == 2
        expected = [(index, row) for index, row in enumerate(rows)] if source else rows
        assert sorted(cursor.fetchall()) == sorted(expected)
    assert cursor.nextset() is None
    assert cursor.fetchall() == []


def test_further_results_of_executemany(connect_shards: Open) -> None:
    """psycopg 3 returns the rows of each set of parameters as a result."""
    pdb = connect_shards("psycopg", shards=range(3))
    cursor = pdb.cursor()
    cursor.executemany("insert into t values (%s, 0) returning shard", [(7,), (8,)], returning=True)
    assert cursor.fetchall() == [(7,)] * 3
    assert cursor.nextset()
    assert cursor.fetchall() == [(8,)] * 3
    assert not cursor.nextset()
    pdb.rollback()


def test_no_further_results(connect_shards: Open) -> None:
    """If a driver has no further results, `nextset` is an error."""
    cursor = connect_shards("psycopg2").cursor().execute(ROWS)
    with pytest.raises(psycopg2.NotSupportedError):
        cursor.nextset()
    cursor = connect_shards("sqlite3").cursor().execute(ROWS)
    with pytest.raises(InterfaceError, match=r"the cursor of connection 0 .* has no nextset"):
        cursor.nextset()
    assert len(cursor.fetchall()) == len(ALL_ROWS)


def test_several_cursors(connect_shards: Open) -> None:
    """Cursors of one connection do not disturb each other."""
    pdb = connect_shards("psycopg")
    with pdb.cursor() as a, pdb.cursor(name="b") as b, pdb.cursor(name="c") as c:
        cursors = [a, b, c]
        for cursor in cursors:
            cursor.execute(ROWS)
        rows = list(zip(*cursors, strict=True))
    for column in zip(*rows, strict=True):
        assert as_tuples(column) == Counter(ALL_ROWS)


def test_number_of_rows(connect_shards: Open) -> None:
    """A wrong number of rows is an error and loses no rows."""
    cursor = connect_shards("sqlite3").cursor().execute(ROWS)
    assert cursor.fetchmany(0) == []
    with pytest.raises(ValueError, match="must be at least 0, not -1"):
        cursor.fetchmany(-1)
    with pytest.raises(TypeError):
        cursor.fetchmany(2.0)  # type: ignore[arg-type]
    assert len(cursor.fetchmany(2**64)) == len(ALL_ROWS)


def test_execute_again(connect_shards: Open) -> None:
    """Rows of a result that was not fetched to its end do not come after the next statement."""
    cursor = connect_shards("sqlite3").cursor()
    for _ in range(20):
        cursor.execute(ROWS)
        cursor.fetchmany(5)
        cursor.execute("select -1")
        assert cursor.fetchall() == [(-1,)] * 10


def test_several_threads_use_it(connect_shards: Open) -> None:
    """Threads may share the connection, each with a cursor of its own."""
    pdb = connect_shards("mixed")

    def fetch(_: int) -> bool:
        with pdb.cursor() as cursor:
            return as_tuples(cursor.execute(ROWS)) == Counter(ALL_ROWS)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fetch, range(20)))


def test_several_threads_use_one_cursor(connect_shards: Open) -> None:
    """Threads may share a cursor too, and each row goes to one of them."""
    cursor = connect_shards("sqlite3").cursor().execute(ROWS)

    def fetch(_: int) -> list[Any]:
        return [row for rows in iter(lambda: cursor.fetchmany(3), []) for row in rows]

    with ThreadPoolExecutor(8) as pool:
        assert as_tuples(row for rows in pool.map(fetch, range(8)) for row in rows) == Counter(
            ALL_ROWS
        )


def test_execute_while_a_thread_fetches(connect_shards: Open) -> None:
    """A statement on a cursor waits for the fetch of another thread, and both get their rows."""
    cursor = connect_shards("psycopg", shards=range(4, 5)).cursor()
    with ThreadPoolExecutor(1) as pool:
        executing: list[Future[Any]] = []

        def key(row: tuple[int, int]) -> int:
            if row[1] == 2:
                executing.append(pool.submit(cursor.execute, "select -1"))
                # The statement must not run yet, though there is time for it.
                wait(executing, timeout=0.2)
            return row[1]

        cursor.execute(ROWS + " where n > 1 order by n", merge=key)
        assert cursor.fetchall() == rows_of(4)[1:]
        executing[0].result()
        assert cursor.fetchall() == [(-1,)]


def test_source(connect_shards: Open) -> None:
    """`source=True` gives rows the index or the name of their connection."""
    expected = Counter((shard, row) for shard in range(10) for row in rows_of(shard))
    cursor = connect_shards("mixed").cursor()
    cursor.execute(ROWS, source=True)
    assert Counter(cursor) == expected
    names = [f"shard {shard}" for shard in range(10)]
    with connect_shards("psycopg", names=names).cursor(name="c") as cursor:
        cursor.execute(ROWS, source=True)
        assert Counter(cursor) == Counter((names[shard], row) for shard, row in expected.elements())


@pytest.mark.parametrize("options", [{}, {"name": "c"}])
@on_each_postgres
@pytest.mark.parametrize("columns", ["n, shard", "n", "shard, n, n as m"])
def test_columns_differ(
    connect_shards: Open, driver: str, options: dict[str, Any], columns: str
) -> None:
    """Another number of columns, or another order of columns, is an error."""
    prepare = view({2: f"select {columns} from t"})
    pdb = connect_shards(driver, shards=range(3), prepare=prepare)
    differ = r"the columns differ: connection \d .* has .*n"
    with pdb.cursor(**options) as cursor, pytest.raises(InterfaceError, match=differ):
        cursor.execute("select * from v").fetchall()


def test_expressions_have_other_names(connect_shards: Open) -> None:
    """Drivers may give an expression different names."""
    cursor = connect_shards("mixed").cursor()
    cursor.execute("select count(*), max(n) as n from t")
    assert sum(count for count, _ in cursor) == len(ALL_ROWS)
