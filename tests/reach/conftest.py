"""A session on the server under test, which calls the servers of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def session(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """A session in a database with pmpp."""
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        conn.execute("create database reach")
    with psycopg.connect(cluster.superuser("reach"), autocommit=True) as conn:
        conn.execute("create extension pmpp cascade")
        # DISCARD ALL drops prepared statements that psycopg would still use.
        conn.prepare_threshold = None
        yield conn


@pytest.fixture
def caller(session: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """That session, for a test that leaves nothing but settings and temporary objects behind."""
    yield session
    session.execute("discard all")
