"""Every value arrives as it is, in any type, format and form, under any settings."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import NewServer
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

Strategy = st.SearchStrategy[str]

letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.one_of(
    st.text(letters, max_size=20),
    st.text(st.sampled_from("\"'\\,(){}[] \t\n\r\x01\x1c\x1d\x1e\x1f\x7fNULaé漢🙂"), max_size=12),
)
integers = st.integers


def of(*values: str) -> Strategy:
    return st.sampled_from(values)


def either(strategy: st.SearchStrategy[object], *specials: str) -> Strategy:
    """Values of a strategy, or one of those that need care."""
    return st.one_of(strategy.map(str), of(*specials)) if specials else strategy.map(str)


numerics = either(
    st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27),
    "NaN", "Infinity", "-Infinity", "0.00", "-0.000", "9" * 38, "1e-38", "1" + "0" * 60,
)  # fmt: skip
intervals = either(
    st.builds(
        "{} mons {} days {}:{}:{}.{:06}".format,
        integers(-1000, 1000), integers(-1000, 1000), integers(-1000, 1000), integers(0, 59),
        integers(0, 59), integers(0, 999999),
    ),
    "1 year -2 days +03:04:05", "-00:00:00.000001", "0",
)  # fmt: skip
arrays = st.lists(st.none() | texts, max_size=4)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)

# Columns: a type, and what to put into it. "{}" in a type stands for the value in an expression.
COLUMNS: dict[str, tuple[str, st.SearchStrategy[object]]] = {
    "flag": ("boolean", of("t", "f")),
    "i2": ("smallint", either(integers(-(2**15), 2**15 - 1))),
    "i4": ("integer", either(integers(-(2**31), 2**31 - 1))),
    "i8": ("bigint", either(integers(-(2**63), 2**63 - 1))),
    "o": ("oid", either(integers(0, 2**32 - 1))),
    "n": ("numeric", numerics),
    "n52": ("numeric(5,2)", either(st.decimals(-999, 999, places=2))),
    "f4": ("real", either(st.floats(width=32), "NaN", "-0", "Infinity", "1e-45")),
    "f8": ("double precision", either(st.floats(), "NaN", "-Infinity", "5e-324", "1e15")),
    "m": ("money", either(st.decimals(-(10**9), 10**9, places=2))),
    "t": ("text", texts),
    "v": ("varchar(20)", st.text(letters, max_size=20)),
    "c": ("char(5)", st.text(letters, max_size=5)),
    "q": ('"char"', of("a", '"', "\\", "")),
    "nm": ("name", st.text(st.sampled_from('aB" é'), max_size=10)),
    "b": ("bytea", st.binary(max_size=20).map(lambda data: "\\x" + data.hex())),
    "d": ("date", either(st.dates(), "infinity", "-infinity", "0044-03-15 BC", "294276-12-31")),
    "ts": ("timestamp", either(st.datetimes(), "infinity", "0044-03-15 01:02:03.000001 BC")),
    "tz": ("timestamptz", either(st.datetimes(timezones=st.timezones()), "-infinity", "0044-03-15 BC")),
    "ti": ("time", either(st.times(), "24:00:00")),
    "tt": ("timetz", of("00:00:00+15:59", "23:59:59.999999-12:30:15", "12:00:00+00")),
    "iv": ("interval", intervals),
    "j": ("json", jsons),
    "jb": ("jsonb", jsons.filter(lambda text: "\\u0000" not in text)),
    "u": ("uuid", either(st.uuids())),
    "ip": ("inet", either(st.ip_addresses(), "10.0.0.1/8", "::1/128")),
    "ci": ("cidr", of("10.0.0.0/8", "::/0")),
    "ma": ("macaddr", of("08:00:2b:01:02:03")),
    "bi": ("bit(5)", st.text("01", min_size=5, max_size=5)),
    "vb": ("bit varying", st.text("01", max_size=40)),
    "x": ("xml", of("<a b='c'>&lt;é</a>", "text", "<!-- c --><a/>")),
    "e": ("mood", of("sad", "so, (so)", 'quo"ted', "")),
    "r": ("int4range", of("empty", "[1,5)", "(,3)", "[2,)", "(,)")),
    "mr": ("nummultirange", of("{}", "{[1.5,2.5),[3,4]}", "{(,)}")),
    "tr": ("tstzrange", of("empty", "[2020-01-01 00:00+00,infinity)", "[,2020-01-01)")),
    "p": ("point", of("(1.5,-2)", "(0,0)")),
    "a": ("text[]", arrays),
    "ia": ("integer[]", of("{}", "{{1,2},{3,NULL}}", "[0:1]={5,6}", "{{{1}}}")),
    "ba": ("boolean[]", of("{t,f,NULL}", "{}")),
    "bx": ("box[]", of("{(1,2),(0,0);(3,4),(1,1)}")),
    "pr": ("pair", texts),
    "ne": ("nested", texts),
    "po": ("positive", either(integers(1, 100))),
}  # fmt: skip

EXPRESSIONS = {
    "pair": "row(1, {})::pair",
    "nested": "row(row(2, {}), array[row(3, {})::pair, null])::nested",
}

REMOTE_SETTINGS = [
    {},
    {"datestyle": "German", "intervalstyle": "sql_standard", "timezone": "Asia/Kathmandu",
     "extra_float_digits": "-15", "bytea_output": "escape", "lc_monetary": "C.UTF-8"},
    {"datestyle": "SQL, DMY", "intervalstyle": "iso_8601", "timezone": "America/St_Johns",
     "extra_float_digits": "3", "client_encoding": "latin1", "xmlbinary": "hex"},
    {"datestyle": "Postgres, MDY", "intervalstyle": "postgres_verbose", "standard_conforming_strings": "off"},
]  # fmt: skip


@pytest.fixture(scope="module")
def values(remote: Cluster) -> Iterator[psycopg.Connection]:
    """A session on a server that is its own remote, with a table of a column for each type."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute("create schema v; set search_path to v, public")
        conn.execute("""create type mood as enum ('sad', 'so, (so)', 'quo"ted', '')""")
        conn.execute("create type pair as (a int, b text)")
        conn.execute("create type nested as (p pair, ps pair[])")
        conn.execute("create domain positive as int check (value > 0)")
        columns = ", ".join(f"{name} {type}" for name, (type, _) in COLUMNS.items())
        conn.execute(f"create table vals (id int, {columns})")
        for number, parameters in enumerate(REMOTE_SETTINGS):
            role = sql.Identifier(f"remote_{number}")
            conn.execute(sql.SQL("create role {} login superuser").format(role))
            conn.execute(sql.SQL("alter role {} set search_path to v, public").format(role))
            for name, value in parameters.items():
                conn.execute(
                    sql.SQL("alter role {} set {} to " + value.replace("German", "German")
                            if name == "datestyle" else "alter role {} set {} to {}")
                    .format(role, sql.Identifier(name), sql.Literal(value))
                )  # fmt: skip
        yield conn
        conn.execute("drop schema v cascade")


