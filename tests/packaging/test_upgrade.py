"""From one version to the next, and both in one cluster.

The older version is the last one that has a tag in git, and sql/upgrade has the way from it. As
long as nothing was released, the tree is the older version, and under another number the newer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from cluster import Cluster
from installation import TOP, Installation, git

RUN = "select * from pmpp.distribute(null::int, %s, array['select 1'])"

# All objects of the extension, as they are defined.
OBJECTS = """
    select pg_describe_object(classid, objid, objsubid) as object,
           case classid when 'pg_proc'::regclass then pg_get_functiondef(objid)
                        when 'pg_class'::regclass then pg_get_viewdef(objid) end,
           case classid when 'pg_proc'::regclass then (select proacl::text from pg_proc where oid = objid)
                        when 'pg_class'::regclass then (select relacl::text from pg_class where oid = objid)
                        when 'pg_namespace'::regclass then (select nspacl::text from pg_namespace where oid = objid) end,
           obj_description(objid, classid::regclass::name),
           (select array_agg((attname, atttypid::regtype, attnotnull, col_description(attrelid, attnum)) order by attnum)
              from pg_attribute
             where attnum > 0 and not attisdropped
               and attrelid = case classid
                       when 'pg_class'::regclass then objid
                       when 'pg_type'::regclass then (select typrelid from pg_type where oid = objid) end)::text
      from pg_depend
     where refclassid = 'pg_extension'::regclass and deptype = 'e'
       and refobjid = (select oid from pg_extension where extname = 'pmpp')
     order by object
