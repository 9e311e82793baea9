"""The reference has every object of the extension as the server has it, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

TOP = Path(__file__).parents[2]
PAGES = sorted(TOP.glob("doc/*.md"))
REFERENCE = "\n".join(p.read_text() for p in PAGES if p.name != "parallel-connection.md")

# Where signatures stand: in blocks of no language, and in the first cell of tables.
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