rows_of_values = st.lists(
    st.fixed_dictionaries({name: st.none() | strategy for name, (_, strategy) in COLUMNS.items()}),
    min_size=1,
    max_size=3,
)


def fill(conn: psycopg.Connection, rows: list[dict[str, object]]) -> None:
    """Put rows into the table."""
    conn.execute("truncate vals")
    for number, row in enumerate(rows):
        expressions = [
            EXPRESSIONS.get(type, "{}").replace("{}", f"%({name})s::{'text' if type in EXPRESSIONS else type}")
            if row[name] is not None else "null"
            for name, (type, _) in COLUMNS.items()
        ]  # fmt: skip
        conn.execute(f"insert into vals values ({number}, {', '.join(expressions)})", row)


POLYMORPHIC = "select got::text from pmpp.distribute(null::vals, {connection}, array['select * from vals'], result_format => {format}) got order by id"
RECORD = "select got::text from pmpp.distribute(array[row({connection}, array['select * from vals'], null, null, null, {format})::pmpp.query_manifest]) as got (id int, {columns}) order by id"


@pytest.mark.slow
@settings(max_examples=40, derandomize=True)
@given(rows=rows_of_values, remote_number=st.integers(0, len(REMOTE_SETTINGS) - 1))
def test_values(
    values: psycopg.Connection, there: str, rows: list[dict[str, object]], remote_number: int
) -> None:
    """What a call returns is what the query itself returns, value by value."""
    fill(values, rows)
    expected = values.execute("select got::text from vals got order by id").fetchall()
    connection = there.replace("user=postgres", f"user=remote_{remote_number}")
    columns = ", ".join(f"{name} {type}" for name, (type, _) in COLUMNS.items())
    for form in (POLYMORPHIC, RECORD):
        for result_format in (None, "text", "binary"):
            call = sql.SQL(form).format(
                connection=connection, format=result_format, columns=sql.SQL(columns)
            )  # fmt: skip
            assert values.execute(call).fetchall() == expected


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
@pytest.mark.parametrize("type", sorted({type for type, _ in COLUMNS.values()}))
def test_scalars(
    values: psycopg.Connection, there: str, type: str, result_format: str | None
) -> None:
    """Every type serves as a row type of its own."""
    name, strategy = next((n, s) for n, (t, s) in COLUMNS.items() if t == type)
    fill(values, [dict.fromkeys(COLUMNS), {**dict.fromkeys(COLUMNS), name: _example(strategy)}])
    connection = there.replace("user=postgres", "user=remote_1")
    # The columns of a composite row type are those of the query.
    if type in EXPRESSIONS:
        query = f"select (v.{name}).* from vals v where {name} is not null"
        expected = values.execute(
            f"select {name}::text from vals where {name} is not null"
        ).fetchall()
    else:
        query = f"select {name} from vals order by id"
        expected = values.execute(f"select {name}::text from vals order by id").fetchall()
    call = (
        f"select d::text from pmpp.distribute(null::{type}, %s, array[%s], result_format => %s) d"
    )
    assert values.execute(call, [connection, query, result_format]).fetchall() == expected


