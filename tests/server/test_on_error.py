"""With pmpp.on_error = 'continue' only the queries that fail are lost."""

from __future__ import annotations

import json
from functools import partial

import psycopg
import pytest
from cluster import Cluster
from forwarder import Forwarder
from helpers import MEET, SLEEP, cancel_once, descriptors, eventually, notices, running, workers_of
from hypothesis import given, settings
from hypothesis import strategies as st

Notices = list[tuple[str | None, ...]]

UNKNOWN = [
    ("on_error", "ignore"),
    ("max_result_size", "huge"),
    ("max_workers", "0"),
    ("connect_retries", "-1"),
    ("connect_retries", "9999999999"),
    ("max_result_size", "1000kB"),
    ("progress", "often"),
    ("progress", "-1s"),
]

KILL = "select 0 from pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def got(db: psycopg.Connection) -> Notices:
    """The notices of a session whose calls go on when queries fail."""
    db.execute("set pmpp.on_error = 'continue'")
    return notices(db)


def numbers(
    db: psycopg.Connection, *items: dict[str, object], form: str = "null::int"
) -> list[int]:
    """Run a manifest whose queries return integers; nothing may be left in the process."""
    db.execute("select pmpp._load()")
    before = descriptors(db.info.backend_pid)
    call = "select * from pmpp.distribute(null::int, %s::jsonb)"
    if form == "record":
        call = "select * from pmpp.distribute(%s::jsonb) as (i int)"
    try:
        return sorted(i for (i,) in db.execute(call, [json.dumps(items)]).fetchall())
    finally:
        assert descriptors(db.info.backend_pid) == before


def item(connection: str, *queries: str, **fields: object) -> dict[str, object]:
    return {"connection": connection, "queries": queries, "num_workers": 1, **fields}


@pytest.mark.parametrize(
    ("form", "result_format"),
    [("polymorphic", None), ("polymorphic", "binary"), ("record", "text")],
)
def test_failed_query(
    db: psycopg.Connection, there: str, got: Notices, form: str, result_format: str | None
) -> None:
    """A warning has the fields of the remote server's error, and the other queries' rows arrive."""
    raise_all = """
        create function pg_temp.raise_all() returns int language plpgsql as
        $$ begin raise exception using message = 'no', detail = 'Because.', hint = 'Do.'; end $$
    """
    queries = item(there, "select 1", "select pg_temp.raise_all()", "select 2",
                   result_format=result_format, setup_commands=[raise_all])  # fmt: skip
    assert numbers(db, queries, form=form) == [1, 2]
    ((severity, message, detail, hint),) = got
    assert (severity, message, hint) == ("WARNING", "no", "Do.")
    because, context, where = str(detail).splitlines()
    assert because == "Because."
    assert context.startswith("PL/pgSQL function pg_temp_")
    assert where.startswith("Query 2 of item 1 on host=127.0.0.1")


def test_no_rows_of_a_failed_query(db: psycopg.Connection, there: str, got: Notices) -> None:
    """A query that fails after it has sent rows delivers none of them."""
    late = "select 1 / (20000 - i) from generate_series(1, 20000) i"
    several = "select 7; select 8; select 1/0"
    assert numbers(db, item(there, late, several, "select 9; select 10")) == [9, 10]
    assert [message for _, message, _, _ in got] == ["division by zero"] * 2
    recorded = db.execute("select status, rows, command_tag from pmpp.last_run()").fetchall()
    assert recorded == [("failed", 0, None), ("failed", 0, None), ("done", 2, "SELECT 1")]


def test_all_queries_fail(db: psycopg.Connection, there: str, got: Notices) -> None:
    """If no query succeeds the call fails, with the first error."""
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        numbers(db, item(there, "select 1/0", "select x"), item(there, "select y"))
    assert raised.value.diag.message_primary == (
        "all 3 queries failed, the first with: division by zero"
    )
    with pytest.raises(psycopg.errors.DivisionByZero, match=r"^division by zero\n"):
        numbers(db, item(there, "select 1/0"))


def test_lost_connection(db: psycopg.Connection, there: str, got: Notices) -> None:
    """If a connection is lost, only its query fails; pmpp runs the others on a new connection."""
    setup = ["set a.b to 5"]
    own = "select current_setting('a.b')::int"
    assert numbers(db, item(there, own, KILL, own, KILL, own, setup_commands=setup)) == [5, 5, 5]
    assert [message for _, message, _, _ in got] == [
        "terminating connection due to administrator command"
    ] * 2
    ((pids,),) = db.execute("select count(distinct pid) from pmpp.last_run()").fetchall()
    assert pids == 3


