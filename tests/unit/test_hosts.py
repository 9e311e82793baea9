"""What is said of hosts is what tools/hosts lists, and the packages are of the right version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from installation import TOP, git, run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this one, of which tools/checkver approves."""
    tree = tmp_path_factory.mktemp("tree")
    for name in git("ls-files").splitlines():
        if (TOP / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, tree / name)
    run("git", "init", "--quiet", cwd=tree)
    run("git", "add", "--all", cwd=tree)
    run(tree / "tools/checkver")
    return tree


# The mentions are put together here: this file must not contain them either.
@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("README.md", "| 17 |", "| 19 |", "README.md differs"),
        ("META.json", '"PostgreSQL": "15.', '"PostgreSQL": "14.', "META.json differs"),
        ("debian/pgversions", "15+", "14+", "debian/pgversions differs"),
        (".github/workflows/test.yml", "postgresql: 16,", "postgresql: 14,", "test.yml differs"),
        ("tools/hosts", "17  3.13", "17  3.12", "README.md differs"),
        ("doc/security.md", "# ", "# Debian " + "12 ", "doc/security.md says Debian " + "12"),
        ("README.md", "# pmpp", "# book" + "worm", "README.md says book" + "worm"),
        (
            "Makefile",
            "# ",
            "# postgresql-client-" + "17 ",
            "Makefile says postgresql-client-" + "17",
        ),
    ],
)
def test_checkver_compares_with_the_list(
    tree: Path, name: str, old: str, new: str, complaint: str
) -> None:
    """A wrong version in a file, and a release in a file that should name none, are found."""
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new, 1))
    done = subprocess.run([tree / "tools/checkver"], check=False, stderr=subprocess.PIPE, text=True)
    (tree / name).write_text(text)
    assert done.returncode == 1
    assert complaint in done.stderr


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory of programs in which apt writes what it would install to a file."""
    script = '#!/bin/sh\necho "$*" >> "$(dirname "$0")/log"\n'
    for program in ("apt-get", "apt-cache", "sudo"):
        (tmp_path / program).write_text(script if program != "sudo" else '#!/bin/sh\nexec "$@"\n')
        (tmp_path / program).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("directory", ["lib/postgresql/98", "pgsql-98"])
def test_prerequisites_are_of_the_version_of_pg_config(packages: Path, directory: str) -> None:
    """The version of a PG_CONFIG that is not there yet is taken from its path."""
    done = _prerequisites(packages, PG_CONFIG=f"{packages}/{directory}/bin/pg_config")
    assert done.returncode == 0
    log = (packages / "log").read_text()
    installed = re.findall(r"postgresql-\S+", log)
    assert installed == [f"postgresql-{what}98" for what in ("", "plpython3-", "client-")]


@pytest.mark.parametrize(
    ("version", "message"),
    [("9", "pmpp needs PostgreSQL"), ("none", "There is no")],
)
def test_prerequisites_of_no_supported_version(packages: Path, version: str, message: str) -> None:
    """A version that is too old, or that cannot be told, installs nothing."""
    done = _prerequisites(packages, PG_CONFIG=f"{packages}/{version}/bin/pg_config")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (packages / "log").exists()


def _prerequisites(packages: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{packages}:{os.environ['PATH']}"
    return subprocess.run(
        [TOP / "tools/prerequisites"], env={**os.environ, "PATH": path, **variables},
        check=False, text=True, capture_output=True,
    )  # fmt: skip
