"""With messages of level DEBUG1, an administrator sees the steps of a call."""

from __future__ import annotations

import re
from contextlib import suppress

import psycopg
import pytest

STEP = re.compile(r"item \d|process \d|asked \d")


def steps(db: psycopg.Connection, statement: str, *arguments: object) -> list[str]:
    """The steps that a call reports, with N in place of each process id."""
    received: list[tuple[str, str]] = []
    db.add_notice_handler(lambda d: received.append((d.severity_nonlocalized or "", d.message_primary or "")))  # fmt: skip
    with suppress(psycopg.Error):
        db.execute(statement, arguments)
    reported = [message for severity, message in received if severity == "DEBUG"]
    return [re.sub(r"process \d+", "process N", text) for text in reported if STEP.match(text)]


def test_steps(db: psycopg.Connection, there: str) -> None:
    """Connects, queries and the end of each connection are reported, and no password."""
    call = "select * from pmpp.distribute(null::int, %s, array['select 1', 'select 2'], num_workers => 1)"
    connection = f"{there} password=secret"
    assert steps(db, call, connection) == []
    db.execute("set client_min_messages to debug1")
    reported = steps(db, call, connection)
    shown = re.sub("item 1: connecting to ", "", reported[0])
    assert reported == [
        f"item 1: connecting to {shown}",
        f"item 1: connected to {shown}, process N",
        f"process N runs query 1 of item 1 on {shown}: select 1",
        f"process N has run query 1 of item 1 on {shown}: select 1",
        f"process N runs query 2 of item 1 on {shown}: select 2",
        f"process N has run query 2 of item 1 on {shown}: select 2",
        "item 1: closing the connection of process N",
    ]
    assert "secret" not in "".join(reported)


@pytest.mark.parametrize("stop", ["set statement_timeout to '1s'", "set pmpp.on_error to stop"])
def test_cancels(db: psycopg.Connection, there: str, stop: str) -> None:
    """A call that fails reports how many connections it asks to cancel."""
    db.execute("set client_min_messages to debug1")
    db.execute(stop)
    queries = ["select 1 from pg_sleep(100)"] * 2
    if "timeout" not in stop:
        queries.append("select 1 / 0 from pg_sleep(0.5)")
    call = "select * from pmpp.distribute(null::int, %s, %s, num_workers => 3)"
    assert "asked 2 connections to cancel what they run" in steps(db, call, there, queries)
