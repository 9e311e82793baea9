"""No password shows: in logged statements, views, the server's log, internal functions."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, SESSION_USER, TRUST, answer, tcp
from psycopg import sql

SETTINGS = {
    "shared_preload_libraries": "auto_explain,pg_stat_statements",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_verbose": "on",
    "pg_stat_statements.track": "all",
}

# Calls whose own statements have no connection string: it is in the table `secret`.
MANIFEST = "array[row(c, array['select 1'], null, 1, null, null)::pmpp.query_manifest]"
ONE_ITEM = "jsonb_build_array(jsonb_build_object('connection', c, 'query', 'select 1'))"
MANY_FIELDS = """
    jsonb_build_array(jsonb_build_object('connection', c, 'queries', '["select 1"]'::jsonb,
        'num_workers', 1, 'setup_commands', '["select 2"]'::jsonb, 'statement_timeout', '1s',
        'result_format', 'text', 'nonsense', 1))
"""
CALLS = [
    "pmpp.distribute(null::int, c, array['select 1'])",
    f"pmpp.distribute(null::int, {MANIFEST})",
    f"pmpp.distribute(null::int, {ONE_ITEM})",
    f"pmpp.distribute(null::int, {ONE_ITEM}::json)",
    f"pmpp.distribute(null::int, {MANY_FIELDS})",
    f"pmpp.distribute(null::int, ({ONE_ITEM} -> 0)::pmpp.query_manifest || {MANIFEST})",
    f"pmpp.distribute(null::int, pmpp.manifest_array({ONE_ITEM}))",
    f"pmpp.distribute(null::int, array(select m from pmpp.manifest_set({ONE_ITEM}) m))",
    f"pmpp.distribute({MANIFEST}) as (i int)",
    f"pmpp.distribute({ONE_ITEM}) as (i int)",
    f"pmpp.distribute({MANY_FIELDS}::json) as (i int)",
    "pmpp.distribute(null::varchar(5)[], c, array['select array[1]'])",
    "pmpp.distribute(null::box, c, array['select box ''(1,1),(0,0)'''])",
    "pmpp.meta(c, array['select 1'])",
    "pmpp.broadcast(null::int, array[c, c], 'select 1')",
    "pmpp.broadcast_tagged(null::int, array[c], 'select 1', array['text'])",
    f"pmpp.distribute_tagged(null::int, {MANIFEST})",
    f"pmpp.distribute_tagged(null::int, {ONE_ITEM})",
    f"pmpp.distribute_tagged(null::int, {ONE_ITEM}::json)",
    "unnest(pmpp.jsonb_array_to_text_array(jsonb_build_array(c)))",
    # These calls fail.
    "pmpp.distribute(null::int, c, array['select 1/0', 'größe'])",
    "pmpp.distribute(null::int, pmpp.unfinished())",
    "pmpp.distribute(pmpp.unfinished()) as (i int)",
    "pmpp.distribute(null::int, c || ' nonsense=1', array['select 1'])",
    f"pmpp.distribute(null::int, {ONE_ITEM} || {ONE_ITEM} || 'null')",
    f"pmpp.distribute({ONE_ITEM} || '{{}}') as (i int)",
    # The password stands in place of the connection string.
    "pmpp.meta(split_part(c, '=', 5), array['select 1'])",
]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server that logs all statements with their plans, also those within functions."""
    with Cluster(PG_CONFIG, settings=SETTINGS, hba=[TRUST]) as server:
        yield server


@pytest.fixture(scope="module")
def caller(server: Cluster) -> Iterator[psycopg.Connection]:
    """A session of a superuser, in a database with a connection string in a table."""
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("create extension pmpp cascade; create extension pg_stat_statements")
        conn.execute("create table secret (c text); set auto_explain.log_min_duration = -1")
        there = f"{tcp(server.port)} password={PASSWORD}"
        conn.execute("insert into secret values (%s)", [there])
        conn.execute("reset auto_explain.log_min_duration")
        yield conn


