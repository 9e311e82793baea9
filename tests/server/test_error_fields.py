"""All fields of what a remote server says reach the caller, in every form and in last_run()."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, NewRole, notices
from psycopg import sql
from psycopg.types.json import Jsonb

NAMES = ("schema_name", "table_name", "column_name", "datatype_name", "constraint_name")
ITEM = "array[row(%(c)s, array[%(q)s], null, 1, null, {})::pmpp.query_manifest]"
FORMS = {
    "one connection": "select * from pmpp.distribute(null::int, %(c)s, array[%(q)s])",
    "text": f"select * from pmpp.distribute(null::int, {ITEM.format(repr('text'))})",
    "binary": f"select * from pmpp.distribute(null::int, {ITEM.format(repr('binary'))})",
    "record": f"select * from pmpp.distribute({ITEM.format('null')}) as (i int)",
    "json": "select * from pmpp.distribute(null::int, %(j)s::json)",
    "jsonb": "select * from pmpp.distribute(null::int, %(j)s)",
    "record, json": "select * from pmpp.distribute(%(j)s::json) as (i int)",
    "record, jsonb": "select * from pmpp.distribute(%(j)s) as (i int)",
    "meta": "select * from pmpp.meta(%(c)s, array[%(q)s])",
    "broadcast": "select * from pmpp.broadcast(null::int, array[%(c)s], %(q)s)",
    "tagged": f"select * from pmpp.distribute_tagged(null::int, {ITEM.format('null')})",
    "tagged, json": "select * from pmpp.distribute_tagged(null::int, %(j)s::json)",
    "tagged, jsonb": "select * from pmpp.distribute_tagged(null::int, %(j)s)",
    "tagged broadcast": "select * from pmpp.broadcast_tagged(null::int, array[%(c)s], %(q)s)",
}
LAST_RUN = "select sqlstate, message, detail, hint, context from pmpp.last_run()"


@pytest.fixture
def noisy(db: psycopg.Connection, there: str, remote: Cluster) -> Iterator[psycopg.Connection]:
    """A session, and functions on the remote server that complain."""
    with psycopg.connect(remote.superuser(), autocommit=True) as conn:
        conn.execute(
            """
            create schema noisy;
            create domain noisy.even as int check (value % 2 = 0);
            create table noisy.price (i int not null, amount int constraint above check (amount > 0));
            create function noisy.deep(i int) returns int language plpgsql as
                $$ begin return noisy.deeper(i); end $$;
            create function noisy.deeper(i int) returns int language plpgsql as
                $$ begin return 1 / i; end $$;
            create function noisy.say(level text, code text) returns int language plpgsql as
                $$ begin
                    if level = 'notice' then
                        raise notice 'm' using errcode = code, detail = 'd', hint = 'h', schema = 's',
                            table = 't', column = 'c', datatype = 'y', constraint = 'k';
                    end if;
                    raise warning 'm' using errcode = code, detail = 'd', hint = 'h', schema = 's',
                        table = 't', column = 'c', datatype = 'y', constraint = 'k';
                    if level = 'error' then
                        raise 'm' using errcode = code, detail = 'd', hint = 'h', schema = 's',
                            table = 't', column = 'c', datatype = 'y', constraint = 'k';
                    end if;
                    return 1;
                end $$;
            """
        )
        yield db
        conn.execute("drop schema noisy cascade")


def fields_of_notices(conn: psycopg.Connection) -> list[dict[str, str | None]]:
    """Return a list to which the fields of each notice that a session gets are added."""
    got: list[dict[str, str | None]] = []
    fields = ("severity_nonlocalized", "sqlstate", "message_primary", "message_detail",
              "message_hint", *NAMES)  # fmt: skip
    conn.add_notice_handler(lambda d: got.append({name: getattr(d, name) for name in fields}))
    return got


def names(error: psycopg.Error) -> tuple[str | None, ...]:
    return tuple(getattr(error.diag, name) or None for name in NAMES)


@pytest.mark.parametrize("form", FORMS)
def test_every_form(noisy: psycopg.Connection, there: str, form: str) -> None:
    """Every form has all fields; the SQL wrapper functions in PL/pgSQL add two lines of CONTEXT."""
    query = "select noisy.say('error', 'ZZ123')"
    item = Jsonb([{"connection": there, "query": query, "num_workers": 1}])
    noisy.execute("set client_min_messages to error")
    with pytest.raises(psycopg.Error) as raised:
        noisy.execute(FORMS[form], {"c": there, "q": query, "j": item})
    diag = raised.value.diag
    where = f"Query 1 of item 1 on {there.replace(' user=postgres', '')}: {query}"
    inner = "PL/pgSQL function noisy.say(text,text) line 9 at RAISE"
    assert diag.sqlstate == "ZZ123"
    assert diag.message_primary == ("pmpp: m" if form.startswith("record") else "m")
    assert diag.message_detail == f"d\n{inner}\n{where}"
    assert diag.message_hint == "h"
    assert names(raised.value) == ("s", "t", "c", "y", "k")
    context = (diag.context or "").splitlines()
    if form.startswith("record"):
        assert context[-1] == 'PL/Python function "distribute"'
    else:
        assert [line.partition("(")[0].rpartition(" ")[2] for line in context] == [
            "pmpp._raise",
            f"pmpp.{FORMS[form].partition('pmpp.')[2].partition('(')[0]}",
        ]
    assert noisy.execute(LAST_RUN).fetchall() == [("ZZ123", "m", "d", "h", f"{inner}\n{where}")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("insert into noisy.price values (1, -1)", ("noisy", "price", None, None, "above")),
        ("insert into noisy.price values (null)", ("noisy", "price", "i", None, None)),
        ("select 3::noisy.even", ("noisy", None, None, "even", "even_check")),
        ("select 1/0", (None,) * 5),
    ],
)
def test_names(
    noisy: psycopg.Connection, there: str, query: str, expected: tuple[str | None, ...]
) -> None:
    """An error has the names of objects that the remote server sent, and no others."""
    with pytest.raises(psycopg.Error) as raised:
        noisy.execute("select * from pmpp.meta(%s, array[%s])", [there, query])
    assert names(raised.value) == expected


def test_stacked_diagnostics(noisy: psycopg.Connection, there: str) -> None:
    """PL/pgSQL reads the names with GET STACKED DIAGNOSTICS."""
    noisy.execute(
        sql.SQL(
            """
            create function read_fields() returns text language plpgsql as $$
            declare s text; t text; c text; y text; k text;
            begin
                perform pmpp.meta({}, array['insert into noisy.price values (1, -1)']);
            exception when check_violation then
                get stacked diagnostics s = schema_name, t = table_name, c = column_name,
                    y = pg_datatype_name, k = constraint_name;
                return concat_ws('|', s, t, c, y, k);
            end $$
            """
        ).format(there)
    )
    assert noisy.execute("select read_fields()").fetchall() == [("noisy|price|||above",)]


def test_context_of_several_lines(noisy: psycopg.Connection, there: str) -> None:
    """The innermost line comes first, as in PostgreSQL."""
    with pytest.raises(psycopg.errors.DivisionByZero):
        noisy.execute(
            "select pmpp.distribute(null::int, %s, array['select noisy.deep(0)'])", [there]
        )
    ((context,),) = noisy.execute("select context from pmpp.last_run()").fetchall()
    assert [line.partition("(")[0] for line in context.splitlines()] == [
        "PL/pgSQL function noisy.deeper",
        "PL/pgSQL function noisy.deep",
        f"Query 1 of item 1 on {there.replace(' user=postgres', '')}: select noisy.deep",
    ]


def test_setup_command(noisy: psycopg.Connection, there: str) -> None:
    """An error of a setup command has all fields, and last_run() names the setup command."""
    setup = "insert into noisy.price values (1, -1)"
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        noisy.execute(
            "select pmpp.distribute(null::int, %s, array['select 1'], setup_commands => array[%s])",
            [there, setup],
        )
    assert names(raised.value) == ("noisy", "price", None, None, "above")
    ((_, _, detail, _, context),) = noisy.execute(LAST_RUN).fetchall()
    assert detail == "Failing row contains (1, -1)."
    where = f"Setup command 1 of item 1 on {there.replace(' user=postgres', '')}: {setup}"
    assert context == where
    assert raised.value.diag.message_detail == f"{detail}\n{where}"


def test_warnings_of_failed_queries(noisy: psycopg.Connection, there: str) -> None:
    """With on_error = continue the warning has them, and so has the error if all queries fail."""
    got = fields_of_notices(noisy)
    noisy.execute("set pmpp.on_error = 'continue'")
    call = "select * from pmpp.meta(%s, %s, num_workers => 1)"
    bad = "insert into noisy.price values (1, -1)"
    noisy.execute(call, [there, ["select 1", bad]])
    (warning,) = got
    assert (warning["severity_nonlocalized"], warning["sqlstate"]) == ("WARNING", "23514")
    assert (warning["table_name"], warning["constraint_name"]) == ("price", "above")
    with pytest.raises(psycopg.errors.CheckViolation, match="all 2 queries failed") as raised:
        noisy.execute(call, [there, [bad, bad]])
    assert names(raised.value) == ("noisy", "price", None, None, "above")
    assert "Query 1 of item 1" in str(raised.value.diag.message_detail)


@pytest.mark.parametrize("level", ["notice", "warning"])
@pytest.mark.parametrize("is_setup", [False, True])
def test_notices(noisy: psycopg.Connection, there: str, level: str, is_setup: bool) -> None:
    """A notice or a warning has all its fields, and says where it is from."""
    got = fields_of_notices(noisy)
    query = f"select noisy.say('{level}', '01ABC')"
    noisy.execute(
        "select * from pmpp.distribute(null::int, %s, array[%s], setup_commands => %s)",
        [there, "select 1" if is_setup else query, [query] if is_setup else None],
    )
    what = "Setup command" if is_setup else "Query"
    where = f"{what} 1 of item 1 on {there.replace(' user=postgres', '')}: {query}"
    assert [d["severity_nonlocalized"] for d in got] == (
        ["NOTICE", "WARNING"] if level == "notice" else ["WARNING"]
    )
    for d in got:
        assert (d["sqlstate"], d["message_primary"], d["message_hint"]) == ("01ABC", "m", "h")
        assert d["message_detail"] == f"d\n{where}"
        assert [d[name] for name in NAMES] == ["s", "t", "c", "y", "k"]


def test_two_servers(noisy: psycopg.Connection, here: str, there: str) -> None:
    """pmpp names the one of two servers that has raised a warning."""
    got = notices(noisy)
    say = "do $$ begin raise warning 'hello'; end $$"
    connections = [here, there]
    noisy.execute(
        "select * from pmpp.broadcast(null::pmpp.command_with_result, %s, %s)", [connections, say]
    )
    places = [c.replace(" user=postgres", "") for c in connections]
    assert sorted(str(detail) for _, _, detail, _ in got) == sorted(
        f"Query 1 of item {number} on {place}: {say}" for number, place in enumerate(places, 1)
    )


def test_value_that_is_refused_here(noisy: psycopg.Connection, there: str) -> None:
    """An error of the local server keeps the names of objects."""
    noisy.execute("create domain odd as int check (value % 2 = 1)")
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        noisy.execute("select * from pmpp.distribute(null::odd, %s, array['select 2'])", [there])
    assert names(raised.value) == ("public", None, None, "odd", "odd_check")
    ((_, _, detail, hint, context),) = noisy.execute(LAST_RUN).fetchall()
    assert (detail, hint) == (None, None)
    assert context == raised.value.diag.message_detail


def test_call_in_a_call(noisy: psycopg.Connection, here: str, there: str) -> None:
    """A call whose query is a call: the caller sees through both."""
    inner = f"select * from pmpp.distribute(null::int, '{there}', array['select noisy.deep(0)'])"
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        noisy.execute("select pmpp.distribute(null::int, %s, array[%s])", [here, inner])
    detail = (raised.value.diag.message_detail or "").splitlines()
    starts = ["PL/pgSQL function noisy.deeper", "PL/pgSQL function noisy.deep", "Query 1",
              "PL/pgSQL function pmpp._raise", "PL/pgSQL function pmpp.distribute", "Query 1"]  # fmt: skip
    assert len(detail) == len(starts)
    assert all(line.startswith(start) for line, start in zip(detail, starts, strict=True))


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_why_a_connection_failed(
    db: psycopg.Connection,
    new_role: NewRole,
    by_network: str,
    on_error: str,
) -> None:
    """last_run() says whether the password, the database or the port was wrong."""
    role = new_role()
    login = f"user='{role}' password={PASSWORD}"
    reasons = {
        f"{by_network} user='{role}' password=wrong-{PASSWORD}": "password authentication failed",
        f"{by_network} {login} dbname=nosuch": 'database "nosuch" does not exist',
        f"host=127.0.0.1 port=1 {login}": "Connection refused",
        f"host=host.invalid {login}": "host.invalid",
    }
    db.execute(f"set pmpp.on_error = '{on_error}'; set client_min_messages to error")
    for connection, reason in reasons.items():
        with pytest.raises(psycopg.OperationalError) as raised:
            db.execute("select * from pmpp.meta(%s, array['select 1'])", [connection])
        ((sqlstate, message, detail, _, _),) = db.execute(LAST_RUN).fetchall()
        assert sqlstate == "08001"
        assert message == raised.value.diag.message_primary
        assert message.startswith("item 1: could not connect to host=")
        assert detail == raised.value.diag.message_detail
        assert reason in detail
        assert PASSWORD not in message + detail


def test_hint_of_pmpp(db: psycopg.Connection, there: str) -> None:
    """The hint of an error of pmpp itself is kept too."""
    db.execute("set pmpp.max_result_size = '1MB'")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as raised:
        db.execute(
            "select * from pmpp.distribute(null::text, %s, array['select repeat(''x'', 2000000)'])",
            [there],
        )
    ((_, _, detail, hint, context),) = db.execute(LAST_RUN).fetchall()
    assert (detail, hint) == (None, raised.value.diag.message_hint)
    assert context == raised.value.diag.message_detail


def test_giant_fields(db: psycopg.Connection, there: str) -> None:
    """Fields of a megabyte reach the caller whole, and are kept as far as messages are."""
    query = """
        do $_$ declare x text := repeat('é', 1000000);
        begin
            execute 'do $$ declare x text := ''' || x || '''; begin '
                'raise ''%'', x using detail = x, hint = x, constraint = x, column = x; end $$';
        end $_$
    """
    with pytest.raises(psycopg.errors.RaiseException) as raised:
        db.execute("select * from pmpp.meta(%s, array[%s])", [there, query])
    whole = "é" * 1_000_000
    diag = raised.value.diag
    assert (diag.message_primary, diag.message_hint) == (whole, whole)
    assert (diag.message_detail or "").startswith(f"{whole}\nPL/pgSQL function inline_code_block")
    assert (diag.constraint_name, diag.column_name, diag.table_name or None) == (whole, whole, None)
    lengths = db.execute(
        "select length(message), length(detail), length(hint), length(context),"
        " context ~ '\\nQuery 1 of item 1 on [^\\n]*$' from pmpp.last_run()"
    )
    assert lengths.fetchall() == [(8192, 8192, 8192, 8192, True)]
