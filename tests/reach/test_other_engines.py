"""Answers of servers that are very old or are not PostgreSQL, which a listener here sends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest
from cluster import Cluster
from forwarder import Forwarder
from helpers import PASSWORD, notices
from listener import listener, message
from psycopg import errors

CALL = "select t::text from pmpp.distribute(null::{}, %s, array['select 1'], num_workers => 1) t"
MONEY, MONEY_ARRAY = 790, 791


def fields(**texts: str) -> bytes:
    """The body of an error or a notice."""
    return b"".join(name.encode() + text.encode() + b"\0" for name, text in texts.items()) + b"\0"


def row(value: bytes, oid: int, *, is_binary: bool = False) -> bytes:
    """A result of one row with one column."""
    return (
        message(
            b"T",
            struct.pack("!h", 1) + b"c\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, is_binary),
        )
        + message(b"D", struct.pack("!hi", 1, len(value)) + value)
        + message(b"C", b"SELECT 1\0")
    )


@contextmanager
def engine(answer: bytes, refused: bytes = b"", **parameters: str) -> Iterator[str]:
    """Serve one connection; yields a connection string.

    Args:
        answer: the answer to a query.
        refused: the answer to SET and set_config().
        parameters: what the server reports about itself.
    """
    serve = partial(_serve, answer, refused, parameters)
    with listener(serve) as port:
        yield f"host=127.0.0.1 port={port} dbname=x user=x sslmode=disable"


def _serve(
    answer: bytes, refused: bytes, parameters: Mapping[str, str], client: socket.socket
) -> None:
    ready = message(b"Z", b"I")
    with client.makefile("rb") as received:
        (length,) = struct.unpack("!i", received.read(4))
        received.read(length - 4)
        client.sendall(message(b"R", bytes(4)))
        for name, value in parameters.items():
            client.sendall(message(b"S", f"{name}\0{value}\0".encode()))
        client.sendall(ready)
        while received.read(1) == b"Q":
            (length,) = struct.unpack("!i", received.read(4))
            query = received.read(length - 4)
            is_set = query.startswith(b"set ") or b"set_config(" in query
            client.sendall((refused if is_set else answer) + ready)


def test_says_nothing_about_itself(caller: psycopg.Connection) -> None:
    """pmpp calls a server that reports no parameters, not even its version."""
    with engine(row(b"7", 0)) as there:
        assert caller.execute(CALL.format("int"), [there]).fetchall() == [("7",)]


def test_warning_without_severity_in_english(caller: psycopg.Connection) -> None:
    """A warning of a server before 9.6, which has one field for the severity, stays a warning."""
    warning = message(b"N", fields(S="WARNING", C="01000", M="beware"))
    got = notices(caller)
    with engine(warning + row(b"7", 23), server_version="8.0.2") as there:
        caller.execute(CALL.format("int"), [there])
    assert [(severity, text) for severity, text, *_ in got] == [("WARNING", "beware")]


def test_error_without_a_word(caller: psycopg.Connection) -> None:
    """pmpp reports an error without message and SQLSTATE as an error, not as a lost connection."""
    with (
        engine(message(b"E", fields(S="ERROR"))) as there,
        pytest.raises(errors.InternalError_, match="the remote gave no message") as raised,
    ):
        caller.execute(CALL.format("int"), [there])
    assert "Query 1 of item 1" in str(raised.value.diag.message_detail)


class ReportsIso(Forwarder):
    """A pooler that reports the DateStyle of another session than the one that it hands out."""

    @staticmethod
    def _receive(source: socket.socket) -> bytes:
        received = Forwarder._receive(source)
        return received.replace(b"DateStyle\0SQL, DMY\0", b"DateStyle\0ISO, DMY\0")


@pytest.mark.parametrize(
    ("type_name", "oid", "value"),
    [
        ("date", 1082, b"01/02/2020"),
        ("date[]", 1182, b"[0:1]={infinity,01/02/2020}"),
        ("timestamp[]", 1115, b'{"Sat Feb 01 01:02:00 2020"}'),
        ("timestamptz[]", 1185, b'{"01.02.2020 01:02:00 CET"}'),
        ("daterange", 3912, b"[01-02-2020,02-03-2020)"),
        ("tsrange[]", 3909, b'{"[\\"01/02/2020 00:00:00\\",)"}'),
        ("datemultirange", 4535, b"{[01/02/2020,02/03/2020)}"),
    ],
)
def test_dates_of_another_session(
    caller: psycopg.Connection, type_name: str, oid: int, value: bytes
) -> None:
    """pmpp refuses dates that are not in ISO style, also in arrays and ranges."""
    with (
        engine(row(value, oid)) as there,
        pytest.raises(errors.FeatureNotSupported, match="another DateStyle than ISO"),
    ):
        caller.execute(CALL.format(type_name), [there])


@pytest.mark.parametrize(
    ("type_name", "oid", "value"),
    [
        ("date[]", 1182, b"[0:1]={-infinity,NULL}"),
        ("timestamptz[]", 1185, b'{"2020-02-01 01:02:00+01"}'),
        ("daterange", 3912, b"empty"),
        ("tsrange", 3908, b'["10000-02-01 00:00:00",infinity)'),
        ("datemultirange", 4535, b"{(,2020-02-01),[2021-02-01,)}"),
    ],
)
def test_dates(caller: psycopg.Connection, type_name: str, oid: int, value: bytes) -> None:
    """Dates in ISO style arrive, and so do values that contain no date."""
    with engine(row(value, oid)) as there:
        rows = caller.execute(CALL.format(type_name), [there]).fetchall()
    assert caller.execute(f"select %s::{type_name}::text", [value.decode()]).fetchall() == rows


def test_another_style_than_reported(
    session: psycopg.Connection, caller: psycopg.Connection, cluster: Cluster
) -> None:
    """pmpp sets ISO style in a session that has another style, whatever the pooler reported."""
    session.execute(f"create role dmy login superuser password '{PASSWORD}'")
    session.execute("alter role dmy set datestyle to 'SQL, DMY'")
    query = "select row(date '2020-02-01', array[date '2020-02-01'])::text"
    with ReportsIso(cluster.port) as pooler:
        there = f"host=127.0.0.1 port={pooler.port} user=dmy password={PASSWORD} dbname={session.info.dbname}"
        call = "select t from pmpp.distribute(null::text, %s, array[%s], num_workers => 1) t"
        rows = caller.execute(call, [there, query]).fetchall()
    session.execute("drop role dmy")
    assert rows == [("(2020-02-01,{2020-02-01})",)]


@pytest.mark.parametrize(
    ("type_name", "oid", "value"),
    [("money", MONEY, b"1.234,56"), ("money[]", MONEY_ARRAY, b'{"1.234,56"}')],
)
@pytest.mark.parametrize("version", ["8.4.22", "13.0"])
def test_money(
    caller: psycopg.Connection, version: str, type_name: str, oid: int, value: bytes
) -> None:
    """pmpp refuses money of a server that cannot set lc_monetary."""
    refused = message(b"E", fields(S="ERROR", C="42704", M="no such parameter"))
    with (
        engine(row(value, oid), refused, server_version=version) as there,
        pytest.raises(errors.FeatureNotSupported, match="cannot write values of type money"),
    ):
        caller.execute(CALL.format(type_name), [there])


def test_dates_in_another_style(caller: psycopg.Connection) -> None:
    """The call fails with the error of a server that refuses to write dates in ISO style."""
    refused = message(b"E", fields(S="ERROR", C="0A000", M="DateStyle is fixed"))
    with (
        engine(row(b"01/02/2020", 1082), refused, DateStyle="SQL, DMY") as there,
        pytest.raises(errors.FeatureNotSupported, match="DateStyle is fixed") as raised,
    ):
        caller.execute(CALL.format("date"), [there])
    assert "Item 1 on host=127.0.0.1" in str(raised.value.diag.message_detail)


@pytest.mark.parametrize(("oid", "value"), [(16, b"f"), (20, b"12"), (21, b"1"), (23, b"12345")])
def test_text_that_is_called_binary(caller: psycopg.Connection, oid: int, value: bytes) -> None:
    """pmpp refuses a binary value that cannot be of the type that the server names."""
    with (
        engine(row(value, oid, is_binary=True)) as there,
        pytest.raises(psycopg.DataError, match="not what its type looks like") as raised,
    ):
        caller.execute(CALL.format("text"), [there])
    assert "query 1 of item 1" in str(raised.value.diag.message_detail)
