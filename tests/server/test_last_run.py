"""last_run() reports what became of the last call, and unfinished() returns what is left of it."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import datetime, timedelta, timezone
from functools import partial

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, SLEEP, Connect, NewRole, cancel_once, notices, running
from psycopg import errors
from psycopg.types.json import Jsonb

RUN = "select * from pmpp.distribute(null::int, %s, %s, num_workers => %s)"
STATUS = "select query_number, status, sqlstate from pmpp.last_run() order by 1"
FAIL_AFTER_THE_OTHERS = """
    create or replace function fail_after_the_others() returns int language plpgsql as $$
    begin
        while not exists (select from seen)
           or exists (select from seen join pg_stat_activity using (pid))
           or not exists (
               select from pg_stat_activity
                where query ~ '^select 1 from pg_sleep'
                  and split_part(application_name, ' ', 2)
                    = split_part(current_setting('application_name'), ' ', 2))
        loop
            perform pg_sleep(0.01), pg_stat_clear_snapshot();
        end loop;
        return 1/0;
    end $$
"""


def test_success(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """Every query has a row, with what can be known about it."""
    before = datetime.now(timezone.utc)
    queries = ["select 1", "select pg_backend_pid() from pg_sleep(0.05)", "create table made (i int);"
               " drop table made; select i from generate_series(1, 3) i"]  # fmt: skip
    pids = [i for (i,) in db.execute(RUN, [there, queries[:2], 1]).fetchall()]
    recorded = db.execute("select * from pmpp.last_run()").fetchall()
    nothing = [None] * 5
    assert [row[:12] for row in recorded] == [
        (1, n, f"host=127.0.0.1 port={remote.port} dbname=postgres", query, "done", *nothing, 1, "SELECT 1")
        for n, query in enumerate(queries[:2], 1)
    ]  # fmt: skip
    for *_, started, duration, pid in recorded:
        assert before <= started < started + duration <= datetime.now(timezone.utc)
        assert pid in pids
    assert timedelta(seconds=0.05) <= recorded[1][13] < timedelta(seconds=20)
    db.execute(RUN, [there, ["select i from generate_series(1, 3) i; select 4"], 1])
    assert db.execute("select rows, command_tag from pmpp.last_run()").fetchall() == [
        (4, "SELECT 1")
    ]
    db.execute("select * from pmpp.meta(%s, array['create temporary table t()'])", [there])
    assert db.execute("select rows, command_tag from pmpp.last_run()").fetchall() == [
        (0, "CREATE TABLE")
    ]


def test_failure(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """After a failure there are queries of every status, and unfinished() has those not done."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute("drop table if exists seen; create table seen (pid int)")
        conn.execute(FAIL_AFTER_THE_OTHERS)
    assert db.execute("select * from pmpp.last_run()").fetchall() == []
    assert db.execute("select cardinality(pmpp.unfinished())").fetchall() == [(0,)]
    queries = [
        "insert into seen values (pg_backend_pid()) returning 0",
        SLEEP,
        "select fail_after_the_others()",
        "select 2",
    ]
    first = {"connection": there, "queries": queries[:1], "num_workers": 1}
    failing = [first, *({**first, "queries": [query]} for query in queries[1:3])]
    failing[2]["queries"] = [queries[2], queries[3]]
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("select * from pmpp.distribute(null::int, %s)", [Jsonb(failing)])
    recorded = db.execute(
        "select item, query_number, status, sqlstate, message, rows, command_tag,"
        "       started is null, duration is null, pid is null from pmpp.last_run()"
    ).fetchall()
    ran = (False, False, False)
    assert recorded == [
        (1, 1, "done", None, None, 1, "INSERT 0 1", *ran),
        (2, 1, "cancelled", None, None, 0, None, *ran),
        (3, 1, "failed", "22012", "division by zero", 0, None, *ran),
        (3, 2, "not started", None, None, 0, None, True, True, True),
    ]
    left = db.execute("select queries from unnest(pmpp.unfinished())").fetchall()
    assert left == [([SLEEP],), (queries[2:],)]


