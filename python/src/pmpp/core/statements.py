"""What can be known of a statement from its text or its command tag, without a server."""

from __future__ import annotations

import re

SHOWN_LENGTH = 200

_COMMENT = re.compile(r"\s*(--|/\*)", re.ASCII)
_FIRST_WORD = re.compile(r"[\s(]*([a-z]*)", re.ASCII | re.IGNORECASE)
_LEXEME = re.compile(r"""'[^']*'|"[^"]*"|\$\w*\$|--[^\n]*|/\*|;""", re.ASCII)
_WITH_ROWS = frozenset(["select", "values", "table", "show", "explain", "fetch"])
_WRITING_IN_WITH = re.compile(r"\b(?:insert|update|delete|merge)\b", re.ASCII | re.IGNORECASE)

# The first words of the tags of commands that write nothing, but for what functions do in them.
_READING = frozenset(
    [
        "BEGIN", "CLOSE", "COMMIT", "DEALLOCATE", "DECLARE", "DISCARD", "EXPLAIN", "FETCH",
        "LISTEN", "LOAD", "LOCK", "MOVE", "PREPARE", "RELEASE", "RESET", "ROLLBACK",
        "SAVEPOINT", "SELECT", "SET", "SHOW", "START", "UNLISTEN",
    ]
)  # fmt: skip


def shown(sql: str) -> str:
    """Return a statement as error messages show it: in one line, and shortened if it is long."""
    text = " ".join(sql.split())
    return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "..."


def may_write(tag: bytes | None) -> bool:
    """Return True if a command tag is that of a command that may write."""
    words = (tag or b"").decode(errors="replace").split()
    return bool(words) and words[0] not in _READING


def may_lack_rows(sql: str) -> bool:
    """Return True if a single statement may be one that returns no rows.

    False also for several statements, which cannot be described before they run.
    """
    start = 0
    # This does not look for a comment inside of a comment.
    while comment := _COMMENT.match(sql, start):
        end = "\n" if comment[1] == "--" else "*/"
        found = sql.find(end, comment.end())
        start = len(sql) if found < 0 else found + len(end)
    text = sql[start:]
    match = _FIRST_WORD.match(text)
    word = match[1].lower() if match else ""
    if word in _WITH_ROWS or not text.strip("; \t\r\n") or not _is_single(text):
        return False
    if word == "with":
        return bool(_WRITING_IN_WITH.search(text))
    if word == "copy":
        # COPY from and to the client is refused when it starts.
        return "stdin" not in text.lower() and "stdout" not in text.lower()
    return True


def _is_single(text: str) -> bool:
    """Return True if a text is one statement. Where that is not clear, return False.

    It looks at each character once: the text may be long.
    """
    if "\\" in text:
        # It may hide the end of a string.
        return ";" not in text.rstrip("; \t\n")
    position = 0
    while match := _LEXEME.search(text, position):
        lexeme, position = match[0], match.end()
        if lexeme == ";":
            return not text[position:].strip("; \t\r\n")
        if lexeme.startswith("$") or lexeme == "/*":
            end = "*/" if lexeme == "/*" else lexeme
            found = text.find(end, position)
            if found < 0:
                return False
            position = found + len(end)
    return True
