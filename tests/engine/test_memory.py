"""Memory of a process that runs the engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pmpp
import pytest
from psycopg import capabilities

MB = 1024 * 1024

# Prints the peak of its memory: idle, after one result, after ten of that size.
SCRIPT = """
import resource, sys
from pmpp.conninfo import Caller, from_string
from pmpp.engine import Engine
from pmpp.manifest import Item
from pmpp.rows import Reader, as_rows
from pmpp.settings import Settings

def peak():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

def run(count):
    query = "select n, n, 'number ' || n from generate_series(1, 500000) n"
    item = Item(1, sys.argv[1], [query] * count, 1.0, 4, (), None)
    target = from_string("item 1", item.connection, Caller("postgres", True, 42))
    total = 0
    row_by_row = sys.argv[2] == "row by row"
    engine = Engine([item], [target], Settings(), {}, lambda: None, print, row_by_row=row_by_row)
    for delivery in engine.run():
        for batch in Reader(delivery.encoding).batches(delivery.part, as_rows):
            total += len(batch)
            engine.go_on()
        del delivery
    assert total == count * 500000

peak()
run(1)
peak()
run(10)
peak()
"""


@pytest.mark.parametrize("results", ["row by row", "whole"])
def test_memory_is_bounded(here: str, results: str) -> None:
    """Five million rows take 64 MB; besides one whole result, if libpq can only hand that over."""
    paths = [str(Path(pmpp.__path__[0]).parent)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, results],
        env={"PYTHONPATH": ":".join(paths)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    idle, one, ten = map(int, done.stdout.split())
    comes_in_parts = results == "row by row" or capabilities.has_stream_chunked()
    assert ten - (idle if comes_in_parts else one) < 64 * MB
