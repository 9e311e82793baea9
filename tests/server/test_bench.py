"""The benchmark runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import PG_CONFIG
from installation import TOP

RUN = TOP / "bench" / "run.py"


@pytest.mark.slow
def test_bench_prints_a_table() -> None:
    """The benchmark runs one scenario, on a server of its own, and prints its table."""
    done = subprocess.run(
        [sys.executable, RUN, "--quick", "one trivial query"],
        env={**os.environ, "PG_CONFIG": PG_CONFIG}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "shared_buffers" in done.stdout
    contenders = [line.split("|")[2].strip() for line in done.stdout.splitlines() if "|" in line]
    assert contenders[2:4] == ["pmpp", "dblink on a new connection"]
    # The progress has a line for each scenario.
    assert len(done.stderr.splitlines()) == 1
