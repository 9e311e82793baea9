"""The server that make server keeps for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cluster
import psycopg
import pytest
from helpers import PG_CONFIG

NAMES = "select datname from pg_database union all select rolname from pg_roles order by 1"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[cluster.Cluster]:
    """Such a server, in place of the one that may be kept at the moment."""
    monkeypatch.setattr(cluster, "KEPT", tmp_path / "server")
    assert cluster.main(["--start", PG_CONFIG]) == 0
    with cluster.server_for_tests(PG_CONFIG) as kept:
        pass
    yield kept
    assert cluster.main(["--stop"]) == 0
    assert not kept.directory.exists()


def test_it_is_used_and_empty(kept: cluster.Cluster) -> None:
    """The kept server is empty for the next program, whatever the program before left in it."""
    with psycopg.connect(kept.superuser(), autocommit=True) as conn:
        new = conn.execute(NAMES).fetchall()
        conn.execute("create extension pmpp cascade")
        conn.execute("create database other is_template true")
        conn.execute("alter system set work_mem to '1MB'")
        conn.execute("create role owner in role pmpp")
        conn.execute("grant set on parameter deadlock_timeout to owner")
        conn.execute("create table owned ()")
        conn.execute("alter table owned owner to owner")
        conn.execute("do $$ begin raise log 'remembered'; end $$")
    assert "remembered" in kept.read_log()
    with cluster.server_for_tests(PG_CONFIG) as again:
        assert again.directory == kept.directory
        assert "remembered" not in again.read_log()
        with psycopg.connect(again.superuser()) as conn:
            assert conn.execute(NAMES).fetchall() == new
            assert conn.execute("select from pg_extension").rowcount == 1
            assert conn.execute("show work_mem").fetchall() != [("1MB",)]


@pytest.mark.slow
def test_another_one_is_made(kept: cluster.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs never use it at the same time, and none uses one that has other settings."""
    with (
        cluster.server_for_tests(PG_CONFIG) as first,
        cluster.server_for_tests(PG_CONFIG) as second,
    ):
        assert first.directory == kept.directory != second.directory
    assert not second.directory.exists()
    with monkeypatch.context() as changed:
        changed.setitem(cluster.SETTINGS, "work_mem", "1MB")
        with cluster.server_for_tests(PG_CONFIG) as third:
            assert third.directory != kept.directory
    assert kept.is_running()
