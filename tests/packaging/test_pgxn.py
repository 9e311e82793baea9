"""A user of PGXN installs pmpp from the zip, uses it, and removes it."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

import psycopg
import pytest
from cluster import Cluster
from installation import TOP, Installation, run


@pytest.mark.slow
def test_pgxn(installation: Installation, server: Cluster) -> None:
    """pgxnclient installs, creates, checks, drops and uninstalls; no file is left."""
    installation.make("dist")
    (archive,) = (TOP / "build").glob("pmpp-*.zip")
    with ZipFile(archive) as zipped:
        top = {name.split("/")[1] for name in zipped.namelist()} - {""}
    assert top == {
        "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "META.json", "Makefile", "README.md",
        "doc", "expected", "pmpp.control", "python", "sql", "tools",
    }  # fmt: skip
    before = installation.files().keys()

    def pgxn(command: str, *options: str) -> None:
        program = Path(sys.executable).with_name("pgxn")
        run(program, command, *options, f"--pg_config={installation.pg_config}", archive,
            environment=server.environment())  # fmt: skip

    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("create extension plpython3u")
        pgxn("install", "--nosudo")
        assert installation.files().keys() > before
        pgxn("load", "--yes", "--dbname=postgres")
        assert conn.execute("select pmpp.num_cpus() > 0").fetchall() == [(True,)]
        pgxn("check", "--dbname=contrib_regression")
        pgxn("unload", "--yes", "--dbname=postgres")
        assert conn.execute("select to_regnamespace('pmpp')").fetchall() == [(None,)]
        pgxn("uninstall", "--nosudo")
    assert installation.files().keys() == before
