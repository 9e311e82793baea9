"""What it takes to build pmpp."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from installation import TOP
from testbed import Bench, Run


def fresh_make(bench: Bench) -> Run:
    """Build a fresh copy of the tree, without what pip may have in its cache."""
    tree = bench.cluster.directory / "tree"

    def run() -> float:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(TOP, tree, ignore=shutil.ignore_patterns("build", ".*", "__pycache__"))
        return _timed(tree, "make", "all")

    return run


def pip_install(bench: Bench) -> Run:
    """Have pip install psycopg alone, without its cache as well."""
    target = bench.cluster.directory / "psycopg"

    def run() -> float:
        shutil.rmtree(target, ignore_errors=True)
        return _timed(TOP, "build/venv/bin/pip", "install", "--quiet", "--no-compile",
                      "--target", target, "--requirement", "python/libpq-wheel.txt")  # fmt: skip

    return run


def second_make() -> float:
    """Build again what is built; nothing may change."""
    before = _times_of_files()
    elapsed = _timed(TOP, "make", "all")
    rebuilt = [file for file, changed in _times_of_files().items() if before.get(file) != changed]
    if rebuilt:
        raise RuntimeError(f"a second make has rebuilt {rebuilt[0]}")
    return elapsed


def _times_of_files() -> dict[Path, int]:
    files = [file for file in (TOP / "build").rglob("*") if "venv" not in file.parts]
    return {file: file.lstat().st_mtime_ns for file in files}


def _timed(directory: Path, *command: str | Path) -> float:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=directory, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**environment, "PIP_NO_CACHE_DIR": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}")
    return time.perf_counter() - started
