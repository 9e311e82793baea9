"""Shards: databases of one server, and files of SQLite, with the same table in each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest
from client_shards import SIZES, Open, rows_of
from cluster import Cluster
from pmpp import ParallelConnection


@pytest.fixture(scope="session")
def dsns(cluster: Cluster) -> list[str]:
    """Connection strings of the databases."""
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        for shard in range(len(SIZES)):
            conn.execute(f"create database shard{shard}")
    dsns = [cluster.superuser(dbname=f"shard{shard}") for shard in range(len(SIZES))]
    for shard, dsn in enumerate(dsns):
        with psycopg.connect(dsn) as conn:
            conn.execute("create table t (shard int, n int)")
            conn.cursor().executemany("insert into t values (%s, %s)", rows_of(shard))
    return dsns


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of SQLite."""
    files = [tmp_path_factory.getbasetemp() / f"shard{shard}.db" for shard in range(len(SIZES))]
    for shard, file in enumerate(files):
        conn = sqlite3.connect(file)
        conn.execute("create table t (shard int, n int)")
        conn.executemany("insert into t values (?, ?)", rows_of(shard))
        conn.commit()
        conn.close()
    return files


@pytest.fixture
def not_inserted(dsns: list[str]) -> Iterator[None]:
    """Remove the rows of INSERT at the end of the test."""
    yield
    for dsn in dsns:
        with psycopg.connect(dsn) as conn:
            conn.execute("delete from t where shard = -1")


@pytest.fixture
def connect_shards(dsns: list[str], files: list[Path]) -> Iterator[Open]:
    """Open a ParallelConnection on the shards with a driver, or "mixed" for all of them in turn.

    `shards` are the shards to open. `prepare` returns, for a shard, a statement that its session
    runs first. Other arguments go to ParallelConnection. The end of the test closes everything.
    """
    drivers: dict[str, Callable[[int], Any]] = {
        "psycopg": lambda shard: psycopg.connect(dsns[shard]),
        "psycopg2": lambda shard: psycopg2.connect(dsns[shard]),
        "sqlite3": lambda shard: sqlite3.connect(files[shard], check_same_thread=False),
    }
    opened: list[ParallelConnection] = []

    def connect_shards(
        driver: str,
        *,
        shards: range = range(len(SIZES)),
        prepare: Callable[[int], str] | None = None,
        **kwargs: Any,
    ) -> ParallelConnection:
        names = list(drivers) if driver == "mixed" else [driver]
        connections = [drivers[names[shard % len(names)]](shard) for shard in shards]
        pdb = ParallelConnection(connections, **kwargs)
        opened.append(pdb)
        if prepare:
            for shard, connection in zip(shards, connections, strict=True):
                connection.cursor().execute(prepare(shard))
            pdb.commit()
        return pdb

    yield connect_shards
    for pdb in opened:
        pdb.close()
