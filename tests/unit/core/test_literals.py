"""Rows as literals of composite values and of arrays."""

from __future__ import annotations

import pytest
from pmpp.core import literals
from pmpp.core.literals import Write, array_literal, as_columns, as_rows, composite_literal
from pmpp.errors import PmppError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1", "a"), '("1","a")'),
        ((None,), "()"),
        (("",), '("")'),
        ((None, "", None), '(,"",)'),
        (('say "hi"', "back\\slash", "a,b (c)\n"), '("say \\"hi\\"","back\\\\slash","a,b (c)\n")'),
    ],
)
def test_composite_literal(values: tuple[str | None, ...], expected: str) -> None:
    """NULL and the empty string differ, and what record_in would take for syntax is escaped."""
    assert composite_literal(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1",), '{"1"}'),
        (("1", None, ""), '{"1",NULL,""}'),
        (("NULL", "{a}"), '{"NULL","{a}"}'),
        (('say "hi"', "back\\slash"), '{"say \\"hi\\"","back\\\\slash"}'),
        (("\x1c", None), '{"\x1c",NULL}'),
        (("\x1e", '\x1c"'), '{"\x1e","\x1c\\""}'),
        (("\x1e", None), '{"\x1e",NULL}'),
    ],
)
def test_array_literal(values: tuple[str | None, ...], expected: str) -> None:
    """NULL, "NULL" and the empty string differ, whatever marks the values have in them."""
    assert array_literal(values) == expected


@pytest.mark.parametrize("write", [as_rows, as_columns])
def test_nul(write: Write) -> None:
    """pmpp refuses a NUL byte, where PL/Python would cut the value off."""
    with pytest.raises(PmppError, match="a value contains a NUL character"):
        write([("a", None), ("b\0c", "d")])


def test_nul_in_a_single_row() -> None:
    """pmpp refuses a NUL byte in a value that it delivers as it is."""
    with pytest.raises(PmppError, match="a value contains a NUL character"):
        as_columns([("b\0c",)])


@pytest.mark.parametrize("mark", ["\x1c", "\x1d", "\x1e", "x"])
def test_as_rows(mark: str) -> None:
    """A batch written as rows contains what each row contains alone."""
    values = [f'a{mark}"\\', "", None, mark, '","', "(,)"]
    some = [(a, b) for a in values for b in values]
    batches: list[list[tuple[str | None, ...]]] = [
        [*some],
        [("1", "2"), ("3", "4")],
        [(None, None)],
    ]
    for batch in batches:
        assert as_rows(batch) == [[composite_literal(row) for row in batch]]


def test_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """pmpp halves a batch that is too long until it is not."""
    some = [("1", "a"), ("2", None), ("3", "c" * 100)]
    assert as_columns(some) == [['{"1","2","3"}', '{"a",NULL,"' + "c" * 100 + '"}', None]]
    monkeypatch.setattr(literals, "MOST_CHARACTERS", 50)
    assert as_columns(some, ["tag"]) == [
        ["1", "a", "", "tag"],
        ["2", None, "", "tag"],
        ["3", "c" * 100, "", "tag"],
    ]
