"""The table and the chart of the benchmark."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from chart import Axis, chart, value_axis
from measure import Line, seconds
from report import FIRST, LAST, replaced, table
from scenarios import best_schedule


def test_table_is_aligned_markdown() -> None:
    """Each line has all columns, and all lines are equally long."""
    printed = table([Line("work", "pmpp", "1.00 s"), Line("", "peer", "2.00 s", "", "0.50", "met")])
    lines = printed.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "",
        "peer",
        "2.00 s",
        "",
        "0.50",
        "met",
    ]


def test_only_what_is_between_the_marks_is_replaced() -> None:
    """Text around the measured part stays, and replacing it twice is the same as once."""
    document = f"before\n{FIRST}\nold\n{LAST}\nafter\n"
    once = replaced(document, "new")
    assert once == f"before\n{FIRST}\n\nnew\n\n{LAST}\nafter\n"
    assert replaced(once, "new") == once
    with pytest.raises(ValueError, match="needs the lines"):
        replaced("no marks", "new")


@pytest.mark.parametrize(
    ("value", "shown"), [(1.234, "1.23 s"), (0.1234, "123 ms"), (0.00567, "5.7 ms")]
)
def test_times_have_units(value: float, shown: str) -> None:
    """The benchmark shows times with three digits, in seconds or milliseconds."""
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("lengths", "workers", "expected"),
    [([1.0] + [0.1] * 7, 2, 1.0), ([0.1] * 7 + [1.0], 2, 1.3), ([2.0, 2.0, 2.0], 2, 4.0)],
)
def test_best_schedule(lengths: list[float], workers: int, expected: float) -> None:
    """best_schedule gives each query, in order, to the worker that is free first."""
    assert best_schedule(lengths, workers) == pytest.approx(expected)


@pytest.mark.parametrize("is_log", [True, False])
def test_chart_shows_every_line_inside_its_frame(is_log: bool) -> None:
    """The chart is well-formed, has title, legend and labels, and no point outside of its frame."""
    lines = {"pmpp": [(1, 5.0), (10, 70.0)], "a < b": [(1, 3.0), (10, 900.0)]}
    y = value_axis("ms", [3.0, 900.0], is_log=is_log)
    svg = ElementTree.fromstring(chart("A & B", Axis("rows", 1, 10, (1, 10), is_log), y, lines))
    texts = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert {"A & B", "pmpp", "a < b", "rows", "ms", "1", "10"} <= set(texts)
    assert y.least <= 3.0
    assert y.most >= 900.0
    height = float(svg.attrib["height"])
    circles = [element for element in svg.iter() if element.tag.endswith("circle")]
    # There are two points, and one in the legend.
    assert len(circles) == 3
    assert all(0 < float(circle.attrib["cy"]) < height for circle in circles)
