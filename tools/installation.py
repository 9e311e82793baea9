"""What is installed in a PostgreSQL, and private copies of one, to install extensions into without
disturbing anybody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[1]
SOURCE = TOP / "python/src/pmpp"
DIRECTORIES = ("--bindir", "--pkglibdir", "--sharedir")


class Installation:
    """A copy of a PostgreSQL, without pmpp. PostgreSQL finds its files from where its programs are.

    Args:
        pg_config: the program of that name of the PostgreSQL to copy.
        directory: where to put the copy.

    Attributes:
        pg_config: the program of that name of the copy.
        pkglibdir, sharedir: the directories that extensions are installed into.
    """

    def __init__(self, pg_config: str, directory: Path) -> None:
        found = [Path(os.path.realpath(ask(pg_config, option))) for option in DIRECTORIES]
        common = os.path.commonpath(found)
        for path in found:
            unwanted = shutil.ignore_patterns("pmpp*", "bitcode", "doc", "man")
            copy = directory / path.relative_to(common)
            shutil.copytree(path, copy, symlinks=True, ignore=unwanted, dirs_exist_ok=True)
        self.pg_config = str(directory / found[0].relative_to(common) / "pg_config")
        self.pkglibdir, self.sharedir = (
            Path(ask(self.pg_config, option)) for option in DIRECTORIES[1:]
        )
        # pgxn checks that it can write here.
        Path(ask(self.pg_config, "--libdir")).mkdir(parents=True, exist_ok=True)
        assert self.pkglibdir.is_relative_to(directory)
        assert self.sharedir.is_relative_to(directory)

    def files(self) -> dict[Path, float]:
        """Return all files and directories, with the times of their last changes."""
        found = (p for top in (self.pkglibdir, self.sharedir) for p in (top, *top.rglob("*")))
        return {path: path.stat().st_mtime for path in found}

    def make(self, *arguments: str, tree: Path = TOP) -> None:
        """Run make in a source tree, for this installation."""
        run("make", "-s", *arguments, f"PG_CONFIG={self.pg_config}", cwd=tree)


def not_of_the_tree(pg_config: str) -> str | None:
    """Say in one sentence how the installed pmpp differs from the tree's, and how to install that.

    The version alone does not show it, since it stays the same between two releases.
    """
    if not shutil.which(pg_config):
        return f"there is no program {pg_config}: name the pg_config of a PostgreSQL in PG_CONFIG"
    pkglibdir, sharedir = (Path(ask(pg_config, option)) for option in DIRECTORIES[1:])
    control = (TOP / "pmpp.control").read_text()
    version = re.findall("^default_version = '(.*)'$", control, re.MULTILINE)[0]
    script = "".join(path.read_text() for path in sorted(TOP.glob("sql/extension/*.sql")))
    package = pkglibdir / "pmpp" / version / "pmpp"
    expected = {
        sharedir / "extension" / "pmpp.control": control,
        sharedir / "extension" / f"pmpp--{version}.sql": script.replace("@VERSION@", version),
        **{
            package / path.relative_to(SOURCE): path.read_text()
            for path in SOURCE.glob("**/*.py")
            if not path.is_relative_to(SOURCE / "client")
        },
    }
    for path in sorted({*expected, *package.glob("**/*.py")}):
        if not path.exists():
            difference = f"{path} is missing"
        elif path not in expected:
            difference = f"the tree has no {path.name}, as {path}"
        elif path.read_text() != expected[path]:
            difference = f"{path} differs"
        else:
            continue
        sudo = "" if os.access(sharedir / "extension", os.W_OK) else "sudo "
        return (
            f"the installed pmpp is not the one of this tree ({difference});"
            f" install it: make all && {sudo}make install PG_CONFIG={pg_config}"
        )
    return None


def default_pg_config() -> str:
    """Return the program that PG_CONFIG names, or the one that the Makefile takes without it."""
    return os.environ.get("PG_CONFIG") or run(TOP / "tools/pg-config").strip()


def ask(pg_config: str, option: str) -> str:
    """Return an answer of pg_config."""
    return subprocess.check_output([pg_config, option], text=True).strip()


def run(*command: str | Path, cwd: Path = TOP, environment: dict[str, str] | None = None) -> str:
    """Run a command and return what it prints; fail with that if the command fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def git(*arguments: str | Path) -> str:
    """Run git in the source tree, whoever owns that, and return what it prints."""
    return run("git", "-c", "safe.directory=*", *arguments)
