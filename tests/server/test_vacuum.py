"""VACUUM as a query of a call, as the documentation says."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster

MAINTENANCE = ["delete from large", "vacuum large"]
CALL = "select result from pmpp.meta(%s, %s, num_workers => 1)"


@pytest.mark.parametrize(("caller_is_elsewhere", "is_emptied"), [(False, False), (True, True)])
def test_vacuum(
    cluster: Cluster, db: psycopg.Connection, *, caller_is_elsewhere: bool, is_emptied: bool
) -> None:
    """VACUUM removes what died after the call began, if the call is made in another database."""
    here = cluster.superuser(db.info.dbname)
    db.execute("create table large (n int) with (autovacuum_enabled = off)")
    db.execute("insert into large select generate_series(1, 1000)")
    tags = [("DELETE 1000",), ("VACUUM",)]
    if caller_is_elsewhere:
        with psycopg.connect(cluster.superuser("template1"), autocommit=True) as conn:
            conn.execute("create database elsewhere")
        with psycopg.connect(cluster.superuser("elsewhere"), autocommit=True) as conn:
            conn.execute("create extension pmpp cascade")
            assert conn.execute(CALL, [here, MAINTENANCE]).fetchall() == tags
        with psycopg.connect(cluster.superuser("template1"), autocommit=True) as conn:
            conn.execute("drop database elsewhere with (force)")
    else:
        assert db.execute(CALL, [here, MAINTENANCE]).fetchall() == tags
    assert db.execute("select pg_relation_size('large') = 0").fetchall() == [(is_emptied,)]
