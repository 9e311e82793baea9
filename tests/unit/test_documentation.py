"""The documentation names settings, errors, pages and targets that exist, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import TOP
from pmpp import errors
from pmpp.core.settings import HINTS, Settings, parse
from psycopg import errors as conditions

PAGES = sorted(
    path
    for places in ("*.md", "doc/*.md", "python/*.md", "tests/*.md", ".github/**/*.md")
    for path in TOP.glob(places)
)
REFERENCE = "\n".join(path.read_text() for path in TOP.glob("doc/*.md"))
SCRIPT = "\n".join(path.read_text() for path in sorted(TOP.glob("sql/extension/*.sql")))
CODE = {path: path.read_text() for path in sorted(TOP.glob("python/src/pmpp/**/*.py"))}
MAKEFILES = (TOP / "Makefile").read_text() + (TOP / "tools/development.mk").read_text()
SOURCES = "\n".join([SCRIPT, *CODE.values(), MAKEFILES])

ELLIPSIS = "…"
LINK = re.compile(r"\[[^]]*\]\(([^)\s]*)\)")
# A table of messages and cures, by its head; the messages of a row are in its first cell.
MESSAGES = re.compile(
    r"^\| message \| what to do \|\n\| --- \| --- \|\n((?:\|.*\n)+)", re.MULTILINE
)
# Messages of PostgreSQL itself, which users of pmpp see.
FOREIGN = (
    "permission denied for schema pmpp",
    "permission denied for view pg_config",
    "error fetching next item from iterator",
    "malformed record literal",
    "invalid byte sequence for encoding …",
    'extension "pmpp" must be installed in schema "pg_catalog"',
    'schema "pmpp" already exists',
    'required extension "plpython3u" is not installed',
    "sorry, too many clients already",
    "remaining connection slots are reserved …",
    "function pmpp.distribute(…) is not unique",
    "cannot export a snapshot from a subtransaction",
    "invalid snapshot identifier",
    "snapshot … does not exist",
    "cannot execute … in a read-only transaction",
)


def test_settings() -> None:
    """Every setting is in the reference, with its default."""
    table = re.findall(r"^\| `pmpp\.(\w+)` \| (.*?) \|", REFERENCE, re.MULTILINE)
    defaults = {name: default.strip("`") for name, default in table}
    assert len(table) == len(defaults)
    assert defaults.keys() == HINTS.keys()
    values = {name: None if text == "no limit" else text for name, text in defaults.items()}
    assert parse(values, int, float) == Settings()


def test_sqlstates() -> None:
    """Every SQLSTATE that pmpp raises is in the reference, and no other."""
    used = {
        value for name, value in vars(errors).items() if name.isupper() and isinstance(value, str)
    }
    assert used
    table = (TOP / "doc/pmpp.md").read_text().partition("Errors of pmpp itself:")[2]
    documented = set(re.findall(r"`([0-9X][0-9A-Z]{4})`", table.partition("\n## ")[0]))
    used |= set(re.findall(r'sqlstate="(\w+)"', SCRIPT))
    for condition, _ in raised_in_sql():
        used.add(getattr(conditions, condition.title().replace("_", "")).sqlstate)
    assert documented == used


def test_messages_exist() -> None:
    """Every message that the documentation lists is in the sources."""
    messages = [message for page in PAGES for message in listed(page)]
    assert len(messages) > 30
    unknown = [
        m for m in messages if m not in FOREIGN and not all(part in SOURCES for part in parts(m))
    ]
    assert unknown == []


def test_messages_are_documented() -> None:
    """Every error that pmpp raises has a hint, or its message is listed with a cure."""
    documented = [message for page in PAGES for message in listed(page)]
    found = [message for source in CODE.values() for message in without_hint(ast.parse(source))]
    assert len(found) > 10
    in_sql = [
        re.sub(r"%\w", ELLIPSIS, message)
        for _, fields in raised_in_sql()
        if "hint =" not in fields
        for message in re.findall(r"message = (?:[\w.]*format\()?'(.*?)'[;,)\n]", fields)
    ]
    assert len(in_sql) > 10
    found += in_sql
    assert [
        m for m in found if not any(all(part in m for part in parts(d)) for d in documented)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links(page: Path) -> None:
    """Links between files lead to a file, and to a heading in it."""
    broken = []
    for link in LINK.findall(without_code(page.read_text())):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pages() -> None:
    """The README leads to every page."""
    listed_pages = set(re.findall(r"\((doc/[\w-]+\.md)\)", (TOP / "README.md").read_text()))
    assert listed_pages == {str(path.relative_to(TOP)) for path in TOP.glob("doc/*.md")}


def test_help() -> None:
    """make help has a line for every target that is not a file."""
    declared = {
        name
        for line in re.findall(r"^\.PHONY: (.*)$", MAKEFILES, re.MULTILINE)
        for name in line.split()
    }
    described = set(re.findall(r"^([a-z-]+):.* ## \S", MAKEFILES, re.MULTILINE))
    assert declared - described == set()
    assert len(described) > 15


def raised_in_sql() -> list[tuple[str, str]]:
    """Return the condition and the fields of each error that the SQL functions raise.

    `raise using` raises again what was caught. Warnings and debug messages are no errors.
    """
    found = re.findall(r"^\s*raise (\w+) using\s(.*?;)\n", SCRIPT, re.MULTILINE | re.DOTALL)
    assert len(found) == len(
        re.findall(r"^\s*raise\b(?! using | warning | debug )", SCRIPT, re.MULTILINE)
    )
    return found


def listed(page: Path) -> Iterator[str]:
    """Yield the messages that a page lists with their cures."""
    for table in MESSAGES.findall(page.read_text()):
        for row in table.splitlines():
            for message in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[1]):
                yield message.replace("\\|", "|")


def parts(message: str) -> list[str]:
    """Return what of a message is the same each time."""
    return [part for part in message.split(ELLIPSIS) if part]


def without_hint(tree: ast.AST) -> Iterator[str]:
    """Yield the messages of errors that are raised without a hint."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("PmppError", "ConnectError")
        ):
            message = node.args[0]
            if isinstance(message, ast.Constant):
                text = str(message.value)
            elif isinstance(message, ast.JoinedStr):
                text = "".join(
                    str(v.value) if isinstance(v, ast.Constant) else ELLIPSIS
                    for v in message.values
                )
            else:
                # The message is that of a remote server.
                continue
            if not any(keyword.arg == "hint" for keyword in node.keywords):
                yield text


def without_code(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as the usual forges make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
