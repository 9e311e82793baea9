#!/usr/bin/env python3
"""Measure pmpp beside its peers, on a server made for it.

    bench/run.py [--quick] [SCENARIO...]

Every scenario runs each contender in turn, round after round, on warm sessions, and prints the
median of each, and the ratio of pmpp to the contender that the goal is set against: its median
over the rounds, and from least to most.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from cluster import SETTINGS, Cluster
from scenarios import SCENARIOS, Bench, Scenario


def measure(bench: Bench, scenario: Scenario, rounds: int) -> None:
    """Run a scenario and print its lines of the table."""
    times: dict[str, list[float]] = {name: [] for name in scenario.contenders}
    for number in range(rounds + 1):
        for name, run in scenario.contenders.items():
            elapsed = run(bench)
            if number:  # the first round warms up
                times[name].append(elapsed)
    ratios = [
        ours / theirs for ours, theirs in zip(times["pmpp"], times[scenario.against], strict=True)
    ]
    print(f"\n{scenario.name} (goal: at most {scenario.goal} times {scenario.against})")
    for name, values in times.items():
        print(f"  {name:<42}{statistics.median(values) * 1000:>12.1f} ms")
    print(f"  pmpp / {scenario.against}: {statistics.median(ratios):.2f}"
          f"  ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
    for label, value in bench.remarks():
        print(f"  {label}: {value}")


def main() -> None:
    """Set up a server, run the scenarios asked for, remove the server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller work")
    parser.add_argument("scenarios", nargs="*", help="parts of names of scenarios")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 5
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{os.cpu_count()} CPUs ({model[1] if model else platform.machine()}),"
          f" shared_buffers {SETTINGS['shared_buffers']}, max_connections"
          f" {SETTINGS['max_connections']}, {rounds} rounds")  # fmt: skip
    with Cluster(os.environ.get("PG_CONFIG", "pg_config"), leads_to_itself=True) as cluster:
        with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
            bench = Bench(cluster, conn, arguments.quick)
            for scenario in SCENARIOS:
                if not arguments.scenarios or any(s in scenario.name for s in arguments.scenarios):
                    measure(bench, scenario, rounds)


if __name__ == "__main__":
    main()