def test_network_that_fails(
    db: psycopg.Connection, remote: Cluster, there: str, got: Notices
) -> None:
    """If a connection ends within a result, pmpp fails that query and does not send it again."""
    large = "select i from generate_series(1, 100000) i"
    with Forwarder(remote.port, "close", 100_000) as network:
        broken = f"{there} port={network.port}"
        assert numbers(db, item(broken, large, "select 1", large, "select 2")) == [1, 2]
    assert [str(message).split(" to ")[0] for _, message, _, _ in got] == [
        "lost the connection"
    ] * 2


@pytest.mark.parametrize("result_format", [None, "binary"])
def test_transaction_begun_by_setup_commands(
    db: psycopg.Connection, there: str, got: Notices, result_format: str | None
) -> None:
    """If a query fails in a transaction, pmpp runs those after it on a new connection."""
    queries = ["select 1", "select 1/0", "select 2", "select 3"]
    manifest = item(there, *queries, setup_commands=["begin"], result_format=result_format)
    assert numbers(db, manifest) == [1, 2, 3]
    assert len(got) == 1


def test_same_snapshot(db: psycopg.Connection, here: str, got: Notices) -> None:
    """The connection that takes the place of another has the same snapshot."""
    rows = db.execute(
        "select * from pmpp.distribute(null::text, %s, %s, num_workers => 1,"
        " setup_commands => pmpp.same_snapshot())",
        [here, ["select 1/0", "show transaction_isolation"]],
    ).fetchall()
    assert rows == [("repeatable read",)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"connection": "host=127.0.0.1 port=1"}, "could not connect to host=127.0.0.1 port=1"),
        ({"setup_commands": ["select 1/0"]}, "division by zero"),
        ({"setup_commands": [KILL]}, "terminating connection due to administrator command"),
        ({"dbname": "template1", "num_workers": None}, "could not ask .* for its number of CPUs"),
        ({"dbname": "nowhere"}, "could not connect to .*"),
    ],
)  # fmt: skip
def test_item_that_fails(
    db: psycopg.Connection, there: str, got: Notices, broken: dict[str, object], message: str
) -> None:
    """An item that cannot be reached or set up fails its own queries, with one warning."""
    there_too = f"{there} dbname={broken.pop('dbname', 'postgres')}"
    bad = {**item(there_too, "select 3", "select 4"), **broken}
    assert numbers(db, item(there, "select 1"), bad, item(there, "select 2")) == [1, 2]
    ((severity, shown, _, _),) = got
    assert severity == "WARNING"
    failed = db.execute(
        "select message ~ %s from pmpp.last_run() where item = 2 and status = 'failed'", [message]
    ).fetchall()
    assert failed == [(True,), (True,)]
    assert db.execute("select %s ~ %s", [shown, message]).fetchall() == [(True,)]


def test_queries_that_pmpp_refuses(
    db: psycopg.Connection, remote: Cluster, there: str, got: Notices
) -> None:
    """pmpp fails a query with a result that is too large or a COPY, and closes its connection."""
    db.execute("set pmpp.max_result_size = '1MB'")
    large = "select i from generate_series(1, 1000000) i"
    copies = "copy (select 1) to stdout", "copy pg_class from stdin"
    assert numbers(db, item(there, "select 1", large, *copies, "select 2")) == [1, 2]
    assert [shown for _, shown, _, _ in got] == [
        "the result is larger than pmpp.max_result_size",
        "COPY FROM STDIN and COPY TO STDOUT cannot be used in a query of pmpp",
        "COPY FROM STDIN and COPY TO STDOUT cannot be used in a query of pmpp",
    ]
    eventually(remote, f"not exists ({workers_of(db.info.backend_pid)})")


def test_some_setup_commands_fail(db: psycopg.Connection, here: str, got: Notices) -> None:
    """pmpp warns about a connection that it cannot set up, and runs every query on the others."""
    db.execute(MEET)
    queries = [f"select {n} from wait_for_arrivals(3)" for n in range(6)]
    setup = ["select 1 / (nextval('arrivals') - 2)"]
    manifest = item(here, *queries, num_workers=3, setup_commands=setup)
    assert numbers(db, manifest) == list(range(6))
    ((_, message, detail, _),) = got
    assert message == "item 1: going on with 2 of 3 connections"
    assert str(detail).startswith("division by zero\nSetup command 1 of item 1 on ")


def test_no_setup_command_succeeds(db: psycopg.Connection, there: str, got: Notices) -> None:
    """If pmpp can set up no connection of an item, it warns once and names the reason."""
    bad = item(there, "select 1", "select 2", num_workers=2, setup_commands=["set nope to 1"])
    assert numbers(db, bad, item(there, "select 3")) == [3]
    assert [message for _, message, _, _ in got] == ['unrecognized configuration parameter "nope"']


