"""Calls in SECURITY DEFINER functions: whose rights count, and what a caller's session changes."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest
from helpers import PASSWORD, SESSION_USER, Connect, NewRole, answer, notices
from installation import TOP
from pmpp.core.settings import HINTS
from psycopg import errors, sql

DEFINER = """
    create function pinned() returns setof bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
    begin
        {pin}
        return query select * from pmpp.distribute(
            null::bigint, '{here}', array[{queries}], num_workers => 2);
    end $$
"""


def pin() -> str:
    """Return the statement with which the documentation has a function pin the settings."""
    page = (TOP / "doc" / "security.md").read_text()
    (statement,) = re.findall(r"PERFORM set_config.*?;", page, re.DOTALL)
    return str(statement)


def test_the_pin_is_complete() -> None:
    """The statement in the documentation names every setting of pmpp."""
    (names,) = re.findall(r"'{(.*)}'", pin())
    assert sorted(names.split(",")) == sorted(HINTS)


@pytest.mark.parametrize(
    ("setting", "value", "queries", "expected"),
    [
        ("on_error", "continue", "'select 1', 'select 1/0'", "22012"),
        ("on_error", "nonsense", "'select 1'", "1"),
        ("max_workers", "0", "'select 1'", "1"),
        ("connect_retries", "x", "'select 1'", "1"),
        ("progress", "1us", "'select 1 from pg_sleep(0.3)'", "1"),
        ("max_result_size", "1kB", "'select 1'", "1"),
    ],
)
@pytest.mark.parametrize("way", ["set", "options", "role"])
def test_settings(
    db: psycopg.Connection, connect: Connect, new_role: NewRole, here: str,
    setting: str, value: str, queries: str, expected: str, way: str,
) -> None:  # fmt: skip
    """Whoever calls a function that pins the settings does not change what it does."""
    db.execute(DEFINER.format(pin=pin(), here=here, queries=queries))
    caller, name = new_role(member=False), f"pmpp.{setting}"
    if way == "role":
        alter = f"alter role {{}} set {name} = {{}}"
        db.execute(sql.SQL(alter).format(sql.Identifier(caller), value))
    session = connect(user=caller, options=f"-c {name}={value}" if way == "options" else "")
    if way == "set":
        session.execute("select set_config(%s, %s, false)", [name, value])
    assert session.execute("select current_setting(%s)", [name]).fetchall() == [(value,)]
    got = notices(session)
    try:
        ((outcome,),) = session.execute("select pinned()").fetchall()
    except psycopg.Error as ex:
        outcome = ex.sqlstate
    assert (str(outcome), got) == (expected, [])


def test_set_clause(
    db: psycopg.Connection, connect: Connect, new_role: NewRole, here: str,
    may_set_parameter: Callable[[str, str], None],
) -> None:  # fmt: skip
    """PostgreSQL lets an owner pin a setting with SET once a superuser has granted it."""
    role, caller = new_role(), connect(user=new_role(member=False))
    owner = sql.Identifier(role)
    db.execute(DEFINER.format(pin="", here=here, queries="'select 1', 'select 1/0'"))
    db.execute(sql.SQL("alter function pinned owner to {0}; set role {0}").format(owner))
    pinned = "alter function pinned set pmpp.on_error = 'stop'"
    with pytest.raises(errors.InsufficientPrivilege):
        db.execute(pinned)
    db.execute("reset role")
    may_set_parameter(role, "pmpp.on_error")
    db.execute(sql.SQL("set role {}").format(owner))
    db.execute(pinned)
    db.execute("reset role; alter function pinned owner to postgres")
    caller.execute("set pmpp.on_error = 'continue'")
    with pytest.raises(errors.DivisionByZero):
        caller.execute("select pinned()")
    assert caller.execute("show pmpp.on_error").fetchall() == [("continue",)]


# What anybody can set, and what PostgreSQL, PL/pgSQL or the input functions of types look at.
HOSTILE = """
    set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601'; set timezone = 'Asia/Kolkata';
    set extra_float_digits = -15; set bytea_output = 'escape'; set xmloption = 'document';
    set array_nulls = off; set standard_conforming_strings = off; set escape_string_warning = off;
    set backslash_quote = on; set transform_null_equals = on; set quote_all_identifiers = on;
    set row_security = off; set plan_cache_mode = force_custom_plan; set client_encoding = 'latin1';
    set application_name = 'pmpp 1 item 1'; set work_mem = '64kB'; set lc_monetary = 'C';
    set default_transaction_isolation = 'serializable'; set default_transaction_deferrable = on;
    set plpgsql.extra_errors = 'all'; set plpgsql.check_asserts = off; set lc_numeric = 'C';
    set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;
    set client_min_messages = error; set debug_print_plan = on;
    create temp table pg_class (oid oid); create temp table pg_type (oid oid);
    create temp table pg_roles (rolname name, rolsuper bool, oid oid);
    insert into pg_roles values ('postgres', false, 1);
    create temp table connection_limit (connection text, max_workers int);
    insert into connection_limit values ('*', 0);
    create domain pg_temp.text as pg_catalog.int4 check (false);
    create domain pg_temp.int8 as pg_catalog.int4 check (false);
    create domain pg_temp.query_manifest as pg_catalog.int4 check (false);
    create type pg_temp.regtype as (a pg_catalog.int4);
    set search_path = pg_temp, pmpp, pg_catalog
