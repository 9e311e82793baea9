"""Line charts as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, PLOT_HEIGHT = 760, 340
LEFT, RIGHT, BOTTOM, LEGEND_LINE = 80, 50, 64, 22
COLOURS = ("#0067b1", "#c65102", "#007a58", "#8b4a9c", "#5c5c5c")
MARKS = ("M-4,-4h8v8h-8z", "M0,-5L5,4H-5z", "M0,-6L6,0L0,6L-6,0z", "M-5,-5L5,5M5,-5L-5,5")

# A background of its own, so that it can be read on a page of any colour.
START = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222">
<title>{title}</title>
<rect width="100%" height="100%" rx="6" fill="#fff" stroke="#ccc"/>"""


class Axis(NamedTuple):
    """One direction of a chart.

    Attributes:
        label: what is shown, with its unit.
        least: the value at its beginning.
        most: the value at its end.
        ticks: the values to be labelled.
        is_log: True if equal ratios, and not equal differences, are equally far apart.
    """

    label: str
    least: float
    most: float
    ticks: Sequence[float]
    is_log: bool

    def place(self, value: float) -> float:
        """Return where on the axis a value is, from 0 to 1."""
        if self.is_log:
            return math.log(value / self.least) / math.log(self.most / self.least)
        return (value - self.least) / (self.most - self.least)


def value_axis(label: str, values: Sequence[float], *, is_log: bool) -> Axis:
    """Return an axis on which some values have room, with round ticks."""
    if is_log:
        exponents = range(
            math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1
        )
        steps = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
        least = max(step for step in steps if step <= min(values))
        most = min(step for step in [*steps, 10.0 ** (exponents[-1] + 1)] if step >= max(values))
        return Axis(label, least, most, [s for s in steps if least <= s <= most], is_log)
    most = max(values) * 1.1
    size = 10.0 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if most / (size * part) <= 8)
    ticks = [number * step for number in range(math.ceil(most / step) + 1)]
    return Axis(label, 0.0, ticks[-1], ticks, is_log)


def chart(title: str, x: Axis, y: Axis, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a chart as an SVG document.

    Args:
        title: what it shows.
        x: the axis to the right.
        y: the axis upwards.
        lines: the points of each line, by its name in the legend.
    """
    top = 50 + LEGEND_LINE * len(lines)
    plot = _Plot(x, y, top)
    parts = [
        START.format(width=WIDTH, height=top + PLOT_HEIGHT + BOTTOM, title=escape(title)),
        _text(20, 30, title, "font-size='16' font-weight='bold'"),
        *plot.grid(),
    ]
    for number, (name, points) in enumerate(lines.items()):
        parts += _legend(number, name)
        parts += plot.line(number, points)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Plot(NamedTuple):
    x: Axis
    y: Axis
    top: int

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
        return across, self.top + (1 - self.y.place(y)) * PLOT_HEIGHT

    def grid(self) -> list[str]:
        bottom, right = self.top + PLOT_HEIGHT, WIDTH - RIGHT
        parts = []
        for value in self.y.ticks:
            _, at = self.at(self.x.least, value)
            parts.append(f"<path d='M{LEFT},{at:.1f}H{right}' stroke='#ddd'/>")
            parts.append(_text(LEFT - 8, at + 4, f"{value:,g}", "text-anchor='end'"))
        for value in self.x.ticks:
            at, _ = self.at(value, self.y.least)
            parts.append(f"<path d='M{at:.1f},{bottom}v5' stroke='#444'/>")
            parts.append(_text(at, bottom + 20, f"{value:,.0f}", "text-anchor='middle'"))
        middle = self.top + PLOT_HEIGHT / 2
        return [
            *parts,
            f"<path d='M{LEFT},{self.top}V{bottom}H{right}' fill='none' stroke='#444'/>",
            _text((LEFT + right) / 2, bottom + 46, self.x.label, "text-anchor='middle'"),
            _text(20, middle, self.y.label,
                  f"text-anchor='middle' transform='rotate(-90 20 {middle:.0f})'"),
        ]  # fmt: skip

    def line(self, number: int, points: Sequence[tuple[float, float]]) -> list[str]:
        places = [self.at(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
        width = 3 if number == 0 else 1.8
        return [
            f"<path d='{path}' fill='none' stroke='{_colour(number)}' stroke-width='{width}'/>",
            *(_mark(number, x, y) for x, y in places),
        ]


def _legend(number: int, name: str) -> list[str]:
    middle = 54 + LEGEND_LINE * number
    return [
        f"<path d='M{LEFT},{middle}h34' stroke='{_colour(number)}' stroke-width='2'/>",
        _mark(number, LEFT + 17, middle),
        _text(LEFT + 44, middle + 4, name),
    ]


def _mark(number: int, x: float, y: float) -> str:
    if number == 0:
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4.5' fill='{_colour(number)}'/>"
    return (f"<path d='{MARKS[(number - 1) % len(MARKS)]}' transform='translate({x:.1f} {y:.1f})'"
            f" fill='{_colour(number)}' stroke='{_colour(number)}'/>")  # fmt: skip


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{escape(text)}</text>"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
