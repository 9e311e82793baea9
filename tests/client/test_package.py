"""The package can be installed and used by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2] / "python"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip has installed the package, and nothing else."""
    directory = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(
        PYTHON,
        tmp_path_factory.mktemp("source") / "python",
        ignore=shutil.ignore_patterns("build", "*.egg-info"),
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--target", str(directory), str(source)],
        check=True,
    )  # fmt: skip
    return directory


def run(directory: Path, program: str) -> str:
    """Run a program that sees the standard library and that directory, and return its output."""
    program = f"import sys; sys.path.append({str(directory)!r})\n{program}"
    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_without_drivers(installed: Path) -> None:
    """The class works without psycopg and PL/Python, and has types."""
    program = """
import sqlite3
from pmpp import ParallelConnection

assert not {"psycopg", "psycopg2", "plpy"} & set(sys.modules)
connect = lambda: sqlite3.connect(":memory:", check_same_thread=False)
with ParallelConnection([connect(), connect()]) as pdb:
    print(pdb.cursor().execute("select 1").fetchall())
"""
    assert run(installed, program) == "[(1,), (1,)]\n"
    assert (installed / "pmpp" / "py.typed").exists()
    assert len(list(installed.glob("pmpp-*.dist-info/licenses/LICENSE"))) == 1


def test_server_imports_nothing_more(installed: Path) -> None:
    """The package alone, as the server imports it, imports nothing: no logging and no threads."""
    program = """
before = set(sys.modules)
import pmpp
print(set(sys.modules) - before)
"""
    assert run(installed, program) == "{'pmpp'}\n"


def test_types(installed: Path, tmp_path: Path) -> None:
    """Programs that use it can be checked strictly, with connections of all drivers."""
    program = tmp_path / "program.py"
    program.write_text("""
import sqlite3
import psycopg
from pmpp import ParallelConnection

with ParallelConnection([sqlite3.connect("a"), psycopg.connect("")]) as pdb:
    with pdb.cursor() as cursor:
        reveal_type(cursor.execute("select 1", merge="n").rowcount)
        pdb.nothing
""")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)],
        check=False, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert lines == [
        'note: Revealed type is "int"',
        'error: "ParallelConnection" has no attribute "nothing"  [attr-defined]',
    ]