"""
COLUMNS = """d date, t timestamptz, s timestamp, i interval, f float8, b bytea, m money, x xml,
             a text[], c varchar(9), j jsonb, n numeric, r regclass, p point"""
QUERY = r"""
    select '2001-02-03', '2001-02-03 04:05+6', '2001-02-03 04:05', interval '-1 day -02:03:04',
           1::float8/3, '\x5c00'::bytea, 12.5::money, 'a<b/>c'::xml, array['NULL', null, 'a\b"'],
           'back\sl', '[1]'::jsonb, 1.50, 'pg_catalog.pg_class'::regclass, point(1, 2)
"""
EVERYTHING = f"""
    create type public.wide as ({COLUMNS});
    create function everything(there text) returns setof text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set xmloption = 'content'
    -- for the texts that this function returns
    set datestyle = 'ISO' set intervalstyle = 'postgres' set timezone = 'UTC'
    set extra_float_digits = 1 set bytea_output = 'hex' set quote_all_identifiers = off as $$
    declare
        query constant text := $query${QUERY}$query$;
        item constant pmpp.query_manifest := row(there, array[query], null, 1, null, null);
    begin
        return query select w::text from pmpp.distribute(null::public.wide, array[item]) w;
        return query select w::text from pmpp.distribute(null::public.wide, to_jsonb(array[item])) w;
        return query select w::text from pmpp.distribute(array[item]) as w ({COLUMNS});
        return query select w::text from pmpp.distribute(to_jsonb(array[item])) as w ({COLUMNS});
        return query select w::text from pmpp.distribute_tagged(null::public.wide, array[item]) w;
        return query select w::text from pmpp.broadcast(null::public.wide, array[there], query) w;
        return query select w::text from pmpp.meta(there, array['select 1']) w;
        return query select unnest(pmpp.by_key('pg_am', 'amname', 'select {{chunk}}', 2));
        return query select l.status from pmpp.last_run() l;
    end $$
"""


def test_session(db: psycopg.Connection, connect: Connect, new_role: NewRole, here: str) -> None:
    """Nothing else that a caller can have in its session changes the rows of a call."""
    db.execute(EVERYTHING)
    run = "select public.everything(%s)"
    caller = connect(user=new_role(member=False))
    wanted = caller.execute(run, [here]).fetchall()
    assert len(wanted) == 10
    db.execute(
        sql.SQL("grant temporary on database {} to public").format(sql.Identifier(db.info.dbname))
    )
    caller.execute(HOSTILE)
    assert caller.execute(run, [here]).fetchall() == wanted
    # In a new session nothing is prepared yet.
    with connect(user=caller.info.user) as fresh:
        fresh.execute(HOSTILE)
        assert fresh.execute(run, [here]).fetchall() == wanted


def test_current_user_counts(db: psycopg.Connection, here: str, user: str, by_network: str) -> None:
    """After SET ROLE and inside SECURITY DEFINER functions the current user's rights count."""
    db.execute(
        """
        create function as_superuser(connection text) returns text language sql security definer
        as $$ select * from pmpp.distribute(null::text, connection, array['select session_user']) $$
        """
    )
    db.execute(sql.SQL("set role {}").format(sql.Identifier(user)))
    assert answer(db, SESSION_USER, here) == "2F003"
    assert answer(db, SESSION_USER, f"{by_network} password={PASSWORD}") == user
    assert db.execute("select as_superuser(%s)", [here]).fetchall() == [("postgres",)]


def test_definer_of_lower_rights(
    db: psycopg.Connection, connect: Connect, new_role: NewRole, here: str
) -> None:
    """A SECURITY DEFINER function of an ordinary user has no rights of a superuser who calls it."""
    owner = new_role()
    db.execute("grant create on schema public to public")
    connect(user=owner).execute(
        """
        create function trap(connection text) returns text language sql security definer
        as $$ select * from pmpp.distribute(null::text, connection, array['select session_user']) $$
        """
    )
    with pytest.raises(psycopg.Error) as raised:
        db.execute("select trap(%s)", [here])
    assert raised.value.sqlstate == "2F003"
