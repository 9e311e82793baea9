"""The encodings of a connection and of the local database, and text that does not fit them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, TRUST, notices
from psycopg import errors

# In a database with the encoding SQL_ASCII this is a byte that is not valid in UTF8.
QUERY = "select chr(228)"
RUN = """
    select * from pmpp.distribute(null::text, %s, array[%s], num_workers => 1, setup_commands => %s)
"""


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        # The remote server checks the value.
        ("utf8", "invalid byte sequence for encoding"),
        # pmpp checks the value.
        ("sql_ascii", "a value is not valid in the client_encoding of the connection"),
    ],
)
def test_invalid_value(
    cluster: Cluster, db: psycopg.Connection, encoding: str, message: str
) -> None:
    """pmpp refuses a value that is not valid in client_encoding, and names the query."""
    db.execute("drop database if exists no_encoding")
    db.execute("create database no_encoding template template0 encoding 'SQL_ASCII' locale 'C'")
    there = cluster.superuser("no_encoding")
    with pytest.raises(errors.CharacterNotInRepertoire, match=message) as raised:
        db.execute(RUN, [there, QUERY, [f"set client_encoding to {encoding}"]])
    assert QUERY in str(raised.value.diag.message_detail)
    setup = ["set client_encoding to latin1"]
    assert db.execute(RUN, [there, QUERY, setup]).fetchall() == [("ä",)]


@pytest.mark.parametrize("encoding", ["EUC_TW", "SJIS"])
def test_unknown_encoding(db: psycopg.Connection, here: str, encoding: str) -> None:
    """pmpp refuses an encoding that Python does not know, or decodes differently."""
    with pytest.raises(errors.FeatureNotSupported, match=f"is not supported: {encoding}"):
        db.execute(RUN, [here, "select chr(65374)", [f"set client_encoding to {encoding}"]])


def test_messages(db: psycopg.Connection, here: str) -> None:
    """pmpp reads messages of the remote server in the client_encoding of the connection."""
    setup = ["set client_encoding to latin1", "do $$ begin raise notice 'größer'; end $$"]
    got = notices(db)
    with pytest.raises(errors.UndefinedTable, match='relation "größe" does not exist'):
        db.execute(RUN, [here, 'select * from "größe"', setup])
    assert [message for _, message, _, _ in got] == ["größer"]


def test_query_that_changes_it(db: psycopg.Connection, here: str) -> None:
    """pmpp refuses a query that changes the client_encoding of its own rows."""
    query = "set client_encoding to latin1; select chr(195) || chr(169)"
    with pytest.raises(errors.FeatureNotSupported, match="has changed client_encoding"):
        db.execute(RUN, [here, query, []])
    db.execute("select * from pmpp.meta(%s, array['set client_encoding to latin1'])", [here])


@pytest.fixture(scope="module")
def local() -> Iterator[Callable[[str], psycopg.Connection]]:
    """Open a session in a local database of some encoding."""
    with Cluster(PG_CONFIG, hba=[TRUST]) as cluster:
        opened = []

        def local(encoding: str) -> psycopg.Connection:
            dbname = encoding.lower()
            with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
                conn.execute(
                    f"create database {dbname} encoding '{encoding}' locale 'C' template template0"
                )
            conn = psycopg.connect(
                cluster.superuser(dbname),
                autocommit=True,
                client_encoding="utf8" if encoding != "SQL_ASCII" else "SQL_ASCII",
            )
            conn.execute("create extension pmpp cascade")
            opened.append(conn)
            return conn

        yield local
        for conn in opened:
            conn.close()


@pytest.mark.parametrize(
    ("encoding", "good", "bad"),
    [
        ("UTF8", "aé漢🙂", None),
        ("LATIN1", "aéÿ", "漢"),
        ("EUC_JP", "a漢字ア", "🙂"),
        ("SQL_ASCII", "aé漢", None),
    ],
)
def test_local_encoding(
    local: Callable[[str], psycopg.Connection],
    there: str,
    encoding: str,
    good: str,
    bad: str | None,
) -> None:
    """Text arrives in the encoding of the local database, or it is an error."""
    conn = local(encoding)
    python = "utf-8" if encoding == "SQL_ASCII" else encoding
    hexed = "select encode(convert_to({0}, '{1}'), 'hex') from pmpp.distribute(null::text, %s, array[%s]) {0}"
    if encoding == "SQL_ASCII":
        hexed = (
            "select encode({0}::bytea, 'hex') from pmpp.distribute(null::text, %s, array[%s]) {0}"
        )
    query = f"select convert_from('\\x{good.encode().hex()}', 'UTF8')"
    ((value,),) = conn.execute(hexed.format("d", encoding), [there, query]).fetchall()
    assert bytes.fromhex(value if isinstance(value, str) else value.decode()) == good.encode(python)
    if bad is None:
        return
    for statement in ("select {}", "do $$ begin raise exception '%', {}; end $$",
                      "do $$ begin raise notice '%', {}; end $$"):  # fmt: skip
        query = statement.format(f"convert_from('\\x{bad.encode().hex()}', 'UTF8')")
        call = "select * from pmpp.distribute(null::pmpp.command_with_result, %s, array[%s])"
        if statement.startswith("select"):
            call = "select * from pmpp.distribute(null::text, %s, array[%s])"
        try:
            conn.execute(call, [there, query])
        except psycopg.Error as ex:
            assert ex.sqlstate in ("22P05", "P0001")
            assert "Traceback" not in str(ex.diag.context)
        else:
            assert "notice" in statement
        assert conn.execute("select 1").fetchall() == [(1,)]


@pytest.mark.parametrize("word", ["größe", "漢字", "\U0001f642"])
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_encodings(remote: Cluster, cluster: Cluster, there: str, word: str, encoding: str) -> None:
    """pmpp escapes a character that the local database lacks in any field of a message."""
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        conn.execute("drop database if exists fields")
        conn.execute(f"create database fields encoding '{encoding}' locale 'C' template template0")
    query = f"""
        do $$ declare x text := convert_from('\\x{word.encode().hex()}', 'UTF8');
        begin
            raise warning '%', x using detail = x, hint = x, table = x, schema = x, datatype = x;
            execute format('do %L', format('begin raise %L using detail = %L, hint = %L, column = %L; end', x, x, x, x));
        end $$
    """
    with psycopg.connect(cluster.superuser("fields"), autocommit=True) as conn:
        conn.execute("create extension pmpp cascade; set pmpp.on_error = 'stop'")
        got = notices(conn)
        for call in ("select * from pmpp.meta(%s, array[%s])",
                     "select * from pmpp.distribute(array[row(%s, array[%s], null, 1, null, null)::pmpp.query_manifest]) as (i int)"):  # fmt: skip
            with pytest.raises(psycopg.errors.RaiseException) as raised:
                conn.execute(call, [there, query])
            assert raised.value.sqlstate == "P0001"
            assert conn.execute("select count(context) from pmpp.last_run()").fetchall() == [(1,)]
        assert len(got) == 2
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        conn.execute("drop database fields")
