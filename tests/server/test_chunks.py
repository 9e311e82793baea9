"""Whatever is in a table, each row is in exactly one of the chunks that a query is split into."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from helpers import CITUS, PASSWORD, Connect, NewRole, NewServer
from hypothesis import given, settings
from hypothesis import strategies as st

SOME = settings(max_examples=8, derandomize=True)

TYPES = """
    create collation german (provider = icu, locale = 'de');
    create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create type mood as enum ('sad', 'ok', 'happy');
    create domain short as varchar(3) collate "C";
    create domain temper as mood;
    create type pair as (a int, b text);
    create schema elsewhere;
    create extension citext schema elsewhere;
"""

words = st.text("aAbBäßz'\\\" {},%5", max_size=4)
numbers = st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, max_value=10**9).map(str)
days = st.dates(date(2024, 1, 1), date(2024, 1, 9)) | st.dates()

# Values of types, as their input functions read them.
VALUES: dict[str, st.SearchStrategy[object]] = {
    "integer": numbers,
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "double precision": st.floats(),
    "real": st.floats(width=32),
    "numeric": decimals | st.sampled_from(["NaN", "infinity", "-infinity", "1.0", "1.00"]),
    "numeric(30,3)": decimals,
    "money": st.integers(-(10**6), 10**6).map(lambda n: n / 100),
    "boolean": st.booleans(),
    "text": words,
    'text collate "C"': words,
    "text collate german": words,
    "text collate nocase": words,
    "elsewhere.citext": words,
    "varchar(4)": words,
    "char(4)": words,
    '"char"': st.sampled_from("abcAB"),
    "name": words,
    "short": words.map(lambda word: word[:3]),
    "mood": st.sampled_from(["sad", "ok", "happy"]),
    "temper": st.sampled_from(["sad", "ok", "happy"]),
    "date": days | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC"]),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(datetime(1, 1, 2), timezones=st.just(timezone.utc)),
    "interval": st.timedeltas(timedelta(-9999), timedelta(9999)),
    "uuid": st.integers(0, 2**128 - 1).map(lambda n: UUID(int=n)),
    "bytea": st.binary(max_size=3).map(lambda value: f"\\x{value.hex()}"),
    "bit(3)": st.text("01", min_size=3, max_size=3),
    "int[]": st.sampled_from(["{}", "{1}", "{1,2}", "{NULL}", "{1,NULL}", "{{1},{2}}", "[2:3]={1,2}"]),
    "text[]": st.sampled_from(["{}", '{""}', "{NULL}", '{"NULL"}', '{"a b","\\\\",\'}', "{a,b}"]),
    "int4range": st.sampled_from(["empty", "[1,2)", "[1,)", "(,1)", "(,)", "[0,9]"]),
    "int4multirange": st.sampled_from(["{}", "{[1,2)}", "{[1,2),[4,5)}", "{(,)}"]),
    "inet": st.ip_addresses(),
    "pair": st.sampled_from(["(,)", "(1,)", "(,x)", "(1,x)", "(2,\"it's\")", '(2,"")', "(3,)"]),
    "jsonb": st.sampled_from(["null", "1", "[]", "{}", '"a"', '{"a": 1}', "[1, 2]"]),
    "regclass": st.sampled_from(["pg_class", "pg_proc", "pg_type", "1"]),
}  # fmt: skip

# What of the table the planner's statistics know.
KNOWN = ("nothing", "everything", "a part")

# Where values are written in other ways than in the sessions of pmpp.
OTHER_SETTINGS = """
    set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard';
    set extra_float_digits = 0; set bytea_output = 'escape'
"""

table_numbers = count()


def new_name() -> str:
    """Return a name that is no table's yet, quoted."""
    return f'public."a ""Table"" {next(table_numbers)}"'


def split(conn: psycopg.Connection, function: str, *arguments: object) -> list[str]:
    """Return the queries that one of the functions gives."""
    call = f"select pmpp.{function}({', '.join(['%s'] * len(arguments))})"
    ((queries,),) = conn.execute(call.encode(), arguments).fetchall()
    assert len(set(queries)) == len(queries) >= 1
    return queries  # type: ignore[no-any-return]