def test_nulls_without_array_nulls(db: psycopg.Connection, here: str) -> None:
    """A null stays a null where the caller's session takes NULL in an array for a string."""
    db.execute("create type pair as (a int, b text); set array_nulls = off")
    query = "select null::int, unnest(array['a', null, 'NULL'])"
    for form in ("select * from pmpp.distribute(null::pair, %s, array[%s])",
                 "select (result).* from pmpp.broadcast_tagged(null::pair, array[%s], %s)"):  # fmt: skip
        rows = db.execute(form, [here, query]).fetchall()
        assert rows == db.execute(query).fetchall()
    query = "select array['a', null, 'NULL'], array_fill(null::int, array[2])"
    db.execute("create type arrays as (a text[], b int[])")
    for form in ("select * from pmpp.distribute(null::arrays, %s, array[%s])",
                 "select * from pmpp.distribute(array[row(%s, array[%s], null, 1, null, null)::pmpp.query_manifest])"
                 " as (a text[], b int[])"):  # fmt: skip
        rows = db.execute(form, [here, query]).fetchall()
        assert rows == [(["a", None, "NULL"], [None, None])]
    assert db.execute("show array_nulls").fetchall() == [("off",)]


VALUES = {
    "boolean": ["true", "false"],
    "\"char\"": ["'x'"],
    "name": ["'abc'"],
    "bigint": ["1234567", "-1"],
    "smallint": ["7"],
    "oid": ["42"],
    "text": ["'a b'", "'12'", "'  x  '"],
    "json": ["'[1]'"],
    "jsonb": ["'[1,  2]'", "'7'"],
    "float4": ["1.5"],
    "float8": [
        "1e14", "1e15", "-1234567890123456.5", "1e16", "123456789012345678", "1e-4", "1.5e-5", "-0",
        "1e300", "0.1", "'inf'", "'-inf'", "'nan'",
    ],
    "char(5)": ["'ab'"],
    "char(3)": ["'DEU'"],
    "varchar(5)": ["'ab'"],
    "uuid": ["'00112233-4455-6677-8899-aabbccddeeff'"],
    "numeric": ["1.50"],
    "inet": ["'10.0.0.1'"],
    "date": ["'2020-02-29'"],
}  # fmt: skip


@pytest.mark.parametrize(
    "wanted", ["text", "varchar", "name", "char(5)", "bpchar", "bool", "int8", "numeric", "float8"]
)
def test_assignment(db: psycopg.Connection, here: str, wanted: str) -> None:
    """In binary, a value of another type becomes what an INSERT makes of it."""
    db.execute(f"create table assigned (v {wanted})")
    call = "select v::text from pmpp.distribute(null::assigned, %s, array[%s], result_format => 'binary')"
    for source, value in [(type, value) for type, values in VALUES.items() for value in values]:
        query = f"select {value}::{source}"
        try:
            db.execute(f"insert into assigned {query}")
        except psycopg.Error:
            continue
        expected = db.execute("delete from assigned returning v::text").fetchall()
        assert db.execute(call, [here, query]).fetchall() == expected, query


def test_type_of_a_stranger(db: psycopg.Connection, here: str) -> None:
    """A type that is not PostgreSQL's own is read from its text: its number means nothing here."""
    db.execute(
        """
        create type strange as enum ('1');
        create function strange_to_int(strange) returns int language sql as 'select 42';
        create cast (strange as int) with function strange_to_int(strange) as assignment
        """
    )
    call = "select * from pmpp.distribute(null::int, %s, array['select ''1''::strange'], result_format => %s)"
    for result_format in ("text", "binary"):
        assert db.execute(call, [here, result_format]).fetchall() == [(1,)]


