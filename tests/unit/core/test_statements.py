"""What pmpp reads from the text of a statement before it runs."""

from __future__ import annotations

import time

import pytest
from pmpp.core.statements import may_lack_rows


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", False),
        (" ( Select 1)", False),
        ("/* x */ -- y\n show all", False),
        ("with a as (select 1) select 1", False),
        ("with a as (delete from t) select 1", True),
        ("drop table t", True),
        ("drop table t ; ", True),
        ("drop table t; select 1", False),
        ('drop table "a;b"', True),
        ("do 'a; b'", True),
        ("do $x$a; $$b;$$ $x$", True),
        ("do $x$a; $x$; select 1", False),
        ("do $x$a; b", False),
        ("insert into t values (e'\\'; ')", False),
        ("copy t to stdout", False),
        ("copy t to '/tmp/x'", True),
        ("", False),
        (";", False),
        ("-- only\n", False),
    ],
)
def test_statements_that_may_lack_rows(sql: str, expected: bool) -> None:
    """Only single statements are known to return rows or not, before they run."""
    assert may_lack_rows(sql) == expected


@pytest.mark.parametrize(
    "unit", ["'", '"', "$", "$a", "$a$", "--", "/*", "(", ";", "e'\\'", "do ' ", "--\n", "/**/"]
)
def test_long_statements_take_no_time(unit: str) -> None:
    """pmpp reads a statement in linear time, whatever is in it."""
    started = time.process_time()
    for prefix in ("", "drop ", "with "):
        may_lack_rows(prefix + unit * 300_000)
        may_lack_rows(prefix + "".join(f"{unit}{n}" for n in range(100_000)))
    assert time.process_time() - started < 5
