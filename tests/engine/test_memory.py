"""Memory of a process that runs the engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pmpp
import pytest

MB = 1024 * 1024

# Prints the peak of its memory before and after a call.
SCRIPT = """
import resource, sys
from pmpp.core.target import Address
from pmpp.remote.policy import Caller, from_string
from pmpp.scheduler.engine import Engine
from pmpp.core.manifest import Item
from pmpp.core.limits import Limits
from pmpp.core.literals import as_rows
from pmpp.remote.results import Reader
from pmpp.core.settings import Settings

def peak():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

connection, query, queries, workers, rows = sys.argv[1:]
item = Item(1, connection, [query] * int(queries), 1.0, int(workers), (), None)
target = from_string("item 1", item.connection, Caller("postgres", True, 42, Address("/nowhere", "1")))
engine = Engine([item], [target], Settings(), Limits(), lambda: None, print)
peak()
total = 0
for delivery in engine.run():
    for batch in Reader(delivery.encoding).batches(delivery.part, as_rows):
        total += len(batch)
        engine.go_on()
    del delivery
assert total == int(queries) * int(rows)
peak()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "queries", "workers", "rows", "limit"),
    [
        ("select n, n, 'number ' || n from generate_series(1, 500000) n", 4, 4, 500000, 64),
        # The first chunk has rows that turn out to be large.
        ("select repeat('x', 1000000) from generate_series(1, 1000)", 1, 1, 1000, 96),
        # Each connection has a buffer of libpq that is as large as a row.
        ("select repeat('x', 1000000) from generate_series(1, 33)", 64, 64, 33, 256),
    ],
    ids=["many rows", "large rows", "large rows on 64 workers"],
)
def test_memory_is_bounded(
    here: str, query: str, queries: int, workers: int, rows: int, limit: int
) -> None:
    """The memory of a call does not depend on the number of rows."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, query, *map(str, (queries, workers, rows))],
        env={"PYTHONPATH": str(Path(pmpp.__path__[0]).parent)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    idle, peak = map(int, done.stdout.split())
    assert peak - idle < limit * MB
