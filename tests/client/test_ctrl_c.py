"""Ctrl-C while queries run, and while connections are committed, closed and returned."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.pool
import pytest
from client_shards import on_each_postgres, script, wait_for_sleeping
from cluster import Cluster
from pmpp import ParallelConnection


@pytest.mark.parametrize("name", [None, "c"], ids=["execute", "fetch"])
@on_each_postgres
def test_interrupt(cluster: Cluster, dsns: list[str], driver: str, name: str | None) -> None:
    """Ctrl-C in a long query cancels it everywhere and leaves no thread behind."""
    body = """
try:
    cursor.execute(query)
    cursor.fetchall()
except KeyboardInterrupt:
    pdb.rollback()
    with pdb.cursor() as again:
        print(len(again.execute("select 1").fetchall()))
    pdb.close()
    print(threading.active_count())
"""
    command = script(body, dsns, driver, name, "select 'interrupt me', pg_sleep(100)")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            wait_for_sleeping(cluster, len(dsns))
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=60) == ("10\n1\n", "")
        finally:
            child.kill()
    wait_for_sleeping(cluster, 0)


SLOW_COMMIT = """
create function pg_temp.wait() returns trigger language plpgsql
    as $$ begin perform pg_sleep(100); return null; end $$;
create temp table slow (n int);
create constraint trigger wait after insert on slow
    deferrable initially deferred for each row execute function pg_temp.wait()
"""


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_interrupted_commit(cluster: Cluster, dsns: list[str], driver: Any) -> None:
    """Ctrl-C in the commit at the end of a `with` block closes all connections."""
    connections = [driver.connect(dsn) for dsn in dsns[:3]]
    for connection in connections:
        connection.cursor().execute(SLOW_COMMIT)
        connection.commit()

    def interrupt() -> None:
        wait_for_sleeping(cluster, 3)
        os.kill(os.getpid(), signal.SIGINT)

    pdb = ParallelConnection(connections)
    with suppress(KeyboardInterrupt), ThreadPoolExecutor(1) as pool, pdb:
        pdb.cursor().execute("insert into slow values (1)")
        pool.submit(interrupt)
    assert pdb.closed
    assert all(connection.closed for connection in connections)


class InterruptedOnce(psycopg2.extensions.connection):
    """A connection that raises KeyboardInterrupt at its first close."""

    was_interrupted = False

    def close(self) -> None:
        if not InterruptedOnce.was_interrupted:
            InterruptedOnce.was_interrupted = True
            raise KeyboardInterrupt
        super().close()


def test_interrupted_close(dsns: list[str]) -> None:
    """After Ctrl-C, another close, also that of a `with` block, closes the other connections."""
    connections = [psycopg2.connect(dsn, connection_factory=InterruptedOnce) for dsn in dsns[:3]]
    with suppress(KeyboardInterrupt), ParallelConnection(connections) as pdb:
        pdb.cursor().execute("select 1")
    assert InterruptedOnce.was_interrupted
    assert all(connection.closed for connection in connections)


def test_interrupted_putconn(dsns: list[str]) -> None:
    """After Ctrl-C, another putconn returns the other connections."""

    class InterruptedPool(psycopg2.pool.SimpleConnectionPool):
        was_interrupted = False

        def putconn(self, *args: Any, **kwargs: Any) -> None:
            if not InterruptedPool.was_interrupted:
                InterruptedPool.was_interrupted = True
                raise KeyboardInterrupt
            super().putconn(*args, **kwargs)

    pools = [InterruptedPool(1, 1, dsn) for dsn in dsns[:3]]
    pdb = ParallelConnection([pool.getconn() for pool in pools])
    with pytest.raises(KeyboardInterrupt):
        pdb.putconn(pools)
    pdb.putconn(pools)
    for pool in pools:
        # The pool has one connection, so this fails unless the pool got it back.
        pool.putconn(pool.getconn())
        pool.closeall()
