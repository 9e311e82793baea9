"""Text that cannot be read in the client_encoding of a connection."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster
from helpers import notices
from psycopg import errors

QUERY = "select chr(228)"  # in a database that knows no encoding, a byte that is not UTF8
RUN = """
    select * from pmpp.distribute(null::text, %s, array[%s], num_workers => 1, setup_commands => %s)
"""


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf8", "invalid byte sequence for encoding"),  # the remote looks
        ("sql_ascii", "a value is not valid in the client_encoding of the connection"),
    ],
)
def test_invalid_value(
    cluster: Cluster, db: psycopg.Connection, encoding: str, message: str
) -> None:
    """A value that is not valid is refused with its query; the right encoding is the cure."""
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
    """An encoding is refused that Python does not know, or has other characters for."""
    with pytest.raises(errors.FeatureNotSupported, match=f"is not supported: {encoding}"):
        db.execute(RUN, [here, "select chr(65374)", [f"set client_encoding to {encoding}"]])


def test_messages(db: psycopg.Connection, here: str) -> None:
    """What the remote says besides rows is in that encoding too."""
    setup = ["set client_encoding to latin1", "do $$ begin raise notice 'größer'; end $$"]
    got = notices(db)
    with pytest.raises(errors.UndefinedTable, match='relation "größe" does not exist'):
        db.execute(RUN, [here, 'select * from "größe"', setup])
    assert [message for _, message, _, _ in got] == ["größer"]


def test_query_that_changes_it(db: psycopg.Connection, here: str) -> None:
    """A query cannot change the encoding of its own rows: nobody would know in time."""
    query = "set client_encoding to latin1; select chr(195) || chr(169)"
    with pytest.raises(errors.FeatureNotSupported, match="has changed client_encoding"):
        db.execute(RUN, [here, query, []])
    db.execute("select * from pmpp.meta(%s, array['set client_encoding to latin1'])", [here])
