"""A session goes on when the extension or types change, and refuses a foreign package."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster
from psycopg.conninfo import make_conninfo

RUN = "select * from pmpp.distribute(null::int, %s, array['select 1', 'select 2'])"


@pytest.mark.parametrize(
    ("module", "path"), [("pmpp", "/elsewhere/pmpp"), ("psycopg", "/elsewhere/psycopg")]
)
def test_another_version_is_loaded(
    db: psycopg.Connection, here: str, module: str, path: str
) -> None:
    """pmpp refuses a package of its name that another function has loaded, with a hint."""
    db.execute(
        f"""
        do language plpython3u $$
        import sys, types
        sys.modules["{module}"] = module = types.ModuleType("{module}")
        module.__file__ = "{path}/__init__.py"
        module.__path__ = []
        $$
        """
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
        db.execute(RUN, [here])
    assert raised.value.diag.message_primary == (
        "another version of pmpp or psycopg is already loaded in this session"
    )
    assert f"{path}/__init__.py" in str(raised.value.diag.message_detail)
    assert raised.value.diag.message_hint == "Start a new session."


def test_plans_survive_changes(db: psycopg.Connection, here: str) -> None:
    """A session goes on when a type that it used is dropped and created again."""
    query = "select * from pmpp.distribute(null::shape, %s, array['select 1, 2'])"
    db.execute("create type shape as (a int, b int)")
    assert db.execute(query, [here]).fetchall() == [(1, 2)]
    db.execute("drop type shape")
    db.execute("create type shape as (a text, b numeric)")
    ((a, b),) = db.execute(query, [here]).fetchall()
    assert (a, int(b)) == ("1", 2)


def test_hot_standby(standby: Cluster, db: psycopg.Connection, here: str) -> None:
    """A standby can run queries on itself and on its primary."""
    there = make_conninfo(here, host=standby.host, port=standby.port)
    with psycopg.connect(there, autocommit=True) as conn:
        assert conn.execute("select pg_is_in_recovery()").fetchall() == [(True,)]
        for connection in (there, here):
            assert sorted(conn.execute(RUN, [connection]).fetchall()) == [(1,), (2,)]
        record = (
            "select * from pmpp.distribute(jsonb_build_array(jsonb_build_object("
            "'connection', %s::text, 'query', 'select pg_is_in_recovery()'))) as (b boolean)"
        )
        assert conn.execute(record, [there]).fetchall() == [(True,)]


def test_create_again(db: psycopg.Connection, here: str) -> None:
    """A session goes on when the extension is dropped and created again."""
    db.execute(RUN, [here])
    db.execute("drop extension pmpp; create extension pmpp")
    assert sorted(db.execute(RUN, [here]).fetchall()) == [(1,), (2,)]