@pytest.mark.parametrize(
    ("broken", "sqlstate"),
    [
        ({"connection": "host=127.0.0.1 port=1"}, "08001"),
        ({"setup_commands": ["select 1/0"]}, "22012"),
    ],
)
def test_item_that_cannot_start(
    db: psycopg.Connection, there: str, broken: dict[str, object], sqlstate: str
) -> None:
    """last_run() has the error of the item that ended the call; unfinished() has every query."""
    items: list[dict[str, object]] = [
        {"connection": there, "queries": [SLEEP]},
        {"connection": there, "queries": ["select 1", "select 2"], "num_workers": 1, **broken},
        {"connection": there, "queries": [SLEEP], "setup_commands": [SLEEP]},
    ]
    with pytest.raises(psycopg.Error) as raised:
        db.execute("select * from pmpp.distribute(null::int, %s)", [Jsonb(items)])
    assert raised.value.sqlstate == sqlstate
    recorded = db.execute("select item, status, sqlstate, message from pmpp.last_run()").fetchall()
    assert [row for row in recorded if row[0] == 2] == [
        (2, "failed", sqlstate, raised.value.diag.message_primary)
    ] * 2
    assert not {status for item, status, _, _ in recorded if item != 2} - {
        "cancelled",
        "not started",
    }
    left = db.execute("select queries from unnest(pmpp.unfinished())").fetchall()
    assert left == [(item["queries"],) for item in items]


def test_cancel(db: psycopg.Connection, remote: Cluster, there: str) -> None:
    """After a cancel, last_run() has every query; after a call that is not valid, it is empty."""
    call = partial(db.execute, RUN, [there, ["select 1", SLEEP, "select 2"], 1])
    with pytest.raises(psycopg.errors.QueryCanceled):
        cancel_once(remote, running(db, SLEEP), db, call)
    assert db.execute(STATUS).fetchall() == [
        (1, "done", None), (2, "cancelled", None), (3, "not started", None)
    ]  # fmt: skip
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute(RUN, [there, [], 1])
    assert db.execute(STATUS).fetchall() == []


@pytest.mark.parametrize("on_error", ["stop", "continue"])
@pytest.mark.parametrize(
    ("row_type", "query", "sqlstate"),
    [
        ("int", "select 'x'", "22P02"),
        ("never_two", "select 2", "55000"),
        ("short", "select 'abcd'", "22001"),
    ],
)
def test_rows_that_cannot_be_delivered(
    db: psycopg.Connection, there: str, on_error: str, row_type: str, query: str, sqlstate: str
) -> None:
    """A query whose rows PostgreSQL refuses has failed, and is left."""
    db.execute(
        """
        create function refuse_two(i int) returns bool language plpgsql as
            $$ begin if i = 2 then raise 'no two' using errcode = '55000'; end if; return true; end $$;
        create domain never_two as int check (refuse_two(value));
        create type short as (a varchar(3))
        """
    )
    db.execute(f"set pmpp.on_error = '{on_error}'")
    run = RUN.replace("int", row_type)
    with pytest.raises(psycopg.Error, match="In a row of query 2 of item 1") as raised:
        db.execute(run, [there, ["select 1", query], 1])
    assert raised.value.sqlstate == sqlstate
    recorded = db.execute("select status, sqlstate, message, rows from pmpp.last_run()").fetchall()
    message = raised.value.diag.message_primary
    assert recorded == [("done", None, None, 1), ("failed", sqlstate, message, 0)]
    ((left,),) = db.execute("select queries from unnest(pmpp.unfinished())").fetchall()
    assert left == [query]


def test_record_that_cannot_be_delivered(db: psycopg.Connection, there: str) -> None:
    """Without a row type it is not known why, but it is not done."""
    manifest = [{"connection": there, "queries": ["select 1", "select 'x'"], "num_workers": 1}]
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        db.execute("select * from pmpp.distribute(%s) as (i int)", [Jsonb(manifest)])
    assert db.execute(STATUS).fetchall() == [(1, "done", None), (2, "cancelled", None)]


@pytest.mark.parametrize(
    "refused",
    [
        """select * from pmpp.distribute(null::int, '[{"connection": 5}]'::jsonb)""",
        """select * from pmpp.distribute('[{"connection": 5}]'::json) as (i int)""",
        "select * from pmpp.broadcast_tagged(null::int, '{}', 'select 1')",
        "select * from pmpp.meta(null, array['select 1'])",
    ],
)
def test_manifest_that_is_refused(db: psycopg.Connection, there: str, refused: str) -> None:
    """A call that is not valid has run nothing: what an older one left must not be run again."""
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute(RUN, [there, ["select 1/0"], 1])
    with pytest.raises(psycopg.errors.DataError):
        db.execute(refused)
    assert db.execute(STATUS).fetchall() == []
    assert db.execute("select cardinality(pmpp.unfinished())").fetchall() == [(0,)]


