"""The documentation is true: its examples print what it says, and it describes every object."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG
from installation import TOP

PAGES = sorted([TOP / "README.md", *TOP.glob("doc/*.md")])
EXAMPLES = [str(page.relative_to(TOP)) for page in PAGES if "```sql\n" in page.read_text()]
# Examples name this directory where they need one that the server can write to.
EXPORT = "/srv/export"
EXAMPLE = re.compile(r"^```sql\n(.*?)^```\n(?:\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(server: Cluster, name: str) -> None:
    """Run all examples of a document in one session."""
    examples = EXAMPLE.findall((TOP / name).read_text())
    assert len(examples) >= 1
    psql(server, "postgres", "create database shop")
    script = "set client_min_messages to warning;\n\\set SHOW_CONTEXT never\n"
    script += "\n".join(f"{statements}\n\\echo ==next==" for statements, _ in examples)
    printed = psql(server, "shop", script.replace(EXPORT, str(server.directory))).split(
        "==next==\n"
    )
    psql(server, "postgres", "drop database shop with (force)")
    # CREATE EXTENSION would warn about a member of pmpp.
    psql(server, "postgres", "drop role if exists ann")
    # The last part is what psql prints after the last example.
    assert len(printed) == len(examples) + 1
    for (statements, expected), output in zip(examples, printed, strict=False):
        lines = [line.rstrip() for line in output.strip("\n").splitlines()]
        wanted = [line.rstrip() for line in expected.strip("\n").splitlines()]
        assert lines == wanted, statements


REFERENCE = "\n".join(
    page.read_text()
    for page in PAGES
    if page.parent.name == "doc" and page.name != "parallel-connection.md"
)

# Signatures stand in blocks of no language, and in the first cells of tables.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^\| (`(?:TYPE |[^|]* RETURNS )[^|]*) \|", re.MULTILINE)
# Arguments and columns, which may have parentheses in them.
LIST = r"\(((?:[^()]|\([^()]*\))*)\)"
FUNCTION = re.compile(
    rf"^`?([a-z_]+)\s*{LIST}(?:\s+RETURNS ((?:TABLE {LIST}|[A-Za-z_ ]+)(?:\[\])?))?", re.MULTILINE
)
RELATION = re.compile(rf"^`?(TABLE|VIEW|TYPE) ([a-z_]+) {LIST}", re.MULTILINE)

FUNCTIONS = """
    select proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
      from pg_proc p join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
     where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and proname not like '\\_%'
       and d.refobjid = (select oid from pg_extension where extname = 'pmpp')
"""
RELATIONS = """
    select case relkind when 'r' then 'TABLE' when 'v' then 'VIEW' else 'TYPE' end, relname,
           (select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
              from pg_attribute where attrelid = c.oid and attnum > 0)
      from pg_class c
     where relnamespace = 'pmpp'::regnamespace and relkind <> 'i' and relname not like '\\_%'
"""


def normal(text: str) -> str:
    """Return a list of arguments or columns as PostgreSQL writes it, without what is implied."""
    text = re.sub(r"\s+", " ", text).replace("pmpp.", "")
    text = re.sub(r"\bfloat\b", "double precision", text)
    text = re.sub(r"\btimestamptz\b", "timestamp with time zone", text)
    text = re.sub(r"::[a-z ]+(\[\])?", "", text)
    return text.replace("TABLE (", "TABLE(")


def documented(pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Return what a pattern finds in the places of signatures."""
    texts = [text for language, text in BLOCK.findall(REFERENCE) if not language]
    texts += [cell.replace("`, `", "\n") for cell in CELL.findall(REFERENCE)]
    return [match for text in texts for match in pattern.finditer(text)]


def test_functions(db: psycopg.Connection) -> None:
    """Every function is there with its arguments, defaults and result.

    Several that return the same stand above each other, and the last says what it is.
    """
    found = []
    result = ""
    for match in reversed(documented(FUNCTION)):
        result = (match[3] or result).strip()
        found.append((match[1], normal(match[2]), normal(result)))
    there = [tuple(map(normal, row)) for row in db.execute(FUNCTIONS).fetchall()]
    assert len(there) > 20
    assert sorted(found) == sorted(there)


def test_relations_and_types(db: psycopg.Connection) -> None:
    """Every table, view and type is there with its columns, but for internal ones."""
    found = [
        (match[1], match[2], re.sub(r" (PRIMARY KEY|NOT NULL)", "", normal(match[3])))
        for match in documented(RELATION)
    ]
    there = [tuple(map(normal, row)) for row in db.execute(RELATIONS).fetchall()]
    assert len(there) > 4
    assert sorted(found) == sorted(there)


def test_other_objects(db: psycopg.Connection) -> None:
    """The extension has objects of no kind that the reference would have to describe otherwise."""
    kinds = db.execute(
        "select distinct (pg_identify_object(classid, objid, 0)).type from pg_depend"
        " where refclassid = 'pg_extension'::regclass and deptype = 'e'"
        " and refobjid = (select oid from pg_extension where extname = 'pmpp')"
    ).fetchall()
    assert {kind for (kind,) in kinds} <= {
        "function", "table", "view", "composite type", "type", "schema", "cast",
    }  # fmt: skip
