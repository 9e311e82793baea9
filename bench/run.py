#!/usr/bin/env python3
"""Measure pmpp beside its peers, on a server made for it.

    bench/run.py [--quick] [--doc] [SCENARIO...]

Every scenario runs each contender in turn, round after round, on warm sessions. What is compared
is pmpp's time and the contender's of the same round; shown are the median of these ratios, and the
least and the greatest. The table goes to standard output, the progress to standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "tools"))

import report  # noqa: E402
from cluster import Cluster  # noqa: E402
from curves import curves, draw  # noqa: E402
from installation import default_pg_config, not_of_the_tree  # noqa: E402
from measure import Line, measure  # noqa: E402
from scenarios import scenarios  # noqa: E402
from testbed import Bench  # noqa: E402


def main() -> None:
    """Set up a server, run the scenarios asked for, remove the server, print the table."""
    arguments = _arguments()
    rounds, enough = (3, 0.0) if arguments.quick else (5, 10.0)
    pg_config = default_pg_config()
    if problem := not_of_the_tree(pg_config):
        sys.exit(problem)
    with Cluster(pg_config) as cluster:
        bench = Bench(cluster, quick=arguments.quick)
        about = _about(bench, rounds)
        print(about)
        lines = _race_all(bench, arguments, rounds, enough)
        print(report.table(lines), flush=True)
        if arguments.doc:
            sections = [draw(bench, curve, TOP / "doc") for curve in curves(bench)]
            path = TOP / "doc" / "performance.md"
            measured = "\n\n".join([about, report.table(lines), *sections])
            path.write_text(report.replaced(path.read_text(), measured))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure pmpp beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work, 3 rounds")
    parser.add_argument("--doc", action="store_true",
                        help="also draw the curves, and write all into doc/performance.md")  # fmt: skip
    parser.add_argument("scenarios", nargs="*", help="parts of names of scenarios")
    return parser.parse_args()


def _about(bench: Bench, rounds: int) -> str:
    about = f"{bench.environment()} Medians of at least {rounds} rounds.\n"
    if not bench.has_plproxy:
        about += "PL/Proxy is left out: it is not installed (tools/prerequisites bench).\n"
    return about


def _race_all(
    bench: Bench, arguments: argparse.Namespace, rounds: int, enough: float
) -> list[Line]:
    wanted = arguments.scenarios
    lines = []
    for scenario in scenarios(bench, quick=arguments.quick):
        if not wanted or any(part in scenario.name for part in wanted):
            started = time.perf_counter()
            found = measure(bench, scenario, rounds, enough)
            elapsed = time.perf_counter() - started
            print(f"{scenario.name}: {found[1].ratio}, {found[1].goal} [{elapsed:.0f} s]",
                  file=sys.stderr, flush=True)  # fmt: skip
            lines += found
    return lines


if __name__ == "__main__":
    main()
