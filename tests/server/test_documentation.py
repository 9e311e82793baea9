"""The examples in the documentation print what the documentation says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from helpers import PG_CONFIG

TOP = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(TOP))
    for page in (TOP / "README.md", *TOP.glob("doc/*.md"))
    if "```sql\n" in page.read_text()
)
EXPORT = "/srv/export"  # in examples, for a directory that the server can write to
EXAMPLE = re.compile(r"^```sql\n(.*?)^```\n(?:\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shop() -> Iterator[Cluster]:
    """A server whose account has the name of the superuser, as elsewhere."""
    settings = {"max_prepared_transactions": "2"}
    with Cluster(PG_CONFIG, settings, environment={"PGUSER": "postgres"}) as cluster:
        psql(cluster, "postgres", "create database archive")
        yield cluster


def psql(cluster: Cluster, database: str, script: str) -> str:
    """Run a script in psql and return all that it prints."""
    done = subprocess.run(
        [cluster.bindir / "psql", "-Xq", "-h", cluster.host, "-p", str(cluster.port), "-U", "postgres", "-d", database],
        input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_examples(shop: Cluster, name: str) -> None:
    """Run all examples of a document in one session."""
    examples = EXAMPLE.findall((TOP / name).read_text())
    assert len(examples) >= 1
    psql(shop, "postgres", "create database shop")
    script = "set client_min_messages to warning;\n\\set SHOW_CONTEXT never\n"
    script += "\n".join(f"{statements}\n\\echo ==next==" for statements, _ in examples)
    printed = psql(shop, "shop", script.replace(EXPORT, str(shop.directory))).split("==next==\n")
    psql(shop, "postgres", "drop database shop with (force)")
    psql(shop, "postgres", "drop role if exists ann")  # a member of pmpp would give a warning
    assert len(printed) == len(examples) + 1  # with what comes after the last
    for (statements, expected), output in zip(examples, printed, strict=False):
        lines = [line.rstrip() for line in output.strip("\n").splitlines()]
        wanted = [line.rstrip() for line in expected.strip("\n").splitlines()]
        assert lines == wanted, statements
