"""VACUUM in workers, and a caller whose own client goes away: as the documentation says."""

from __future__ import annotations

import subprocess

import psycopg
import pytest
from cluster import Cluster
from helpers import eventually

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


@pytest.mark.parametrize(("interval", "written"), [("0", 1), ("100ms", 0)])
def test_client_goes_away(
    cluster: Cluster, db: psycopg.Connection, interval: str, written: int
) -> None:
    """A call outlives its client unless this server looks after its clients."""
    db.execute("create table note (n int)")
    db.execute("select pg_advisory_lock(1)")
    here = cluster.superuser(db.info.dbname)
    query = "insert into note select 1 from pg_advisory_xact_lock_shared(1)"
    call = f"select * from pmpp.meta('{here}', array['{query}'])"
    client = subprocess.Popen(
        [cluster.bindir / "psql", "-Xq", "-c", call,
         f"{here} application_name=client options='-c client_connection_check_interval={interval}'"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    name = db.info.dbname
    worker = f"from pg_stat_activity where datname = '{name}' and application_name like 'pmpp %'"
    caller = f"from pg_stat_activity where datname = '{name}' and application_name = 'client'"
    eventually(cluster, f"exists (select {worker} and wait_event_type = 'Lock')")
    client.kill()
    client.wait()
    if not written:
        eventually(cluster, f"not exists (select {caller}) and not exists (select {worker})")
    db.execute("select pg_advisory_unlock(1)")
    eventually(cluster, f"not exists (select {caller}) and not exists (select {worker})")
    assert db.execute("select count(*) from note").fetchall() == [(written,)]