def test_it_stays_the_same(db: psycopg.Connection, there: str) -> None:
    """last_run() returns the same rows each time, to the microsecond."""
    db.execute(RUN, [there, ["select 1", "select 2"], 1])
    first = db.execute("select * from pmpp.last_run()").fetchall()
    assert all(db.execute("select * from pmpp.last_run()").fetchall() == first for _ in range(20))


def test_transaction_that_is_undone(db: psycopg.Connection, there: str) -> None:
    """last_run() does not depend on the caller's transaction, nor on an error caught in it."""
    db.execute("begin")
    db.execute(
        "do $$ begin perform * from pmpp.distribute(null::int, '"
        + there
        + "', array['select 1', 'select 1/0'], num_workers => 1);"
        " exception when division_by_zero then null; end $$"
    )
    expected = [(1, "done", None), (2, "failed", "22012")]
    assert db.execute(STATUS).fetchall() == expected
    db.execute("rollback")
    assert db.execute(STATUS).fetchall() == expected


def test_who_may_see_it(
    db: psycopg.Connection,
    connect: Connect,
    new_role: NewRole,
    by_network: str,
) -> None:
    """Only the role that made the call sees it, and nobody sees a password."""
    user, other = new_role(), new_role()
    db.execute(f'grant "{other}" to "{user}"')
    db.execute(
        "create function look() returns bigint language sql security definer as"
        " 'select count(*) + cardinality(pmpp.unfinished()) from pmpp.last_run()'"
    )
    session = connect(user=user)
    connection = f"{by_network} password={PASSWORD}"
    session.execute("set pmpp.on_error = 'continue'")
    session.execute(RUN, [connection, ["select 1", "select 1/0"], 1])
    seen = session.execute("select r::text from pmpp.last_run() r").fetchall()
    assert len(seen) == 2
    assert PASSWORD not in str(seen)
    ((again,),) = session.execute("select connection from unnest(pmpp.unfinished())").fetchall()
    assert again == connection
    assert session.execute("select look()").fetchall() == [(0,)]
    session.execute(f'set role "{other}"')
    assert session.execute("select * from pmpp.last_run()").fetchall() == []
    assert session.execute("select cardinality(pmpp.unfinished())").fetchall() == [(0,)]
    session.execute("reset role")
    assert len(session.execute("select * from pmpp.last_run()").fetchall()) == 2
    assert connect(user=user).execute("select * from pmpp.last_run()").fetchall() == []


# What poolers and pools send before a session goes to the next client.
RESETS = [
    "discard all",
    "set session authorization default; reset all; close all; unlisten *;"
    " select pg_advisory_unlock_all(); discard plans; discard sequences; discard temp",
]
OTHER_RESETS = ["discard temp", "discard plans", "discard sequences", "reset all", "deallocate all",
                "close all", "begin; rollback", "reset session authorization", "reset role"]  # fmt: skip


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("query", ["select 1", "select x"])
def test_next_client_of_the_session(
    db: psycopg.Connection, there: str, query: str, in_transaction: bool
) -> None:
    """What a call leaves ends when the session is reset for another client, and not before."""
    left = "select count(*) + coalesce(cardinality(pmpp.unfinished()), 0) from pmpp.last_run()"
    for reset in RESETS:
        with (
            suppress(errors.UndefinedColumn),
            db.transaction() if in_transaction else nullcontext(),
        ):
            db.execute(RUN, [there, [query], 1])
        for other in OTHER_RESETS:
            db.execute(other)
        ((before,),) = db.execute(left).fetchall()
        assert before >= 1
        db.execute(reset)
        assert db.execute(left).fetchall() == [(0,)]


def test_what_is_left_of_a_failure(db: psycopg.Connection, there: str, new_role: NewRole) -> None:
    """Only the holder of the key of a call gets the failure that it left."""
    caught = "row('22012', 'mine', '', '', '', '', '', '', '')::pmpp._error"
    failure = f"select sqlstate, message, detail, hint from pmpp._failure(%s, {caught})"
    fail = "select pmpp._columns(pmpp._hand_over(array[row(%s, array['select x'], null, 1, null, null)::pmpp.query_manifest]), '{23}')"
    role = new_role()
    for change in (f'set role "{role}"', "discard all"):
        with pytest.raises(psycopg.Error):
            db.execute(fail, [there])
        db.execute(change)
        for key in (None, 0):
            assert db.execute(failure, [key]).fetchall() == [("22012", "mine", None, None)]
        db.execute("reset role")


