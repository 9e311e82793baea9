"""What one call is asked to do: the items of a manifest, checked.

A manifest arrives as PL/Python hands over a `query_manifest[]`: a list of dictionaries.
It leaves as a list of `Item`, in which every value is known to be usable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import errors
from ..errors import PmppError
from .interrupts import Interrupts

RESULT_FORMATS = ("text", "binary")


def item_name(number: int) -> str:
    """Return what messages call an item, by its place in the manifest."""
    return f"item {number}"


class Item(NamedTuple):
    """One connection and the queries to run on it.

    Attributes:
        number: the item's place in the manifest, from 1.
        connection: a connection string or the name of a foreign server.
        queries: the statements to distribute, at least one.
        cpu_multiplier: workers for each CPU of the remote server, used if num_workers is None.
        num_workers: the most connections to make, or None to ask the remote server for its CPUs.
        setup_commands: statements that each connection runs first.
        result_format: "text", "binary", or None for the simple query protocol.
    """

    number: int
    connection: str
    queries: Sequence[str]
    cpu_multiplier: float
    num_workers: int | None
    setup_commands: Sequence[str]
    result_format: str | None

    def worker_count(self, cpus: int) -> int:
        """Return how many connections to make to a machine with that many CPUs.

        num_workers, or else the CPUs times cpu_multiplier, rounded down;
        never less than one and never more than there are queries.
        """
        wanted = cpus * self.cpu_multiplier if self.num_workers is None else self.num_workers
        return int(max(1, min(wanted, len(self.queries))))

    @property
    def name(self) -> str:
        """What messages call the item."""
        return item_name(self.number)

    @property
    def asks_cpus(self) -> bool:
        """True if the number of workers depends on the CPUs of the remote."""
        return self.num_workers is None and len(self.queries) > 1


def parse(manifest: object, interrupts: Interrupts) -> list[Item]:
    """Check a manifest and return its items.

    Args:
        manifest: a list of dictionaries with the six fields of the type query_manifest.
        interrupts: those of the call.

    Raises:
        PmppError: naming the item and the field that cannot be used.
    """
    if manifest is None:
        raise PmppError("the manifest is null", sqlstate=errors.NULL_VALUE_NOT_ALLOWED)
    assert isinstance(manifest, list)
    if not manifest:
        raise PmppError("the manifest has no items", sqlstate=errors.INVALID_PARAMETER_VALUE)
    if any(isinstance(entry, list) for entry in interrupts.over(manifest)):
        raise PmppError(
            "the manifest must be an array of one dimension",
            sqlstate=errors.ARRAY_SUBSCRIPT_ERROR,
        )
    return [
        _parse_item(number, entry, interrupts)
        for number, entry in enumerate(interrupts.over(manifest), 1)
    ]


def _parse_item(number: int, entry: Mapping[str, object] | None, interrupts: Interrupts) -> Item:
    name = item_name(number)
    if entry is None:
        raise PmppError(f"{name} is null", sqlstate=errors.NULL_VALUE_NOT_ALLOWED)
    queries = _statements(name, "queries", entry["queries"], interrupts)
    if not queries:
        raise PmppError(
            f"{name}: queries must not be null or empty",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    return Item(
        number=number,
        connection=_connection(name, entry["connection"]),
        queries=queries,
        cpu_multiplier=_cpu_multiplier(name, entry["cpu_multiplier"]),
        num_workers=_num_workers(name, entry["num_workers"]),
        setup_commands=_statements(name, "setup_commands", entry["setup_commands"], interrupts),
        result_format=_result_format(name, entry["result_format"]),
    )


def _connection(name: str, value: object) -> str:
    if value is None:
        raise PmppError(
            f"{name}: connection must not be null", sqlstate=errors.NULL_VALUE_NOT_ALLOWED
        )
    assert isinstance(value, str)
    if not value.strip():
        raise PmppError(
            f"{name}: connection must not be empty", sqlstate=errors.INVALID_PARAMETER_VALUE
        )
    return value


def _statements(name: str, field: str, value: object, interrupts: Interrupts) -> Sequence[str]:
    if value is None:
        return ()
    assert isinstance(value, list)
    for number, statement in enumerate(interrupts.over(value), 1):
        if isinstance(statement, list):
            raise PmppError(
                f"{name}: {field} must be an array of one dimension",
                sqlstate=errors.ARRAY_SUBSCRIPT_ERROR,
            )
        if statement is None:
            raise PmppError(
                f"{name}: {field}[{number}] must not be null",
                sqlstate=errors.NULL_VALUE_NOT_ALLOWED,
            )
        if not statement.strip():
            raise PmppError(
                f"{name}: {field}[{number}] must not be empty",
                sqlstate=errors.INVALID_PARAMETER_VALUE,
            )
    return value


def _cpu_multiplier(name: str, value: object) -> float:
    if value is None:
        return 1.0
    assert isinstance(value, float | int)
    if not (math.isfinite(value) and value > 0):
        raise PmppError(
            f"{name}: cpu_multiplier must be a finite number greater than zero, not {value:g}",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    return float(value)


def _num_workers(name: str, value: object) -> int | None:
    if value is None:
        return None
    assert isinstance(value, int)
    if value < 1:
        raise PmppError(
            f"{name}: num_workers must be greater than zero, not {value}",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    return value


def _result_format(name: str, value: object) -> str | None:
    if value is None:
        return None
    assert isinstance(value, str)
    if value not in RESULT_FORMATS:
        raise PmppError(
            f'{name}: unknown result_format "{value}"',
            sqlstate=errors.INVALID_PARAMETER_VALUE,
            hint="The result formats are text and binary.",
        )
    return value
