"""Generated manifests, and generated answers of remote servers, never crash pmpp.

PMPP_FUZZ_SECONDS sets how long each test runs (by default 10); "make fuzz" runs them for longer.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest
from helpers import descriptors
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from listener import listener, message

SECONDS = float(os.environ.get("PMPP_FUZZ_SECONDS", "10"))

# The SQLSTATEs that pmpp or PostgreSQL give to bad manifests and bad connections. XX000, which a
# bug in pmpp would have, is not among them.
EXPECTED = {
    "08001", "08006", "22004", "22021", "22023", "22P02", "22P05", "2202E", "42501", "42601",
    "42704", "42703", "42804", "0A000", "22012", "42P01", "42883", "42P18", "22003",
}  # fmt: skip

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
connections = st.one_of(
    texts,
    st.sampled_from(["loop", "host=/nonexistent", "port=1", "dbname='", "postgresql://", "host=a,b port=1,2,3",
                     "host=.. port=1", "connect_timeout=x", "hostaddr=1", "port=99999", "service=x", "host=a..b"]),
)  # fmt: skip
queries = st.one_of(
    texts,
    st.sampled_from(
        [
            "select 1",
            "select 1, 2",
            "select",
            ";",
            "--",
            "select 1/0",
            "\\",
            "copy t from stdin",
            "begin",
            "select 'x'",
        ]
    ),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(st.none(), st.integers(-5, 40), finite, st.booleans(), texts)
json_values = st.recursive(
    numbers | queries,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
    max_leaves=4,
)
items = st.fixed_dictionaries(
    {},
    optional={
        "connection": connections | json_values,
        "queries": st.lists(queries | st.none(), max_size=4) | json_values,
        "query": queries | json_values,
        "cpu_multiplier": numbers,
        "num_workers": numbers,
        "setup_commands": st.lists(queries, max_size=2) | json_values,
        "statement_timeout": numbers,
        "result_format": st.sampled_from(["text", "binary", None, "x"]) | json_values,
        "unknown": json_values,
    },
)
manifests = st.lists(items, max_size=3) | json_values


SOME = settings(max_examples=100)


@pytest.fixture
def session(db: psycopg.Connection, here: str) -> psycopg.Connection:
    """A session with a foreign server that leads back."""
    db.execute(
        "create foreign data wrapper lax; create server loop foreign data wrapper lax; create user mapping for current_user server loop"
    )
    db.execute("set client_min_messages to error; set statement_timeout to '5s'")
    return db


def for_some_time(check: Callable[[], None]) -> None:
    """Repeat a property test for SECONDS.

    If that was set, the examples are new ones in each run. Otherwise they are the same, so that a
    failure is one of the change.
    """
    end = time.monotonic() + SECONDS
    for number in count(int(time.time()) if "PMPP_FUZZ_SECONDS" in os.environ else 0):
        seed(number)(check)()
        if time.monotonic() > end:
            return


def run(conn: psycopg.Connection, call: str, parameters: list[object]) -> None:
    """Make a call; its error, if it has one, must be one of those expected."""
    try:
        conn.execute(call, parameters)
    except psycopg.Error as ex:
        assert ex.sqlstate in EXPECTED, ex
        assert "Traceback" not in str(ex.diag.message_primary)


@pytest.mark.slow
def test_json_manifests(session: psycopg.Connection) -> None:
    """Any JSON document as a manifest runs or is refused."""
    pid = session.info.backend_pid

    @SOME
    @given(manifests)
    def check(manifest: object) -> None:
        text = json.dumps(manifest)
        run(session, "select * from pmpp.distribute(null::int, %s::json)", [text])
        run(session, "select * from pmpp.distribute(%s::json) as (i int)", [text])

    before = descriptors(pid)
    for_some_time(check)
    assert descriptors(pid) == before
    assert session.info.backend_pid == pid


@pytest.mark.slow
def test_array_manifests(session: psycopg.Connection) -> None:
    """Any values in the fields of a query_manifest run or are refused."""

    @SOME
    @given(
        st.tuples(
            connections | st.none(),
            st.none() | st.lists(queries | st.none(), max_size=4),
            st.none() | st.floats(),
            st.none() | st.integers(-5, 40),
            st.none() | st.lists(queries | st.none(), max_size=2),
            st.none() | st.sampled_from(["text", "binary", "x"]),
        )
    )
    def check(fields: tuple[object, ...]) -> None:
        item = "row(%s::text, %s::text[], %s::float8, %s::int, %s::text[], %s::text)"
        call = f"select * from pmpp.distribute(null::int, array[{item}::pmpp.query_manifest])"
        run(session, call, list(fields))

    for_some_time(check)


@pytest.fixture
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """A listener that answers on every connection with the bytes of a list, one after another."""
    answers = [b""]

    def serve(client: socket.socket) -> None:
        for answer in answers:
            client.recv(100_000)
            client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(100_000):
            pass

    with listener(serve) as port:
        yield port, answers


WELCOME = (
    message(b"R", b"\0\0\0\0")
    + message(b"S", b"client_encoding\0UTF8\0")
    + message(b"S", b"server_version\0" + b"8.0\0")
    + message(b"K", b"\0\0\0\1\0\0\0\2")
    + message(b"Z", b"I")
)
words = st.binary(max_size=12)
shorts = st.integers(0, 3).map(lambda n: n.to_bytes(2, "big"))
streams = st.lists(
    st.one_of(
        st.builds(
            message,
            st.sampled_from([bytes([kind]) for kind in b"RSKZTDCENAIGHWcdnstv123"]),
            words,
            words,
        ),
        st.builds(
            message, st.just(b"T"), shorts, st.just(b"a\0" + bytes(18)), st.just(b"b\0" + bytes(18))
        ),
        st.builds(message, st.just(b"D"), shorts, words),
        st.just(message(b"D", b"\0\1\0\0\0\1x")),
        st.just(message(b"T", b"\0\1a\0" + bytes(18))),
        st.just(message(b"T", b"\0\1a\0" + bytes(16) + b"\0\7")),
        st.just(message(b"C", b"SELECT 1\0")),
        st.just(message(b"E", b"SERROR\0C22012\0Mboom\0\0")),
        st.just(message(b"N", b"SNOTICE\0Mhello\0\0")),
        st.just(message(b"Z", b"I")),
        words,
    ),
    max_size=8,
).map(b"".join)


def test_error_without_sqlstate(db: psycopg.Connection, answering: tuple[int, list[bytes]]) -> None:
    """pmpp shows the message of an error that has no other field."""
    port, answers = answering
    answers[:] = [WELCOME, message(b"E", b"SERROR\0Mno such thing\0\0") + message(b"Z", b"I")]
    dsn = f"host=127.0.0.1 port={port} sslmode=disable user=x"
    with pytest.raises(psycopg.errors.InternalError, match="no such thing"):
        db.execute(
            "select pmpp.distribute(null::text, %s, array['select 1'], num_workers => 1)", [dsn]
        )


@pytest.mark.parametrize("number", [b"\0\2", b"\0\7", b"\xff\xff"])
@pytest.mark.parametrize("result_format", [None, "text", "binary"])
def test_impossible_format(
    db: psycopg.Connection,
    answering: tuple[int, list[bytes]],
    number: bytes,
    result_format: str | None,
) -> None:
    """A column that is neither in text nor in binary is an error of the protocol."""
    port, answers = answering
    columns = b"\0\1a\0" + bytes(6) + b"\0\0\0\x19\xff\xff\xff\xff\xff\xff"
    described = message(b"1") + message(b"t", b"\0\0") + message(b"T", columns, b"\0\0")
    came = message(b"T", columns, number) + message(b"D", b"\0\1\0\0\0\1x") + message(b"C", b"X\0")
    answers[:] = [WELCOME, came + message(b"Z", b"I")]
    if result_format == "binary":
        answers[1:1] = [described + message(b"Z", b"I")]
    dsn = f"host=127.0.0.1 port={port} sslmode=disable user=x"
    with pytest.raises(psycopg.errors.ProtocolViolation, match="came in format") as raised:
        db.execute(
            "select pmpp.distribute(null::text, %s, array['select 1'], num_workers => 1,"
            " result_format => %s)",
            [dsn, result_format],
        )
    assert "query 1 of item 1" in str(raised.value.diag.message_detail)


def test_lost_before_the_first_query(
    db: psycopg.Connection, answering: tuple[int, list[bytes]]
) -> None:
    """pmpp reports a connection that is dropped while it is set up as lost."""
    port, answers = answering
    # pmpp sets something in a server of this version.
    answers[:] = [WELCOME.replace(b"8.0", b"9.6")]
    dsn = f"host=127.0.0.1 port={port} sslmode=disable user=x"
    with pytest.raises(psycopg.errors.ConnectionFailure) as raised:
        db.execute(
            "select pmpp.distribute(null::text, %s, array['select 1'], num_workers => 1)", [dsn]
        )
    detail = (raised.value.diag.message_detail or "").splitlines()
    assert detail[0] == "server closed the connection unexpectedly"
    assert detail[-1] == f"Item 1 on host=127.0.0.1 port={port}"
    # The lines between belong to the first.
    assert all(line.startswith("\t") for line in detail[1:-1])


@pytest.mark.slow
def test_byte_streams(db: psycopg.Connection, answering: tuple[int, list[bytes]]) -> None:
    """The session survives whatever bytes a remote server sends."""
    port, answers = answering
    dsn = f"host=127.0.0.1 port={port} sslmode=disable user=x"
    db.execute("set client_min_messages to error; set statement_timeout to '20s'")
    pid = db.info.backend_pid

    @SOME
    @given(
        st.booleans(),
        streams,
        st.sampled_from([None, "text", "binary"]),
        # The first form reads chunks, and the second reads row by row.
        st.sampled_from(["null::text, {}", "{}) as (a text"]),
    )
    def check(let_in: bool, stream: bytes, result_format: str | None, form: str) -> None:
        answers[0] = (WELCOME if let_in else b"") + stream
        item = "row(%s, array['select 1'], null, 1, null, %s)::pmpp.query_manifest"
        call = f"select * from pmpp.distribute({form.format(f'array[{item}]')})"
        try:
            db.execute(call, [dsn, result_format])
        except psycopg.Error as ex:
            assert ex.sqlstate not in ("XX000", "38000", "57014", None), (ex, answers[0])

    before = descriptors(pid)
    for_some_time(check)
    assert descriptors(pid) == before
    assert db.execute("select pg_backend_pid()").fetchall() == [(pid,)]
