"""Text that cannot be read in the client_encoding of a connection."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster
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


def test_unknown_encoding(db: psycopg.Connection, here: str) -> None:
    """An encoding that Python does not know is refused."""
    with pytest.raises(errors.FeatureNotSupported, match="client_encoding is not supported"):
        db.execute(RUN, [here, QUERY, ["set client_encoding to euc_tw"]])
