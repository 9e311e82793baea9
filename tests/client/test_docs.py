"""The examples of doc/parallel-connection.md print what it says."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster import Cluster

DOCUMENT = Path(__file__).parents[2] / "doc/parallel-connection.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_examples(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run all examples, one after the other, in one module."""
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
        conn.execute("create database north")
        conn.execute("create database south")
    document = DOCUMENT.read_text()
    examples = EXAMPLE.findall(document)
    assert len(examples) == document.count("```python")
    module: dict[str, Any] = {}
    logger = logging.getLogger("pmpp")
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    try:
        for program, expected in examples:
            exec(compile(program, str(DOCUMENT), "exec"), module)
            assert capsys.readouterr().out == expected, program
    finally:
        logger.setLevel(logging.NOTSET)