"""


class Versions(NamedTuple):
    """The numbers of both versions."""

    old: str
    new: str


@pytest.fixture(scope="module")
def versions(installation: Installation, tree: Callable[..., Path]) -> Versions:
    """Install the older version, and then the newer one beside it."""
    current = version(TOP)
    tags = git("tag", "--list", "v*", "--sort=-version:refname").split()
    older = next((tag for tag in tags if tag != f"v{current}"), None)
    old, new = tree("old", older), tree("new")
    if older is None:
        renumber(new, current, f"{current}-next")
    for source in (old, new):
        installation.make("install", tree=source)
    return Versions(version(old), version(new))


@pytest.fixture
def connect(server: Cluster, versions: Versions) -> Iterator[Callable[[str], psycopg.Connection]]:
    """Connect to a database, which is first made, with the older version of pmpp; removed at the
    end of the test."""
    made = set()
    with ExitStack() as opened:
        administrator = opened.enter_context(psycopg.connect(server.superuser(), autocommit=True))

        def connect(dbname: str) -> psycopg.Connection:
            if dbname not in made:
                administrator.execute(f"create database {dbname}")
            conn = psycopg.connect(server.superuser(dbname), autocommit=True)
            opened.callback(conn.close)
            if dbname not in made:
                conn.execute(f"create extension pmpp version '{versions.old}' cascade")
            made.add(dbname)
            return conn

        yield connect
        for dbname in made:
            administrator.execute(f"drop database {dbname} with (force)")


def test_update(
    connect: Callable[[str], psycopg.Connection], server: Cluster, versions: Versions
) -> None:
    """ALTER EXTENSION UPDATE makes what CREATE EXTENSION makes, and keeps rows and grants."""
    updated, fresh = connect("updated"), connect("fresh")
    updated.execute("insert into pmpp.connection_limit values ('*', 4)")
    updated.execute("revoke execute on function pmpp.meta from pmpp")
    updated.execute("alter extension pmpp update")
    assert updated.execute(
        "select connection, max_workers from pmpp.connection_limit"
    ).fetchall() == [("*", 4)]
    may = (
        "select has_function_privilege('pmpp', oid, 'execute') from pg_proc where proname = 'meta'"
    )
    assert updated.execute(may).fetchall() == [(False,)]
    updated.execute("grant execute on function pmpp.meta to pmpp")

    fresh.execute("drop extension pmpp; create extension pmpp")
    newest = "select extversion from pg_extension where extname = 'pmpp'"
    assert fresh.execute(newest).fetchall() == [(versions.new,)]
    objects = fresh.execute(OBJECTS).fetchall()
    assert len(objects) > 50
    assert updated.execute(OBJECTS).fetchall() == objects
    assert updated.execute(RUN, [server.superuser("updated")]).fetchall() == [(1,)]


def test_open_session(connect: Callable[[str], psycopg.Connection], server: Cluster) -> None:
    """A session that has used the older version gets an error whose hint is to start a new session."""
    used, unused, administrator = connect("updated"), connect("updated"), connect("updated")
    here = server.superuser("updated")
    used.execute(RUN, [here])
    administrator.execute("alter extension pmpp update")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
        used.execute(RUN, [here])
    assert raised.value.diag.message_primary == (
        "another version of pmpp or psycopg is already loaded in this session"
    )
    assert raised.value.diag.message_hint == "Start a new session."
    assert unused.execute(RUN, [here]).fetchall() == [(1,)]


def test_two_versions(
    connect: Callable[[str], psycopg.Connection], server: Cluster, versions: Versions
) -> None:
    """Two databases of one server have different versions, and call each other."""
    sessions = {"old": connect("old"), "new": connect("new")}
    sessions["new"].execute("alter extension pmpp update")
    # For two queries pmpp reads the number of CPUs of the remote server.
    ask = """
        select * from pmpp.distribute(null::text, %s, array[
            'select extversion from pg_extension where extname = ''pmpp''', 'select version()'])
    """
    for caller, other in (("old", "new"), ("new", "old")):
        rows = sessions[caller].execute(ask, [server.superuser(other)]).fetchall()
        assert (getattr(versions, other),) in rows
        assert f"/pmpp/{getattr(versions, caller)}/" in loaded_from(sessions[caller])


def test_older_files_are_gone(
    connect: Callable[[str], psycopg.Connection],
    server: Cluster,
    versions: Versions,
    installation: Installation,
) -> None:
    """If only the files of a newer version are installed, the error in an older database has a hint."""
    files = installation.pkglibdir / "pmpp" / versions.old
    conn = connect("old")
    hidden = files.rename(files.with_name("hidden"))
    try:
        with pytest.raises(psycopg.errors.UndefinedFile, match="cannot be loaded") as raised:
            conn.execute(RUN, [server.superuser("old")])
        assert "ALTER EXTENSION pmpp UPDATE" in str(raised.value.diag.message_hint)
    finally:
        hidden.rename(files)
    conn.execute("alter extension pmpp update")
    assert conn.execute(RUN, [server.superuser("old")]).fetchall() == [(1,)]


def loaded_from(conn: psycopg.Connection) -> str:
    """Return the file of the Python package that a session has loaded."""
    conn.execute(
        "create function pg_temp.file() returns text language plpython3u "
        "as 'import pmpp; return pmpp.__file__'"
    )
    ((file,),) = conn.execute("select pg_temp.file()").fetchall()
    return str(file)


def version(tree: Path) -> str:
    """Return the version of pmpp in a source tree."""
    control = (tree / "pmpp.control").read_text()
    (found,) = re.findall(r"^default_version = '(.*)'$", control, re.MULTILINE)
    return str(found)


def renumber(tree: Path, old: str, new: str) -> None:
    """Give a source tree another version, to which nothing leads but a change of the number."""
    for name, quote in (("pmpp.control", "'"), ("python/src/pmpp/__init__.py", '"')):
        text = (tree / name).read_text()
        assert f"{quote}{old}{quote}" in text
        (tree / name).write_text(text.replace(f"{quote}{old}{quote}", f"{quote}{new}{quote}"))
    upgrade = tree / f"sql/upgrade/{old}.sql"
    upgrade.parent.mkdir(exist_ok=True)
    upgrade.write_text("@FUNCTIONS@\n")