def assert_all_once(conn: psycopg.Connection, table: str, queries: list[str]) -> None:
    """Run the queries with the settings of pmpp: they return every id of the table once."""
    with conn.transaction(force_rollback=True):
        conn.execute("set local datestyle = 'ISO, MDY'; set local intervalstyle = 'postgres'")
        conn.execute("set local search_path = ''")
        returned = Counter(row[0] for query in queries for row in conn.execute(query.encode()))
        there = Counter(row[0] for row in conn.execute(f"select id from {table}".encode()))
    assert returned == there
    assert set(there.values()) <= {1}


@pytest.mark.slow
def test_by_key(db: psycopg.Connection) -> None:
    """Ranges of a column of any type hold every row once, whatever the statistics know."""
    db.execute(TYPES)
    db.execute(OTHER_SETTINGS)
    for type_name in VALUES:
        check_by_key(db, type_name)


def check_by_key(conn: psycopg.Connection, type_name: str) -> None:
    """See to it for a type."""

    @SOME
    @given(
        st.lists(st.none() | VALUES[type_name], max_size=30),
        st.sampled_from([0, 0, 9]),
        st.integers(1, 9),
        st.sampled_from(KNOWN),
        st.sampled_from([1, 3, 100]),
    )
    def check(values: list[object], times: int, chunks: int, known: str, target: int) -> None:
        table = new_name()
        literals = [None if value is None else str(value) for value in values + values[:3] * times]
        insert = f'insert into {table} ("the Key") values (%s)'.encode()
        some = {"nothing": 0, "everything": len(literals), "a part": len(literals) // 3}[known]
        conn.execute(f'create table {table} (id serial, "the Key" {type_name})'.encode())
        conn.execute(f'alter table {table} alter "the Key" set statistics {target}'.encode())
        with conn.cursor() as cursor:
            cursor.executemany(insert, [[literal] for literal in literals[:some]])
            if some:
                cursor.execute(f"analyze {table}".encode())
            cursor.executemany(insert, [[literal] for literal in literals[some:]])
        query = f"select id from {table} where {{chunk}}"
        queries = split(conn, "by_key", table, "the Key", query, chunks)
        assert len(queries) <= chunks
        assert_all_once(conn, table, queries)

    check()


def test_by_ctid(db: psycopg.Connection) -> None:
    """Ranges of blocks hold every row once, also rows added after by_ctid split the query."""

    @SOME
    @given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 40))
    def check(sizes: list[int], chunks: int) -> None:
        table = new_name()
        insert = f"insert into {table} (filler) values (repeat('x', %s))".encode()
        db.execute(f"create table {table} (id serial, filler text)".encode())
        db.execute(f"alter table {table} alter filler set storage plain".encode())
        with db.cursor() as cursor:
            cursor.executemany(insert, [[size] for size in sizes])
            cursor.execute(f"delete from {table} where id % 7 = 3".encode())
            query = f"select id from {table} where {{chunk}}"
            queries = split(db, "by_ctid", table, query, chunks)
            size = "select pg_relation_size(%s::regclass) / 8192"
            ((blocks,),) = cursor.execute(size, [table]).fetchall()
            assert len(queries) == max(1, min(blocks, chunks))
            cursor.executemany(insert, [[size] for size in sizes[:30]])
            cursor.execute(f"update {table} set filler = '' where id % 5 = 1".encode())
        assert_all_once(db, table, queries)

    check()


trees: st.SearchStrategy[list[Any]] = st.recursive(
    st.just([]), lambda tree: st.lists(tree, max_size=3), max_leaves=6
)


