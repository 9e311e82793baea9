"""Running contenders in turn, and what is concluded from their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

from scenarios import Scenario
from testbed import Bench, Run

MOST_ROUNDS = 25


class Line(NamedTuple):
    """A line of the table, as text."""

    scenario: str
    contender: str
    median: str
    memory: str = ""
    ratio: str = ""
    goal: str = ""


def race(
    bench: Bench, contenders: Mapping[str, Run], rounds: int, enough: float = 0.0
) -> dict[str, list[float]]:
    """Run contenders in turn, round after round; the first round warms up and does not count.

    Every other round runs them in the opposite order, and each begins when what the one before it
    has left behind on the server is gone, so that nobody pays for another.

    Args:
        bench: where.
        contenders: who, in this order.
        rounds: how many rounds to run at least.
        enough: seconds for which to go on, up to MOST_ROUNDS: how fast processes wake each other
            differs from one moment to the next, and a few short rounds would all see the same.

    Returns:
        the seconds of each round for each contender.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    started = time.perf_counter()
    for number in range(MOST_ROUNDS + 1):
        if number > rounds and time.perf_counter() - started >= enough:
            break
        order = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in order:
            bench.settle()
            elapsed = contenders[name]()
            if number:
                times[name].append(elapsed)
    return times


def measure(bench: Bench, scenario: Scenario, rounds: int, enough: float) -> list[Line]:
    """Run a scenario and return its lines, of which the second has the goal."""
    if scenario.rounds:
        times = race(bench, scenario.contenders, scenario.rounds)
    else:
        times = race(bench, scenario.contenders, rounds, enough)
    ours, *others = times
    lines = [Line(scenario.name, ours, seconds(statistics.median(times[ours])))]
    for number, name in enumerate(others):
        pairs = list(zip(times[ours], times[name], strict=True))
        goal = ""
        if scenario.is_difference:
            compared = [our - their for our, their in pairs]
            shown = spread(
                [f"{value * 1000:.2f}" for value in _middle_and_ends(compared)], " ms more"
            )
            limit = f"at most {scenario.goal * 1000:.0f} ms more"
        else:
            compared = [our / their for our, their in pairs]
            shown = spread([f"{value:.2f}" for value in _middle_and_ends(compared)])
            limit = f"at most {scenario.goal:.2f}"
        if number == 0:
            goal = f"{limit}: {_verdict(statistics.median(compared) <= scenario.goal)}"
        lines.append(Line("", name, seconds(statistics.median(times[name])), "", shown, goal))
    if scenario.memory:
        lines = [_with_memory(bench, line, scenario.contenders[line.contender]) for line in lines]
    if scenario.cpu_goal is not None:
        lines.append(_cpu_line(bench, scenario, rounds))
    return lines


def seconds(value: float) -> str:
    """Return a time with its unit."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.{1 if value < 0.1 else 0}f} ms"


def spread(values: list[str], unit: str = "") -> str:
    """Return a median, and what it lies between if there is more than one value."""
    middle, least, most = values
    return f"{middle}{unit}" + (f" ({least} to {most})" if least != most else "")


def _middle_and_ends(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _with_memory(bench: Bench, line: Line, run: Run) -> Line:
    # No session of the caller holds anything.
    if line.contender.startswith("COPY"):
        return line
    return line._replace(memory=f"{bench.peak_memory(run):.0f} MB")


def _cpu_line(bench: Bench, scenario: Scenario, rounds: int) -> Line:
    assert scenario.cpu_goal is not None
    ours, run = next(iter(scenario.contenders.items()))
    shares = [bench.cpu_share(run) for _ in range(rounds)]
    shown = spread([f"{value:.1%}" for value in _middle_and_ends(shares)])
    verdict = _verdict(statistics.median(shares) <= scenario.cpu_goal)
    return Line("", f"{ours}: CPU of the calling process", shown, "", "",
                f"at most {scenario.cpu_goal:.0%}: {verdict}")  # fmt: skip


def _verdict(met: bool) -> str:
    return "met" if met else "NOT MET"
