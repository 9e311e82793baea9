"""Parsing manifests; the regression test bad_input tests what SQL users see of it."""

from __future__ import annotations

import pytest
from helpers import manifest_entry
from pmpp.core.interrupts import Interrupts
from pmpp.core.manifest import Item, parse
from pmpp.errors import PmppError

UNINTERRUPTED = Interrupts(lambda: None)

GOOD = manifest_entry(connection="c", queries=["select 1"])


def item(**fields: object) -> Item:
    (parsed,) = parse([GOOD | fields], UNINTERRUPTED)
    return parsed


def test_defaults() -> None:
    """A field that is missing has the documented default."""
    assert item() == Item(1, "c", ["select 1"], 1.0, None, (), None)


@pytest.mark.parametrize(
    ("queries", "num_workers", "cpu_multiplier", "cpus", "expected"),
    [
        (10, None, None, 4, 4),
        (3, None, None, 4, 3),
        (10, None, 1.5, 4, 6),
        (10, None, 0.25, 4, 1),
        (10, None, 0.25, 2, 1),
        (10, None, 1.99, 1, 1),
        (10, None, 1e308, 4, 10),
        (10, 7, None, 4, 7),
        (10, 7, 0.1, 4, 7),
        (2, 7, None, 4, 2),
    ],
)
def test_worker_count(
    queries: int,
    num_workers: int | None,
    cpu_multiplier: float | None,
    cpus: int,
    expected: int,
) -> None:
    """The number of connections follows from CPUs, options and queries."""
    parsed = item(queries=["q"] * queries, num_workers=num_workers, cpu_multiplier=cpu_multiplier)
    assert parsed.worker_count(cpus) == expected


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({"queries": ["a", "b"]}, True),
        ({"queries": ["a"]}, False),
        ({"queries": ["a", "b"], "num_workers": 2}, False),
    ],
)
def test_asks_cpus(fields: dict[str, object], asks: bool) -> None:
    """An item needs the number of CPUs only if it can make a difference."""
    assert item(**fields).asks_cpus is asks


@pytest.mark.parametrize(
    ("fields", "message", "sqlstate"),
    [
        ({"connection": None}, "item 2: connection must not be null", "22004"),
        ({"queries": ["a", None]}, "item 2: queries[2] must not be null", "22004"),
        ({"queries": ["a", "\n\t"]}, "item 2: queries[2] must not be empty", "22023"),
        ({"queries": [["a"]]}, "item 2: queries must be an array of one dimension", "2202E"),
        ({"num_workers": 0}, "item 2: num_workers must be greater than zero, not 0", "22023"),
        ({"result_format": "Text"}, 'item 2: unknown result_format "Text"', "22023"),
    ],
)
def test_errors(fields: dict[str, object], message: str, sqlstate: str) -> None:
    """An error names the item and the field, and has a fitting SQLSTATE."""
    with pytest.raises(PmppError) as raised:
        parse([GOOD, GOOD | fields], UNINTERRUPTED)
    assert raised.value.message == message
    assert raised.value.sqlstate == sqlstate