def test_by_partition(db: psycopg.Connection) -> None:
    """Partitions of all depths hold every row once."""

    def create(tree: list[Any], table: str, bounds: str, ids: range) -> None:
        """Create a partitioned table for a list of partitions, with a default one."""
        db.execute(f"create table {table} {bounds} partition by range (id)".encode())
        width = max(1, len(ids) // (len(tree) + 1))
        for number, branch in enumerate(tree):
            child, part = new_name(), ids[number * width : (number + 1) * width]
            if not part:
                return
            bounds = f"partition of {table} for values from ({part[0]}) to ({part[-1] + 1})"
            if branch:
                create(branch, child, bounds, part)
            else:
                db.execute(f"create table {child} {bounds}".encode())
        db.execute(f"create table {new_name()} partition of {table} default".encode())

    @SOME
    @given(trees)
    def check(tree: list[Any]) -> None:
        table = new_name()
        create(tree, table, "(id int)", range(100))
        db.execute(f"insert into {table} select generate_series(-3, 103)".encode())
        assert_all_once(db, table, split(db, "by_partition", table, "select id from {partition}"))

    check()


def test_inheritance(db: psycopg.Connection) -> None:
    """A table with children, which may have several parents, holds every row once."""

    @SOME
    @given(st.lists(st.sets(st.integers(0, 5), max_size=3), max_size=6))
    def check(parents: list[set[int]]) -> None:
        tables = [new_name()]
        db.execute(f"create table {tables[0]} (id int)".encode())
        db.execute("set client_min_messages = warning")
        for numbers in parents:
            tables.append(new_name())
            inherited = [tables[number] for number in sorted(numbers) if number < len(tables) - 1]
            suffix = f"inherits ({', '.join(inherited)})" if inherited else ""
            db.execute(f"create table {tables[-1]} (id int) {suffix}".encode())
        for number, table in enumerate(tables):
            db.execute(f"insert into {table} values ({number})".encode())
        queries = split(db, "by_partition", tables[0], "select id from {partition}")
        assert_all_once(db, tables[0], queries)
        for function, arguments in (("by_ctid", ()), ("by_key", ("id",))):
            query = f"select id from {tables[0]} where {{chunk}}"
            assert_all_once(db, tables[0], split(db, function, tables[0], *arguments, query, 3))

    check()


# An alias as a query writes it, and how the placeholder names it.
ALIASES = [
    ("f", "f"),
    ("F", "f"),
    ('"Weird One"', '"Weird One"'),
    ('"a""b.c:d"', '"a""b.c:d"'),
    ("größe$1", "größe$1"),
    ('"it\'s %1$s"', '"it\'s %1$s"'),
]


@pytest.mark.parametrize(("alias", "named"), ALIASES)
def test_placeholder_with_alias(db: psycopg.Connection, alias: str, named: str) -> None:
    """In a join the placeholder names the table that is split, by any alias that SQL permits."""
    db.execute(TYPES)
    table = new_name()
    db.execute(
        f'create table {table} (id serial, "the Key" temper, word text, filler text)'.encode()
    )
    db.execute(
        f'insert into {table} ("the Key", word, filler)'
        " select (enum_range(null::mood))[i %% 4 + 1], (array[%s, %s, %s])[i %% 3 + 1], repeat('x', 1500)"
        " from generate_series(1, 90) i".encode(),
        ["{chunk:f}", "%1$s", "{chunk}"],
    )
    query = (
        f"select {alias}.id from {table} other join {table} {alias} using (id) left join {table} l"
        f" on l.id = {alias}.id + 3 where ({{chunk:{named}}} or {{chunk:{named}}}) and other.id > 0"
    )
    for function, arguments in (("by_ctid", ()), ("by_key", ("the Key",)), ("by_key", ("word",))):
        queries = split(db, function, table, *arguments, query, 3)
        assert len(queries) == 3
        assert_all_once(db, table, queries)


def test_both_placeholders(db: psycopg.Connection) -> None:
    """One query can have placeholders of both kinds, and of several aliases."""
    db.execute("create table twin (id int); insert into twin select generate_series(1, 9)")
    query = "select a.id from public.twin a join public.twin b using (id) where {chunk:a} and {chunk:b} and id in (select id from public.twin where {chunk}) and '{chunks' <> '{chunk :a}'"
    assert_all_once(db, "public.twin", split(db, "by_key", "twin", "id", query, 4))
    assert split(db, "by_ctid", "twin", "{chunk}{chunk:b}{chunk", 1) == [
        "(ctid operator(pg_catalog.>=) '(0,0)')(b.ctid operator(pg_catalog.>=) '(0,0)'){chunk"
    ]


@pytest.mark.parametrize("tail", [":}", ": f}", ":f", ":f g}", ":f.g}", ":1}", ":$a}", ':"f}', ':""}', ':"f"g}', ":f{chunk}}"])  # fmt: skip
def test_malformed_placeholder(db: psycopg.Connection, tail: str) -> None:
    """by_ctid and by_key refuse a placeholder that names no alias, also beside a valid one."""
    db.execute("create table one (id int)")
    query = f"select {{chunk}} and {{chunk{tail}"
    for call in ("by_ctid('one', %s)", "by_key('one', 'id', %s)"):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
            db.execute(f"select pmpp.{call}".encode(), [query])
        message = str(raised.value.diag.message_primary)
        assert message.startswith("malformed placeholder: {chunk:")
        assert raised.value.diag.message_hint


def test_placeholder_under_any_collation(db: psycopg.Connection) -> None:
    """by_ctid finds its placeholders under any collation of the query."""
    db.execute(TYPES)
    db.execute("create table one (id int)")
    query = "select pmpp.by_ctid('one', '{chunk:f} {CHUNK:f}' collate nocase)"
    assert "{CHUNK:f}" in str(db.execute(query).fetchall())


def test_long_queries(db: psycopg.Connection) -> None:
    """Looking for placeholders takes time in proportion to the query, whatever is in it."""
    db.execute("create table one (id int); set statement_timeout = '5s'")
    for part in ("{chunk", '{chunk:"', "{chunk:a", "{chunk}", "{chunk:", '""', "{chunk:é"):
        for query in (
            part * 40000,
            "{chunk:" + part * 40000,
            '{chunk:"' + part * 40000 + "{chunk}",
        ):
            with suppress(psycopg.errors.InvalidParameterValue):
                db.execute("select pmpp.by_ctid('one', %s, 1)", [query])


def test_large_table_without_statistics(db: psycopg.Connection) -> None:
    """by_key samples the blocks of a large table, and splits it about evenly."""
    db.execute("create table large (id int, filler text) partition by hash (id)")
    for number in range(2):
        db.execute(
            f"create table large{number} partition of large for values with (modulus 2, remainder {number})"
            " with (autovacuum_enabled = off)".encode()
        )
    db.execute("insert into large select i, repeat('x', 1800) from generate_series(1, 6000) i")
    queries = split(db, "by_key", "large", "id", "select id from public.large where {chunk}", 4)
    assert_all_once(db, "public.large", queries)
    assert all(1000 < len(db.execute(query.encode()).fetchall()) < 2000 for query in queries)


@pytest.fixture
def loopback(db: psycopg.Connection, new_server: NewServer) -> str:
    """A foreign server that leads back to this database."""
    db.execute("create user mapping for current_user server " + new_server("loopback"))
    return "loopback"


@pytest.mark.usefixtures("loopback")
def test_foreign_partition_without_statistics(db: psycopg.Connection) -> None:
    """by_key counts the rows of a foreign partition, of which PostgreSQL takes no sample."""
    db.execute("create table away (id int, filler text)")
    db.execute("insert into away select generate_series(1, 2500)")
    db.execute("create table mixed (id int, filler text) partition by range (id)")
    db.execute("create foreign table mixed1 partition of mixed for values from (1) to (2501)"
               " server loopback options (table_name 'away')")  # fmt: skip
    db.execute("create table mixed2 partition of mixed for values from (2501) to (9999)"
               " with (fillfactor = 10, autovacuum_enabled = off)")  # fmt: skip
    db.execute("insert into mixed2 select i, repeat('x', 700) from generate_series(2501, 7500) i")
    queries = split(db, "by_key", "mixed", "id", "select id from public.mixed where {chunk}", 4)
    assert_all_once(db, "public.mixed", queries)
    assert all(1250 < len(db.execute(query.encode()).fetchall()) < 2500 for query in queries)


@pytest.mark.usefixtures("loopback")
def test_sample_of_a_foreign_table(db: psycopg.Connection) -> None:
    """Every row of a foreign table larger than the sample is in one chunk, nulls among them."""
    db.execute("create table away (id int, k int)")
    db.execute("insert into away select i, nullif(i, 77) from generate_series(1, 50000) i")
    db.execute("create foreign table far (id int, k int) server loopback"
               " options (table_name 'away', fetch_size '10000')")  # fmt: skip
    db.execute("create view seen as select * from far")
    for table in ("public.far", "public.seen"):
        query = f"select id from {table} a where {{chunk:a}}"
        queries = split(db, "by_key", table, "k", query, 4)
        db.execute("insert into away values (0, -99), (50001, 99999)")
        assert_all_once(db, table, queries)
        assert all(11500 < len(db.execute(query.encode()).fetchall()) < 13500 for query in queries)
        db.execute("delete from away where k = -99 or k = 99999")


def test_sample_of_a_table_of_citus(db: psycopg.Connection) -> None:
    """by_key reads the size of a distributed table from Citus, and samples its blocks."""
    db.execute(CITUS)
    db.execute(
        "create function pg_catalog.citus_relation_size(regclass) returns bigint language sql"
        " as 'select 1000000000000000'"
    )
    db.execute("create table spread (id int); create table other (id int)")
    for table in ("spread", "other"):
        db.execute(f"insert into {table} select generate_series(1, 100)".encode())
        assert len(split(db, "by_key", table, "id", "{chunk}", 4)) == 4
    db.execute("insert into pg_dist_partition values ('spread', 'h')")
    # There are so many blocks that the sample has none of the one that is really there.
    assert split(db, "by_key", "spread", "id", "{chunk}", 4) == ["true"]
    assert len(split(db, "by_key", "other", "id", "{chunk}", 4)) == 4


def test_shard_that_citus_hides(db: psycopg.Connection) -> None:
    """For a table that pg_class lacks, the hint says how Citus shows its shards."""
    for prepare, hint in (("select 1", "table of this database"), (CITUS, "show_shards")):
        db.execute(prepare)
        for call in ("by_ctid(1::oid, '{chunk}')", "by_key(1::oid, 'k', '{chunk}')"):
            with pytest.raises(psycopg.errors.UndefinedTable) as raised:
                db.execute(f"select pmpp.{call}".encode())
            assert hint in str(raised.value.diag.message_hint)


def test_more_chunks_than_statistics_know(db: psycopg.Connection) -> None:
    """by_key reads the column if the statistics have fewer values than it needs."""
    db.execute("create table fine (id int); alter table fine alter id set statistics 10")
    db.execute("insert into fine select generate_series(1, 4000); analyze fine")
    queries = split(db, "by_key", "fine", "id", "select id from public.fine where {chunk}", 40)
    assert [len(db.execute(query.encode()).fetchall()) for query in queries] == [100] * 40


def test_rights(db: psycopg.Connection, new_role: NewRole, connect: Connect) -> None:
    """by_ctid needs no privilege to read, by_key SELECT on the key, and row security applies."""
    db.execute("create table secret (id int, k int, other int)")
    db.execute("insert into secret select i, i, i from generate_series(1, 100) i; analyze secret")
    role = new_role()
    db.execute(f'grant select (k) on secret to "{role}"'.encode())
    conn = connect(user=role, password=PASSWORD)
    query = "select k from secret where {chunk}"
    assert split(conn, "by_ctid", "secret", query, 2)
    assert len(split(conn, "by_key", "secret", "k", query, 4)) == 4
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="column other of public"):
        split(conn, "by_key", "secret", "other", query)
    db.execute("alter table secret enable row level security")
    db.execute("create policy few on secret using (k > 98)")
    assert "99" not in str(split(conn, "by_key", "secret", "k", query, 1))
    assert "100" in str(split(conn, "by_key", "secret", "k", query, 4))
    assert len(split(conn, "by_key", "secret", "k", query, 4)) == 2


