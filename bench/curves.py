"""How times grow: what is measured for the charts of doc/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import peers
from chart import Axis, chart, value_axis
from measure import race
from peers import Work
from report import grid
from scenarios import burning, connecting
from testbed import Bench, Run

ROUNDS = 3


class Curve(NamedTuple):
    """A chart and what is measured for it.

    Attributes:
        file: its name in doc/.
        title: what it shows.
        x_label: what changes, with its unit.
        y_label: what is measured, with its unit.
        xs: the values of what changes.
        contenders: gives those who do the work for one value.
        baseline: the contender with which the others are compared in each round, and which is not
            drawn; None if milliseconds are drawn.
        is_log: True if both axes are logarithmic.
    """

    file: str
    title: str
    x_label: str
    y_label: str
    xs: Sequence[int]
    contenders: Callable[[int], dict[str, Run]]
    baseline: str | None
    is_log: bool


def curves(bench: Bench) -> list[Curve]:
    """Return all charts."""
    return [
        Curve("performance-workers.svg", "Time to open connections, and to use each of them",
              "workers, one connection each", "milliseconds", (1, 2, 4, 8, 16, 32, 64, 128, 200),
              lambda number: connecting(bench, number), None, is_log=True),
        _speedup(bench),
        Curve("performance-rows.svg", "Time to fetch rows of 3 narrow columns on one connection",
              "rows", "milliseconds", (10_000, 30_000, 100_000, 300_000, 1_000_000),
              lambda rows: _fetching(bench, rows), None, is_log=True),
    ]  # fmt: skip


def draw(bench: Bench, curve: Curve, directory: Path) -> str:
    """Measure and draw a chart.

    Returns:
        the chart and its figures, in Markdown.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for x in curve.xs:
        times = race(bench, curve.contenders(x), ROUNDS)
        for name, y in _shown(curve, times).items():
            points.setdefault(name, []).append((x, y))
    values = [y for line in points.values() for _, y in line]
    x_axis = Axis(curve.x_label, curve.xs[0], curve.xs[-1], curve.xs, curve.is_log)
    y_axis = value_axis(curve.y_label, values, is_log=curve.is_log)
    (directory / curve.file).write_text(chart(curve.title, x_axis, y_axis, points))
    rows = [
        [f"{x:,}", *(f"{line[number][1]:,.{0 if line[number][1] >= 100 else 1}f}" for line in points.values())]
        for number, x in enumerate(curve.xs)
    ]  # fmt: skip
    figures = grid([curve.x_label, *points], rows)
    return f"![{curve.title}]({curve.file})\n\n{curve.title}, {curve.y_label}:\n\n{figures}"


def _shown(curve: Curve, times: dict[str, list[float]]) -> dict[str, float]:
    """Return the number to be drawn for each contender."""
    if curve.baseline is None:
        return {name: statistics.median(values) * 1000 for name, values in times.items()}
    base = times.pop(curve.baseline)
    return {
        name: statistics.median(alone / value for alone, value in zip(base, values, strict=True))
        for name, values in times.items()
    }


def _speedup(bench: Bench) -> Curve:
    work = burning(8)

    def contenders(workers: int) -> dict[str, Run]:
        return {
            "pmpp": peers.pmpp(bench, work, workers),
            "dblink by hand, a queue over connections": peers.dblink_queue(bench, work, workers),
            "xargs -P psql": peers.xargs(bench, work, workers),
            "one session": peers.one_session(bench, work),
        }

    return Curve("performance-speedup.svg", "8 CPU-bound queries: how many times faster than one session",
                 "workers", "speedup", range(1, 9), contenders, "one session", is_log=False)  # fmt: skip


def _fetching(bench: Bench, rows: int) -> dict[str, Run]:
    source = f"narrow_rows(1, {rows})"
    work = Work(f"array['select * from {source}']", "whole.narrow", "a int, b int, c text", rows)
    return {
        "pmpp": peers.pmpp(bench, work, 1),
        "dblink": peers.dblink_each(bench, work),
        "COPY to a file (psql)": peers.copy(bench, source),
    }
