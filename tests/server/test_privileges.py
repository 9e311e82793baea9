"""Who has which privileges on the objects of the extension, whatever was there before it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, SESSION_USER, Connect, NewRole, answer, notices
from psycopg import sql


@pytest.fixture
def empty(cluster: Cluster, db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A superuser's session in a database without pmpp."""
    db.execute("drop database if exists empty with (force)")
    db.execute("create database empty")
    with psycopg.connect(cluster.superuser("empty"), autocommit=True) as conn:
        yield conn
    db.execute("drop database empty")


GRANTED = """
    with member as (
        select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
         where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and e.extname = 'pmpp'
    ), acl (object, owner, acl) as (
        select nspname::text, nspowner, coalesce(nspacl, acldefault('n', nspowner))
          from member join pg_namespace n on (classid, objid) = (n.tableoid, n.oid)
        union all
        select p.oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
          from member join pg_proc p on (classid, objid) = (p.tableoid, p.oid)
        union all
        select c.oid::regclass::text, relowner, coalesce(relacl, acldefault('r', relowner))
          from member join pg_class c on (classid, objid) = (c.tableoid, c.oid)
         where relkind <> 'c'
        union all
        select t.oid::regtype::text, typowner, coalesce(typacl, acldefault('T', typowner))
          from member join pg_type t on (classid, objid) = (t.tableoid, t.oid)
          join pg_class c on c.oid = typrelid and c.relkind = 'c'
    )
    select object, case when a.grantee = 0 then 'public' else a.grantee::regrole::text end,
           a.privilege_type, a.is_grantable
      from acl, aclexplode(acl) a
     where a.grantee <> owner
"""


def test_default_privileges(empty: psycopg.Connection, new_role: NewRole) -> None:
    """Default privileges of whoever installs the extension give nobody anything in it."""
    stranger = new_role(member=False)
    for kind in ("schemas", "functions", "tables", "types"):
        for grantee in ("public", f'"{stranger}"', "pmpp"):
            option = "" if grantee == "public" else "with grant option"
            empty.execute(f"alter default privileges grant all on {kind} to {grantee} {option}")
    empty.execute("create extension pmpp cascade")
    granted = empty.execute(GRANTED).fetchall()
    assert {tuple(row[1:]) for row in granted} == {
        ("pmpp", privilege, False) for privilege in ("EXECUTE", "USAGE", "SELECT")
    }
    assert "pmpp.detect_cpus()" not in {row[0] for row in granted}


def test_default_privileges_that_take(empty: psycopg.Connection) -> None:
    """Default privileges that take rights away leave the owner and the role pmpp theirs."""
    for kind in ("functions", "tables", "types"):
        empty.execute(f"alter default privileges revoke all on {kind} from postgres")
    empty.execute("create extension pmpp cascade")
    (row,) = empty.execute(
        "select bool_and(proacl::text like '%postgres=X/postgres%') from pg_proc"
        " where pronamespace = 'pmpp'::regnamespace"
    ).fetchall()
    assert row == (True,)


def test_role_that_exists(empty: psycopg.Connection, new_role: NewRole) -> None:
    """A warning says who has the role pmpp already, and that it can log in."""
    member, admin = new_role(), new_role(member=False)
    empty.execute(sql.SQL("grant pmpp to {} with admin option").format(sql.Identifier(admin)))
    got = notices(empty)
    try:
        empty.execute("alter role pmpp login")
        empty.execute("create extension pmpp cascade")
    finally:
        empty.execute("alter role pmpp nologin")
    ((_, message, detail, hint),) = [n for n in got if n[0] == "WARNING"]
    assert message == 'role "pmpp" already exists'
    assert f'"{member}"' in str(detail)
    assert f'"{admin}" (with ADMIN OPTION)' in str(detail)
    assert "has LOGIN" in str(detail)
    assert "REVOKE pmpp" in str(hint)


def test_plain_users_may_not_call(connect: Connect, new_role: NewRole, by_network: str) -> None:
    """A role that is not a member of pmpp may not call the functions."""
    outsider = connect(user=new_role(member=False))
    assert answer(outsider, SESSION_USER, f"{by_network} password={PASSWORD}") == "42501"


def test_internal_functions_are_closed_to_plain_users(
    db: psycopg.Connection, connect: Connect, new_role: NewRole
) -> None:
    """A role that is not a member of pmpp has EXECUTE on none of its functions."""
    outsider = connect(user=new_role(member=False))
    functions = db.execute(
        "select oid from pg_proc where pronamespace = 'pmpp'::regnamespace"
    ).fetchall()
    assert functions
    may = (
        "select has_schema_privilege('pmpp', 'usage') or has_function_privilege(%s::oid, 'execute')"
    )
    for (function,) in functions:
        assert outsider.execute(may, [function]).fetchall() == [(False,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        outsider.execute("select pmpp._read_user_mapping()")