def test_settings_of_the_caller(db: psycopg.Connection) -> None:
    """by_key reads the table under the caller's settings, and writes chunks that do not need them."""
    db.execute("create schema rates; set search_path = rates, public; set datestyle = 'SQL, DMY'")
    db.execute("create table rate as select 2 as factor")
    db.execute("create function factor() returns int language sql as 'select factor from rate'")
    db.execute(
        "create table text_file as select '31/' || i || '/2024' as day from unnest('{1,3,5,7}'::int[]) i"
    )
    db.execute("create view seen as select factor() * 2 as k, day::date from text_file")
    assert split(db, "by_key", "seen", "k", "{chunk}", 2) == ["true"]
    first, second = split(db, "by_key", "seen", "day", "{chunk}", 2)
    assert second == "(day operator(pg_catalog.>=) '2024-05-31'::pg_catalog.date)"
    db.execute("create view tables as select t from unnest('{rate,text_file}'::regclass[]) t")
    _, second_table = split(db, "by_key", "tables", "t", "{chunk}", 2)
    assert second_table == "(t operator(pg_catalog.>=) 'rates.text_file'::pg_catalog.regclass)"
    # The caller's names do not hide names that by_key uses.
    db.execute("create domain rates.text as int; create domain rates.float8 as int")
    db.execute("create domain rates.record as int; set search_path = rates, pg_catalog")
    assert split(db, "by_key", "seen", "day", "{chunk}", 2) == [first, second]


def test_cancel(db: psycopg.Connection) -> None:
    """A cancel ends by_key while it reads, and by_key checks its arguments before it reads."""
    db.execute(
        "create view slow as select i, pg_sleep(100)::text as k from generate_series(1, 9) i"
    )
    db.execute("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        split(db, "by_key", "slow", "k", "select i from slow where {chunk}")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="does not contain"):
        split(db, "by_key", "slow", "k", "select i from slow")
