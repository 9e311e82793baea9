"""Writing rows as literals, which PostgreSQL converts to the types of the columns.

There are two ways to write a batch of rows. In both, PostgreSQL calls the input functions of the
columns' types.

`as_columns` writes an array literal for each column, such as {"1","2"}. A statement casts it to an
array of the column's type and unnests it, so that neither Python nor PL/Python does anything for
each row. A batch of a single row contains the values as they are: a value may be large, and each
copy of it takes memory.

`as_rows` writes a composite literal for each row, such as ("1","a b",). It takes twice as long, and
is for columns whose types are unknown or cannot be unnested. A tuple of strings would not do:
PL/Python turns a string into an array of its characters, and every string into true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import errors
from ..errors import PmppError

Values = Sequence[str | None]
Batch = list[str | None]
Write = Callable[[Sequence[Values]], list[Batch]]
ColumnCast = Callable[[Values], Values]

# PL/Python cannot return a value of 1 GB or more. This counts the characters of all columns.
MOST_CHARACTERS = 64 * 1024 * 1024

# Separators to join many values with before all of them are quoted at once: characters that hardly
# ever occur in a value.
NEXT_VALUE, NEXT_ROW, NULL = "\x1c", "\x1d", "\x1e"


def as_columns(rows: Sequence[Values], tag: Sequence[str] = ()) -> list[Batch]:
    """Write rows as one array literal for each column; in several batches if they are long.

    Args:
        rows: one or more.
        tag: elements to add to each batch.

    Returns:
        Batches with an element for each column, an element that is empty if the values of a single
        row are not in array literals, else None, and the tag.
    """
    if len(rows) == 1:
        for value in rows[0]:
            refuse_nul(value or "")
        return [[*rows[0], "", *tag]]
    batch: Batch = [array_literal(column) for column in zip(*rows, strict=True)]
    if sum(len(literal or "") for literal in batch) <= MOST_CHARACTERS:
        return [[*batch, None, *tag]]
    half = len(rows) // 2
    return as_columns(rows[:half], tag) + as_columns(rows[half:], tag)


def as_rows(rows: Sequence[Values]) -> list[Batch]:
    """Write rows as one composite literal each, in one batch.

    They are joined with separators, then escaped and quoted all at once, which takes a quarter of
    the time.
    """
    nulls = 0
    try:
        joined = [NEXT_VALUE.join(row) for row in rows]  # type: ignore[arg-type]
    except TypeError:  # None cannot be joined
        nulls = sum(row.count(None) for row in rows)
        joined = [NEXT_VALUE.join([NULL if v is None else v for v in row]) for row in rows]
    text = NEXT_ROW.join(joined)
    refuse_nul(text)
    marks = len(rows) * (len(rows[0]) - 1), len(rows) - 1, nulls
    if (text.count(NEXT_VALUE), text.count(NEXT_ROW), text.count(NULL)) != marks:
        return [[composite_literal(row) for row in rows]]
    text = _escape(text).replace(NEXT_VALUE, '","').replace(NEXT_ROW, f'"){NEXT_ROW}("')
    return [[*f'("{text}")'.replace(f'"{NULL}"', "").split(NEXT_ROW)]]


def array_literal(values: Values) -> str:
    """Return values as an array literal, None as NULL; with separators as in `as_rows`."""
    nulls = 0
    try:
        text = "".join(values)  # type: ignore[arg-type]
        marked: Sequence[str] = values  # type: ignore[assignment]
    except TypeError:  # None cannot be joined
        nulls = values.count(None)
        marked = [NULL if v is None else v for v in values]
        text = "".join(marked)
    refuse_nul(text)
    needs_escape = '"' in text or "\\" in text
    if (needs_escape and NEXT_VALUE in text) or (nulls and text.count(NULL) != nulls):
        return "{" + ",".join("NULL" if v is None else f'"{_escape(v)}"' for v in values) + "}"
    if needs_escape:
        literal = '{"' + _escape(NEXT_VALUE.join(marked)).replace(NEXT_VALUE, '","') + '"}'
    else:
        # Most columns need no escapes, and this takes a third of the time.
        joined = '","'.join(marked)
        # With + there would be two copies of a large text.
        literal = f'{{"{joined}"}}'
    return literal.replace(f'"{NULL}"', "NULL") if nulls else literal


def composite_literal(values: Values) -> str:
    """Return values as a composite literal, None as nothing."""
    return "(" + ",".join("" if v is None else f'"{_escape(v)}"' for v in values) + ")"


def refuse_nul(text: str) -> None:
    """Raise a PmppError for what no PostgreSQL sends, and PL/Python would cut off."""
    if "\0" in text:
        raise PmppError(
            "a value contains a NUL character",
            sqlstate=errors.CHARACTER_NOT_IN_REPERTOIRE,
            hint="PostgreSQL has no such text. Have the query return something else.",
        )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
