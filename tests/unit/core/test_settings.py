"""The settings of pmpp."""

from __future__ import annotations

import pytest
from pmpp.core.settings import HINTS, Settings, parse
from pmpp.errors import PmppError


def read(**values: str) -> Settings:
    return parse({**dict.fromkeys(HINTS), **values}, int, float)


def test_defaults() -> None:
    """A setting that is not set, or is empty after a reset, has its default."""
    assert read() == read(on_error="", progress="") == Settings()


def test_values() -> None:
    """The settings are parsed, words in upper or lower case."""
    assert read(
        on_error="Continue", max_workers="3", connect_retries="0", progress="2.5"
    ) == Settings(on_error="continue", max_workers=3, progress=2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_error", "maybe"),
        ("max_workers", "0"),
        ("max_workers", "many"),
        ("max_workers", "1_0"),
        ("connect_retries", "-1"),
        ("connect_retries", "2147483648"),
        ("max_result_size", "huge"),
        ("max_result_size", "1048575"),
        ("progress", "often"),
    ],
)
def test_invalid_values(name: str, value: str) -> None:
    """The error names the setting and its value, and says what to write."""
    with pytest.raises(PmppError, match=f"^invalid value for pmpp.{name}: {value}$") as raised:
        read(**{name: value})
    assert raised.value.sqlstate == "22023"
    assert raised.value.hint == HINTS[name]


def test_result_limit() -> None:
    """A streamed result has no limit by default, and a buffered result has one."""
    assert Settings().result_limit is None
    assert Settings(on_error="continue").result_limit == 1 << 30
    for on_error in ("stop", "continue"):
        assert Settings(on_error=on_error, max_result_size=1 << 31).result_limit == 1 << 31
