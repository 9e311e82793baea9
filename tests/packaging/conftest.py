"""Installations, servers that run from them, and copies of the source tree."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from helpers import PG_CONFIG
from installation import TOP, Installation, git, run


@pytest.fixture(scope="session")
def new_installation(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], Installation]]:
    """Make an installation that has no pmpp; removed at the end."""
    made = []

    def new_installation() -> Installation:
        # Other accounts may not enter the directory of pytest without these permissions.
        made.append(tmp_path_factory.mktemp("installation"))
        for path in (made[-1], made[-1].parent, made[-1].parent.parent):
            path.chmod(0o755)
        return Installation(PG_CONFIG, made[-1])

    yield new_installation
    for directory in made:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def installation(new_installation: Callable[[], Installation]) -> Installation:
    """An installation for the tests of a module, which has no pmpp at first."""
    return new_installation()


@pytest.fixture(scope="module")
def server(installation: Installation) -> Iterator[Cluster]:
    """A server that runs from it."""
    with Cluster(installation.pg_config) as server:
        yield server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a copy of the source tree, built as far as this one is.

    The function takes a revision of git, or None for the files as they are.
    """

    directory = tmp_path_factory.mktemp("trees")

    def tree(name: str, revision: str | None = None) -> Path:
        copy = directory / name
        copy.mkdir()
        archive = directory / f"{name}.tar"
        if revision is None:
            names = directory / f"{name}.txt"
            names.write_text(git("ls-files", "--cached", "--others", "--exclude-standard"))
            run("tar", "--create", "--file", archive, "--files-from", names)
        else:
            git("archive", "--output", archive, revision)
        run("tar", "--extract", "--touch", "--file", archive, cwd=copy)
        ours, theirs = (top / "python/libpq-wheel.txt" for top in (TOP, copy))
        if theirs.exists() and theirs.read_text() == ours.read_text():
            shutil.copytree(TOP / "build/package", copy / "build/package")
            for stamp in (TOP / "build").glob("psycopg-*.done"):
                (copy / "build" / stamp.name).touch()
        return copy

    return tree