def test_names_of_roles(db: psycopg.Connection, connect: Connect, there: str) -> None:
    """last_run() belongs to a role, also when the role is renamed, and not to its name."""
    count = "select count(*) from pmpp.last_run()"
    db.execute("create role mover superuser; create role stayer superuser")
    db.execute("set role mover")
    db.execute(RUN, [there, ["select 1"], 1])
    with connect() as other:
        other.execute("alter role mover rename to moved; alter role stayer rename to mover")
        for role, expected in (("mover", 0), ("moved", 1)):
            db.execute(f"set role {role}")
            assert db.execute(count).fetchall() == [(expected,)]
        db.execute("reset role; set session authorization moved")
        assert db.execute(count).fetchall() == [(1,)]
        db.execute("reset session authorization")
        assert db.execute(count).fetchall() == [(0,)]
        other.execute("drop role moved; create role moved superuser")
    db.execute("set role moved")
    assert db.execute(count).fetchall() == [(0,)]
    db.execute("reset role; drop role mover, moved")


def test_lock_that_others_hold(db: psycopg.Connection, connect: Connect, there: str) -> None:
    """A session that takes the lock from pg_locks keeps no call waiting, and reads nothing."""
    db.execute(RUN, [there, ["select 1"], 1])
    db.execute("discard all")
    lock = "select distinct classid::int, objid::int from pg_locks where locktype = 'advisory' and pid = %s"
    assert db.execute(lock, [db.info.backend_pid]).fetchall() == []
    db.execute(RUN, [there, ["select 1"], 1])
    (key,) = db.execute(lock, [db.info.backend_pid]).fetchall()
    db.execute("discard all")
    with connect() as other:
        other.execute("select pg_advisory_lock(%s, %s)", key)
        db.execute(RUN, [there, ["select 1"], 1])
        assert db.execute("select count(*) from pmpp.last_run()").fetchall() == [(1,)]
        assert db.execute(lock, [db.info.backend_pid]).fetchall() != [key]


def test_index_builds_are_resumed(db: psycopg.Connection, here: str) -> None:
    """Of many index builds three fail; cured, they are resumed with one line."""
    names = [f"c{n}" for n in range(30)]
    db.execute(f"create table wide ({', '.join(f'{name} int' for name in names)})")
    builds = [f"create index {name}_index on wide ({name})" for name in names]
    for taken in ("c3_index", "c14_index", "c29_index"):
        db.execute(f"create table {taken} ()")
    db.execute("set pmpp.on_error = 'continue'")
    got = notices(db)
    done = db.execute(
        "select * from pmpp.meta(%s, %s, num_workers => 2)", [here, builds]
    ).fetchall()
    assert len(done) == 27
    assert sorted(str(message) for _, message, _, _ in got) == [
        f'relation "{name}_index" already exists' for name in ("c14", "c29", "c3")
    ]
    db.execute("drop table c3_index, c14_index, c29_index")
    resume = "select * from pmpp.distribute(null::pmpp.command_with_result, pmpp.unfinished())"
    assert sorted(db.execute(resume).fetchall()) == sorted(
        (builds[n], "CREATE INDEX") for n in (3, 14, 29)
    )
    indexes = db.execute(
        "select indexrelid::regclass::text from pg_index where indrelid = 'wide'::regclass"
    )
    assert sorted(name for (name,) in indexes) == sorted(f"{name}_index" for name in names)
    assert db.execute("select cardinality(pmpp.unfinished())").fetchall() == [(0,)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the manifest has no items"):
        db.execute(resume)


def test_fields_of_items_are_kept(db: psycopg.Connection, there: str) -> None:
    """What is left is run in the same way, on the caller's own connection string."""
    manifest = (
        "array[row(%s, array['select 1', 'select x'], null, 2, array['set a.b to 1'], 'binary'),"
        " row(%s, array['select y'], 0.5, null, null, null),"
        " row(%s, array['select 3'], null, 1, null, null)]::pmpp.query_manifest[]"
    )
    secret = f"{there} password={PASSWORD}"
    db.execute("set pmpp.on_error = 'continue'")
    db.execute(f"select * from pmpp.distribute(null::int, {manifest})", [secret, there, there])
    assert db.execute("select * from unnest(pmpp.unfinished())").fetchall() == [
        (secret, ["select x"], 1.0, 2, ["set a.b to 1"], "binary"),
        (there, ["select y"], 0.5, None, None, None),
    ]
    assert PASSWORD not in str(db.execute("select r::text from pmpp.last_run() r").fetchall())