def test_cancel(db: psycopg.Connection, remote: Cluster, there: str, got: Notices) -> None:
    """A cancel ends the call and what it runs, as it does without continuing."""
    manifest = item(there, "select 1/0", SLEEP, "select 2")
    with pytest.raises(psycopg.errors.QueryCanceled, match="due to user request"):
        cancel_once(remote, running(db, SLEEP), db, partial(numbers, db, manifest))
    statuses = db.execute("select status from pmpp.last_run()").fetchall()
    assert statuses == [("failed",), ("cancelled",), ("not started",)]
    eventually(remote, f"not {running(db, SLEEP)}")


def test_other_columns(db: psycopg.Connection, there: str, got: Notices) -> None:
    """A query that returns other columns than the row type has fails like any other."""
    other = ["select 2, 3", "set a.b to 1", "select 4; select"]
    manifest = item(there, "select 1", *other, "select 5")
    assert numbers(db, manifest) == [1, 5]
    assert len(got) == 3
    recorded = db.execute("select status, sqlstate, rows from pmpp.last_run()").fetchall()
    assert recorded[1:4] == [("failed", "42804", 0)] * 3
    # Without a row type the first result decides how many columns there are.
    first, second = "select 2, 3 where false", "select 1"
    with pytest.raises(psycopg.errors.DatatypeMismatch, match="expected 2, got 1"):
        numbers(db, item(there, first, second), form="record")
    recorded = db.execute("select status, sqlstate, rows from pmpp.last_run()").fetchall()
    assert recorded == [("done", None, 0), ("failed", "42804", 0)]


def test_row_that_does_not_fit(db: psycopg.Connection, there: str, got: Notices) -> None:
    """A value that PostgreSQL refuses here ends the call: others may have been delivered."""
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        numbers(db, item(there, "select 1", "select 'x'"))


# Queries with the rows that they give, and what items have besides; None: they lead nowhere.
QUERIES: dict[str, list[int]] = {
    "select 1": [1],
    "select 2; select 3": [2, 3],
    "select 4; select 1/0": [],
    "copy (select 1) to stdout": [],
    KILL: [],
}
KINDS: list[dict[str, object] | None] = [{}, {}, {"setup_commands": ["begin"]}, None]

mixtures = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.lists(st.sampled_from(sorted(QUERIES)), min_size=1, max_size=6),
        st.sampled_from([None, 1, 2, 5]),
    ),
    min_size=1,
    max_size=4,
)


def test_any_mixture(db: psycopg.Connection, there: str, got: Notices) -> None:
    """Whatever fails, and however few connections there are, the other queries' rows arrive."""

    @settings(max_examples=25)
    @given(mixtures, st.sampled_from(["", "1", "2"]))
    def check(mixture: list[tuple[dict[str, object] | None, list[str], int]], most: str) -> None:
        manifest, expected = [item(there, "select 0")], [0]
        for kind, queries, workers in mixture:
            place = f"{there} port=1" if kind is None else there
            manifest.append(item(place, *queries, **{"num_workers": workers, **(kind or {})}))
            if kind is not None:
                expected += [row for query in queries for row in QUERIES[query]]
        db.execute(f"set pmpp.max_workers = '{most}'")
        assert numbers(db, *manifest) == sorted(expected)

    check()


def test_default_and_reset(db: psycopg.Connection, there: str) -> None:
    """A call stops at the first error if pmpp.on_error is not set."""
    manifest = item(there, "select 1/0", "select 1")
    for command in ("select", "set pmpp.on_error = 'stop'", "set pmpp.on_error = 'continue'"):
        db.execute(command)
        if "continue" in command:
            assert numbers(db, manifest) == [1]
            db.execute("reset pmpp.on_error")
        with pytest.raises(psycopg.errors.DivisionByZero, match=r"^division by zero\n"):
            numbers(db, manifest)


def test_unknown_values(db: psycopg.Connection, there: str) -> None:
    """A call raises an error if a setting has an invalid value."""
    for name, value in UNKNOWN:
        db.execute(f"set pmpp.{name} = '{value}'")
        for form in ("polymorphic", "record"):
            with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
                numbers(db, item(there, "select 1"), form=form)
            shown = str(raised.value.diag.message_primary)
            assert f"invalid value for pmpp.{name}: {value}" in shown
            assert raised.value.diag.message_hint
        db.execute(f"reset pmpp.{name}")
    assert numbers(db, item(there, "select 1")) == [1]
