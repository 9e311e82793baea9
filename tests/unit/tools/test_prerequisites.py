"""tools/prerequisites installs the packages of the right version of PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from installation import TOP


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
    """tools/prerequisites installs nothing for a version that is too old or unknown."""
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
