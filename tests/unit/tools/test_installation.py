"""not_of_the_tree compares an installation with the tree."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installation import SOURCE, TOP, not_of_the_tree
from pmpp import __version__ as version

SCRIPT = "share/extension/pmpp--{version}.sql"
PACKAGE = "lib/pmpp/{version}/pmpp"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Directories as of a PostgreSQL that has the tree's pmpp, with a pg_config that names them."""
    extension = tmp_path / "share/extension"
    extension.mkdir(parents=True)
    shutil.copy(TOP / "pmpp.control", extension)
    parts = sorted(TOP.glob("sql/extension/*.sql"))
    script = "".join(part.read_text() for part in parts).replace("@VERSION@", version)
    (extension / f"pmpp--{version}.sql").write_text(script)
    package = tmp_path / PACKAGE.format(version=version)
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("client"))
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(
        f'#!/bin/sh\necho "{tmp_path}/$1" | sed "s/--pkglibdir/lib/; s/--sharedir/share/"\n'
    )
    pg_config.chmod(0o755)
    return tmp_path


def test_same(installed: Path) -> None:
    """Nothing is said about an installation of this tree."""
    assert not_of_the_tree(str(installed / "pg_config")) is None


@pytest.mark.parametrize(
    "name", ["share/extension/pmpp.control", SCRIPT, PACKAGE + "/core/queue.py"]
)
def test_differs(installed: Path, name: str) -> None:
    """A file that differs, or is missing, is named, and so is the command that installs it."""
    file = installed / name.format(version=version)
    install = f"make install PG_CONFIG={installed}/pg_config"
    with file.open("a") as opened:
        opened.write("\n")
    assert f"({file} differs); install it: " in str(not_of_the_tree(str(installed / "pg_config")))
    file.unlink()
    problem = str(not_of_the_tree(str(installed / "pg_config")))
    assert f"({file} is missing)" in problem
    assert problem.endswith(install)


def test_left_over(installed: Path) -> None:
    """A module that the tree no longer has is named."""
    module = installed / PACKAGE.format(version=version) / "gone.py"
    module.touch()
    assert f"the tree has no gone.py, as {module}" in str(
        not_of_the_tree(str(installed / "pg_config"))
    )