def test_binary_cursor(values: psycopg.Connection, there: str) -> None:
    """pmpp reads a binary cursor's integers, and refuses its other values with an error."""
    call = (
        "select d::text from pmpp.distribute(null::numeric, %s, array['fetch all from c'],"
        " setup_commands => array['begin', 'declare c binary cursor for select ' || %s]) d"
    )
    assert values.execute(call, [there, "77"]).fetchall() == [("77",)]
    with pytest.raises(errors.FeatureNotSupported, match="came in binary") as raised:
        values.execute(call, [there, "1.5::numeric"])
    assert "query 1 of item 1" in str(raised.value.diag.message_detail)


def _example(strategy: st.SearchStrategy[object]) -> object:
    found: list[object] = []

    @settings(max_examples=1, derandomize=True)
    @given(strategy)
    def take(value: object) -> None:
        found.append(value)

    take()
    return found[-1]


SINGLE_VALUES = [
    "",
    "{}",
    "NULL",
    '"',
    "\\",
    "a,b",
    "(",
    "'",
    "\x1c\x1d\x1e",
    "{{chunk}}",
    "äöü",
    " ",
    "\n",
]


def test_single_rows(db: psycopg.Connection, here: str) -> None:
    """A value in a single row is the same as among other rows, for types written in special ways."""
    db.execute("create domain word as text check (value <> 'no'); create type five as"
               " (t text, v varchar(5), d word, c char(3), n name, i int, b bytea, j json, jb jsonb, a text[])")  # fmt: skip
    values = "array[{}]::text[]".format(", ".join(["%s"] * len(SINGLE_VALUES) + ["null"]))
    one = (
        "select v, left(v, 5), v, left(v, 3), v, 1, convert_to(v, 'UTF8'), to_json(v), to_jsonb(v), array[v, null]"
        " from unnest({}) with ordinality u(v, n)"
    )
    with psycopg.ClientCursor(db) as cursor:
        query = cursor.mogrify(one.format(values), SINGLE_VALUES)
    rows = range(1, len(SINGLE_VALUES) + 2)
    alone = [f"{query} where n = {number}" for number in rows]
    for form in (
        "distribute(null::five, %s, %s) r",
        "distribute_tagged(null::five, array[row(%s, %s, null, null, null, 'binary')::pmpp.query_manifest]) t(i, c, q, r)",
    ):
        select = f"select r::text from pmpp.{form} order by 1".encode()
        assert db.execute(select, [here, alone]).fetchall() == (
            db.execute(select, [here, [query]]).fetchall()
        )  # fmt: skip
        assert len(db.execute(select, [here, alone]).fetchall()) == len(rows)


def test_single_rows_that_do_not_fit(db: psycopg.Connection, here: str) -> None:
    """A value that a type refuses among other rows is refused in a single row."""
    db.execute(
        "create type short as (v varchar(2)); create domain word as text check (value <> 'no')"
    )
    for row_type, query in [
        ("short", "'abc'"),
        ("word", "'no'"),
        ("json", "'{'"),
        ("bytea", "'\\xz'"),
    ]:
        call = f"select pmpp.distribute(null::{row_type}, %s, array[%s])".encode()
        errors = []
        for rows in (1, 2):
            with pytest.raises(psycopg.Error) as raised:
                db.execute(call, [here, f"select {query}::text from generate_series(1, {rows})"])
            errors.append((raised.value.sqlstate, raised.value.diag.message_primary))
            assert "In a row of query 1" in str(raised.value.diag.message_detail)
        assert errors[0] == errors[1]


NAMES = [
    'with "quotes"',
    "with 'quotes'",
    "with spaces and $dollars$",
    "MixedCase",
    "サーバー",
    "x" * 63,
]


@pytest.mark.parametrize("name", NAMES)
def test_names(db: psycopg.Connection, new_server: NewServer, name: str) -> None:
    """Servers, types and columns may have any name."""
    quoted = sql.Identifier(name)
    new_server(name)
    db.execute(sql.SQL("create user mapping for current_user server {0}").format(quoted))
    db.execute(sql.SQL("create type {0} as ({0} text, b int)").format(quoted))
    call = sql.SQL("select t.{0}, b from pmpp.distribute(null::{0}, {1}, array['select 1, 2']) t")
    assert db.execute(call.format(quoted, name)).fetchall() == [("1", 2)]
    call = sql.SQL("select * from pmpp.distribute(null::{0}, {1}, array['select 1/0'])")
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        db.execute(call.format(quoted, name))
    assert f'server "{name}"' in str(raised.value.diag.message_detail)