@pytest.mark.parametrize("call", CALLS)
def test_statements(server: Cluster, caller: psycopg.Connection, call: str) -> None:
    """No text, parameter or plan of a statement that PostgreSQL logs or counts has the password."""
    seen = len(server.read_log())
    for _ in range(2):
        try:
            caller.execute(f"select count(*) from secret, {call}")
        except psycopg.Error as ex:
            assert ex.sqlstate in ("22012", "22023", "42501", "42601", "42704", "08001")
    log = server.read_log()[seen:]
    assert "from secret" in log
    counted = caller.execute("select query from pg_stat_statements").fetchall()
    assert counted
    texts = [*log.splitlines(), *(query for (query,) in counted)]
    assert [text for text in texts if PASSWORD in text] == []


@pytest.fixture
def public_mapping(db: psycopg.Connection, user: str, shop: str) -> None:
    """A mapping for PUBLIC with a password that only the superuser may see."""
    db.execute("grant usage on foreign server shop to public")
    db.execute(
        sql.SQL("create user mapping for public server shop options (user {}, password {})").format(
            user, PASSWORD
        )
    )


@pytest.mark.usefixtures("public_mapping")
def test_password_of_a_public_mapping_stays_hidden(session: psycopg.Connection) -> None:
    """A user who connects through a mapping for PUBLIC cannot see its password."""
    assert answer(session, SESSION_USER, "shop") is not None
    ((options,),) = session.execute("select umoptions from pg_user_mappings").fetchall()
    assert options is None
    with pytest.raises(psycopg.Error) as raised:
        session.execute("select * from pmpp.distribute(null::int, 'shop', array['select nosuch'])")
    assert PASSWORD not in f"{raised.value} {raised.value.diag.context}"


@pytest.mark.usefixtures("public_mapping")
@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("select pmpp._read_user_mapping()", "42501"),
        ("select pmpp._failure(null, ('22012', 'm', '', '', '', '', '', '', ''))", None),
        ("select pmpp._load()", None),
        ("select pmpp.detect_cpus()", "42501"),
        ("select pmpp._raise(null, ('22012', 'm', 'd', 'h', '', '', '', '', ''))", "22012"),
        ("select pmpp._handed_json(0)", "42501"),
        ("select pmpp._read_json(0)", "42501"),
        ("select * from pmpp._rows(0, null) as (i int)", "42501"),
        ("select * from pmpp._columns(0, '{23}')", "42501"),
        ("select * from pmpp._tags(null)", "42501"),
    ],
)
def test_internal_functions_by_hand(
    session: psycopg.Connection, call: str, sqlstate: str | None
) -> None:
    """Internal functions do not show the password when a user calls them."""
    assert answer(session, SESSION_USER, "shop") is not None
    try:
        result = str(session.execute(call).fetchall())
    except psycopg.Error as ex:
        assert ex.sqlstate == sqlstate
        result = str(ex)
    else:
        assert sqlstate is None
    assert PASSWORD not in result


@pytest.mark.usefixtures("public_mapping")
def test_log_and_activity_show_no_password(
    cluster: object, db: psycopg.Connection, session: psycopg.Connection
) -> None:
    """Neither the server's log nor pg_stat_activity shows the password of a mapping."""
    query = "select string_agg(query || application_name, ' ') from pg_stat_activity"
    ((seen,),) = session.execute(
        "select * from pmpp.distribute(null::text, 'shop', array[%s])", [query]
    ).fetchall()
    with pytest.raises(psycopg.Error):
        session.execute("select * from pmpp.distribute(null::text, 'shop', array['select 1/0'])")
    assert PASSWORD not in str(seen)
    log = cluster.read_log()  # type: ignore[attr-defined]
    assert PASSWORD not in log.replace(f"password '{PASSWORD}'", "")
