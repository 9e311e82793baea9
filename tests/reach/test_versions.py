"""Remote servers of other major versions of PostgreSQL, without pmpp."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import SLEEP, eventually, notices, tcp, workers_of
from other_servers import other_version
from psycopg import errors, sql

# The oldest shortens floats unless told otherwise, and does not notice when its client is gone.
PACKAGES = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
VERSIONS = sorted(
    int(name.removeprefix("postgres-")) for name in PACKAGES if name.startswith("postgres-")
)

# The same on every server.
VALUES = {
    "text": ["null", r"E'a\t\"b\"\\,{}é漢🙂'", "''"],
    "char(5)": ["'ab'"],
    '"char"': ["'\"'"],
    "name": ["'name'"],
    "bytea": [r"'\x00ff'"],
    "boolean": ["true"],
    "smallint": ["32767"],
    "integer": ["-2147483648"],
    "bigint": ["9223372036854775807"],
    "oid": ["4294967295"],
    "real": ["0.1::float4 + 0.2::float4", "'1e-45'"],
    "double precision": ["0.1::float8 + 0.2::float8", "'NaN'", "1e-300"],
    "numeric": ["12345678901234567890.0123456789", "'NaN'", "0.00"],
    "money": ["'-1234.56'"],
    "date": ["'0044-03-15 BC'", "'infinity'"],
    "timestamp": ["'2020-02-29 12:34:56.789'", "'-infinity'"],
    "timestamptz": ["'2020-02-29 12:34:56.789+05:30'"],
    "time": ["'24:00'"],
    "timetz": ["'12:00+15:59'"],
    "interval": ["'1 year -2 days +03:04:05.6'", "'-1 day'"],
    "json": ["""'{"a":  [1, null]}'"""],
    "jsonb": ["""'{"b": "é"}'"""],
    "uuid": ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
    "inet": ["'::1/64'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "bit varying": ["B'1010'"],
    "point": ["'(0.1,2)'"],
    "int4range": ["'[1,5)'"],
    "text[]": ["array['a', null, 'b,c']"],
    "integer[]": ["array[[1, 2], [3, 4]]"],
    "tsvector": ["'a fat cat'"],
    "pg_lsn": ["'16/B374D848'"],
    "regclass": ["'pg_class'"],
    "xml": ["'<a>b</a>'"],
}
ROWS = [(type_, value) for type_, values in VALUES.items() for value in values]
ROW = "select " + ", ".join(f"({value})::{type_}" for type_, value in ROWS)
COLUMNS = ", ".join(f"c{n} {type_}" for n, (type_, _) in enumerate(ROWS))

CALL = "select n from pmpp.distribute(null::int, %s, %s, num_workers => %s) n order by n"


@pytest.fixture(scope="module", params=VERSIONS)
def other(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server of another version."""
    with other_version(request.param) as cluster:
        yield cluster


@pytest.fixture
def there(other: Cluster) -> str:
    """A connection string for it."""
    return tcp(other.port)


@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_values(caller: psycopg.Connection, there: str, result_format: str | None) -> None:
    """Values of all sorts of types arrive as this server itself would give them."""
    caller.execute(f"create temp table sorts ({COLUMNS})")
    call = "select s::text from pmpp.distribute(null::sorts, %s, array[%s], num_workers => 1, result_format => %s) s"
    assert (
        caller.execute(call, [there, ROW, result_format]).fetchall()
        == caller.execute(
            sql.SQL("select row(s.*)::text from ({}) s").format(sql.SQL(ROW))
        ).fetchall()
    )


def test_many_rows(caller: psycopg.Connection, there: str) -> None:
    """Several workers deliver every row of several queries."""
    call = "select count(*), sum(n) from pmpp.distribute(null::int, %s, %s, num_workers => 3) n"
    queries = [f"select generate_series({n}, {n + 9_999})" for n in range(1, 50_001, 10_000)]
    assert caller.execute(call, [there, queries]).fetchall() == [(50_000, 50_000 * 50_001 // 2)]


def test_commands(caller: psycopg.Connection, there: str) -> None:
    """Statements that return no rows return their tags; setup commands hold for a connection."""
    call = "select * from pmpp.meta(%s, %s, num_workers => 1, setup_commands => array['set search_path to pg_temp'])"
    commands = ["create temp table t (n int)", "insert into t values (1), (2)", "drop table t"]
    tags = ["CREATE TABLE", "INSERT 0 2", "DROP TABLE"]
    assert caller.execute(call, [there, commands]).fetchall() == [*zip(commands, tags, strict=True)]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("select 1/0", errors.DivisionByZero, "division by zero"),
        ("selec 1", errors.SyntaxError, 'syntax error at or near "selec"'),
        ("table nowhere", errors.UndefinedTable, 'relation "nowhere" does not exist'),
        (
            "do $$ begin raise 'no' using detail = 'why', hint = 'how'; end $$",
            errors.RaiseException,
            "no",
        ),
    ],
)
def test_errors(
    caller: psycopg.Connection, there: str, query: str, error: type[psycopg.Error], message: str
) -> None:
    """An error of the remote server arrives with its own fields and names the query."""
    with pytest.raises(error) as raised:
        caller.execute("select * from pmpp.meta(%s, array[%s], num_workers => 1)", [there, query])
    diag = raised.value.diag
    assert diag.message_primary == message
    assert f"Query 1 of item 1 on {there.replace(' user=postgres', '')}: {query}" in (
        diag.message_detail or ""
    )
    assert diag.message_hint == ("how" if error is errors.RaiseException else None)


def test_notices(caller: psycopg.Connection, there: str) -> None:
    """Notices and warnings of the remote server reach the caller."""
    got = notices(caller)
    command = "do $$ begin raise notice 'n'; raise warning 'w' using hint = 'h'; end $$"
    caller.execute("select * from pmpp.meta(%s, array[%s], num_workers => 1)", [there, command])
    assert [(severity, message) for severity, message, *_ in got] == [
        ("NOTICE", "n"),
        ("WARNING", "w"),
    ]


def test_cancel(caller: psycopg.Connection, other: Cluster, there: str) -> None:
    """The queries of a cancelled call end at once."""
    caller.execute("set statement_timeout to '500ms'")
    with pytest.raises(errors.QueryCanceled):
        caller.execute(CALL, [there, [SLEEP] * 3, 3])
    workers = workers_of(caller.info.backend_pid)
    eventually(other, f"not exists ({workers} and query = {sql.quote(SLEEP)})")
    caller.execute("reset statement_timeout")
    assert caller.execute(CALL, [there, ["select 1"], 1]).fetchall() == [(1,)]


def test_number_of_workers(caller: psycopg.Connection, there: str) -> None:
    """If the remote server has no pmpp, the error tells the caller to set num_workers."""
    with pytest.raises(
        errors.UndefinedObject, match=r"could not ask .* for its number of CPUs"
    ) as raised:
        caller.execute(
            "select pmpp.distribute(null::int, %s, array['select 1', 'select 2'])", [there]
        )
    assert "Set num_workers" in (raised.value.diag.message_hint or "")
    assert caller.execute(CALL, [there, ["select 1", "select 2"], 2]).fetchall() == [(1,), (2,)]
