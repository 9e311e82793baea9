"""The table, and the part of doc/performance.md that is made from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from measure import Line

TITLES = ("scenario", "contender", "median", "peak memory", "pmpp / contender", "goal")
FIRST = "<!-- What follows is written by make bench DOC=1. -->"
LAST = "<!-- End of what make bench DOC=1 writes. -->"


def table(lines: Iterable[Line]) -> str:
    """Return the table of all scenarios, in Markdown that can be read as it is."""
    return grid(TITLES, lines)


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, with its columns aligned."""
    cells = [list(titles), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    first, *rest = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    line = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([first, line, *rest]) + "\n"


def replaced(document: str, measured: str) -> str:
    """Return a document with the part between its two marks replaced.

    Raises:
        ValueError: if the document has not both marks.
    """
    before, first, rest = document.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not last:
        raise ValueError(f"the document needs the lines {FIRST!r} and {LAST!r}")
    return f"{before}{first}\n\n{measured.strip()}\n\n{last}{after}"
