"""Copies of a database that has pmpp: by pg_dump, and by logical replication."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import eventually
from installation import Installation, run

USE = """
    create extension pmpp cascade;
    insert into pmpp.connection_limit values ('archive', 2), ('*', 8);
    create table job (id int primary key, manifest pmpp.query_manifest[]);
    insert into job values (1, '[{"connection": "dbname=shop", "query": "select 1", "num_workers": 1}]'::jsonb);
    create function run_job(job_id int) returns setof int language sql begin atomic
        select * from pmpp.distribute(null::int, (select manifest from job where id = job_id));
    end;
    create view cpus as select pmpp.num_cpus();
    grant execute on function run_job to pmpp;
    grant usage on schema pmpp to public;
"""


# The server's account has the name of the superuser, as elsewhere.
SUPERUSER = {"PGUSER": "postgres"}


@pytest.fixture(scope="module")
def source(installation: Installation) -> Iterator[Cluster]:
    """A server with a database shop that uses pmpp."""
    installation.make("install")
    settings = {"wal_level": "logical"}
    with Cluster(installation.pg_config, settings, environment=SUPERUSER) as source:
        execute(source, "postgres", "create database shop")
        execute(source, "shop", USE)
        yield source


@pytest.fixture
def target(installation: Installation) -> Iterator[Cluster]:
    """Another server, which has never seen pmpp, with an empty database shop."""
    with Cluster(installation.pg_config, environment=SUPERUSER) as target:
        execute(target, "postgres", "create database shop")
        yield target


def test_dump_and_restore(source: Cluster, target: Cluster, tmp_path: Path) -> None:
    """pg_restore of an archive brings the extension, its rows, and what uses it."""
    archive = tmp_path / "shop.dump"
    dump(source, "--format=custom", f"--file={archive}")
    restore(target, "pg_restore", "--exit-on-error", archive)
    assert_copied(source, target)


def test_dump_into_psql(source: Cluster, target: Cluster, tmp_path: Path) -> None:
    """psql restores the extension, its rows, and what uses it, from a dump in SQL."""
    script = tmp_path / "shop.sql"
    dump(source, f"--file={script}")
    restore(target, "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file", script)
    assert_copied(source, target)


def test_logical_replication(source: Cluster, target: Cluster, tmp_path: Path) -> None:
    """Rows of pmpp's table and rows with manifests go to a subscriber, and changes of them."""
    script = tmp_path / "shop.sql"
    dump(source, "--schema-only", f"--file={script}")
    restore(target, "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file", script)
    execute(source, "shop", "create publication everything for all tables")
    execute(target, "shop",
            f"create subscription everything connection '{source.superuser('shop')}' publication everything")  # fmt: skip
    try:
        execute(
            source,
            "shop",
            "update pmpp.connection_limit set max_workers = 3 where connection = 'archive'",
        )
        wanted = "('*', 8), ('archive', 3)"
        eventually(target, f"(select array_agg(l order by connection) = array(select row(v.*)::pmpp.connection_limit "
                   f"from (values {wanted}) v) from pmpp.connection_limit l)", dbname="shop")  # fmt: skip
        eventually(target, "exists (select from job)", dbname="shop")
        assert fetch(target, "select * from run_job(1)") == [(1,)]
    finally:
        execute(target, "shop", "drop subscription everything")
        execute(source, "shop", "drop publication everything")


def assert_copied(source: Cluster, target: Cluster) -> None:
    """A dump of the copy is that of the original, and what uses pmpp works."""
    assert dump(target) == dump(source)
    assert fetch(target, "select * from run_job(1)") == [(1,)]
    assert len(fetch(target, "select * from pmpp.connection_limit")) == 2


def dump(cluster: Cluster, *options: str) -> str:
    """Run pg_dump; return what it prints, without the key that is another one each time."""
    printed = run(cluster.bindir / "pg_dump", *options, cluster.superuser("shop"))
    return re.sub(r"^\\(un)?restrict .*", "", printed, flags=re.MULTILINE)


def restore(cluster: Cluster, program: str, *options: str | Path) -> None:
    """Run pg_restore or psql."""
    run(cluster.bindir / program, *options, "--dbname", cluster.superuser("shop"))


def execute(cluster: Cluster, dbname: str, statements: str) -> None:
    """Run statements as superuser."""
    with psycopg.connect(cluster.superuser(dbname), autocommit=True) as conn:
        conn.execute(statements)


def fetch(cluster: Cluster, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query in the database shop."""
    with psycopg.connect(cluster.superuser("shop"), autocommit=True) as conn:
        return conn.execute(query).fetchall()
