"""Values in binary, as a remote server sends them."""

from __future__ import annotations

import pytest
from pmpp.remote.results import BINARY_TYPES


@pytest.mark.parametrize(
    ("oid", "data", "expected"),
    [
        (16, b"\x01", "t"),
        (16, b"\x00", "f"),
        (17, b"\x00\xff", "\\x00ff"),
        (20, b"\x80" + b"\x00" * 7, "-9223372036854775808"),
        (21, b"\xff\xff", "-1"),
        (23, b"\x7f\xff\xff\xff", "2147483647"),
        (26, b"\xff\xff\xff\xff", "4294967295"),
        (701, b"\x7f\xf0" + b"\x00" * 6, "Infinity"),
        (701, b"\x3f\xf0" + b"\x00" * 6, "1"),
        (701, b"\x80" + b"\x00" * 7, "-0"),
        (2950, bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (3802, b"\x01[1]", b"[1]"),
    ],
)
def test_binary_types(oid: int, data: bytes, expected: str | bytes) -> None:
    """A value in binary is written as the type's input function reads it."""
    assert BINARY_TYPES[oid](data) == expected
