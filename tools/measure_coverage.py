#!/usr/bin/env python3
"""Measure which lines of the Python package the tests run, in and out of the server.

    tools/measure_coverage.py PG_CONFIG

The server's part is measured in a private installation: its copy of the package starts the
measurement when it is imported. A server process ends without telling Python, so the result is
written by a handler of the C library (glibc's on_exit).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage
from installation import TOP, Installation

BIN = Path(sys.executable).parent
CONFIG = TOP / "python/pyproject.toml"

START = """
import ctypes as _ctypes, sys as _sys
_sys.path.append({site_packages!r})
import coverage as _coverage
_measurement = _coverage.Coverage(data_file={data_file!r}, config_file={config!r})
_measurement.start()

@_ctypes.CFUNCTYPE(None, _ctypes.c_int, _ctypes.c_void_p)
def _save(*_):
    _measurement.stop()
    _measurement.save()

_ctypes.CDLL(None).on_exit(_save, None)
"""


def main(pg_config: str) -> None:
    """Run the tests and print the report."""
    with tempfile.TemporaryDirectory(prefix="pmpp-coverage-") as name:
        directory = Path(name)
        # Server processes write their results here.
        directory.chmod(0o777)
        installation = Installation(pg_config, directory / "postgresql")
        installation.make("install")
        instrument(installation, directory)

        environment = {
            "PG_CONFIG": installation.pg_config,
            "COVERAGE_FILE": str(directory / "coverage"),
            "COVERAGE_RCFILE": str(CONFIG),
        }

        def run(program: str, *arguments: str) -> None:
            # A test may fail because it is slower than usual, which does not matter here.
            subprocess.run(
                [program, *arguments], cwd=TOP, env=os.environ | environment, check=False
            )

        program = str(BIN / "coverage")
        run(program, "run", "-m", "pytest", "-q", "tests/unit", "tests/engine", "tests/client")
        # The code that starts the measurement is not in the tree, and the benchmark refuses it.
        run(
            str(BIN / "pytest"), "-q", "--any-installation",
            "tests/server", "--ignore=tests/server/test_bench.py",
        )  # fmt: skip
        run(
            "tools/cluster.py", installation.pg_config, "--",
            "make", "-s", "installcheck", f"PG_CONFIG={installation.pg_config}",
        )  # fmt: skip
        run(program, "combine", "--quiet")
        run(program, "report")


def instrument(installation: Installation, directory: Path) -> None:
    """Have the installed package start the measurement."""
    (package,) = installation.pkglibdir.glob("pmpp/*/pmpp")
    for compiled in package.glob("__pycache__/__init__.*"):
        compiled.unlink()
    with (package / "__init__.py").open("a") as file:
        file.write(
            START.format(
                site_packages=str(Path(coverage.__file__).parents[1]),
                data_file=str(directory / "coverage"),
                config=str(CONFIG),
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
