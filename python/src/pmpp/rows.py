"""From results to rows: every row becomes the text of a composite value.

A row is handed to PL/Python as the literal that `record_in` reads, such as ("1","a b",). Then
PostgreSQL calls the input function of every column with its type modifier, for all types alike.
(A tuple of strings would not do: PL/Python takes a string for the elements of an array, for a
true boolean whatever it says, and for no bytea at all.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from psycopg.abc import Transformer as TransformerType
from psycopg.adapt import AdaptersMap, Buffer, Loader, Transformer
from psycopg.pq import Format, abc
from psycopg.types.string import TextLoader

from . import errors
from .errors import PmppError

Values = Sequence[str | None]
ColumnCast = Callable[[Values], Values]

BATCH_ROWS = 1000  # bigger batches are slower: more objects than the allocator likes
BATCH_CHARACTERS = 256 * 1024

# Marks for building a batch of literals: characters that hardly ever occur in a value.
NEXT_VALUE, NEXT_ROW, NULL = "\x1c", "\x1d", "\x1e"


class Reader:
    """Reads results of one encoding, one after the other.

    Args:
        encoding: the Python codec of the text in the results.
    """

    def __init__(self, encoding: str) -> None:
        self._transformer = Transformer(_adapters(encoding))

    def literals(
        self, result: abc.PGresult, casts: Mapping[int, ColumnCast] | None = None
    ) -> Iterator[list[str]]:
        """Yield the rows of a result as composite literals, a batch at a time.

        Args:
            result: a result that has rows, in text or in binary format.
            casts: for some columns, by their index from 0, what converts a batch of their values.

        Raises:
            UnicodeDecodeError: if the result has bytes that are not of the encoding.
            PmppError: if a value in binary is not what its type looks like.
        """
        transformer = self._transformer
        transformer.set_pgresult(result)
        start, step, count = 0, 16, result.ntuples
        while start < count:
            end = min(start + step, count)
            batch = None if casts else _batch(transformer, start, end, result.nfields)
            if batch is None:
                rows: Sequence[Values] = transformer.load_rows(start, end, tuple)
                batch = [literal(row) for row in _cast(rows, casts or {})]
            yield batch
            mean = sum(map(len, batch)) // len(batch) + 1
            start, step = end, max(1, min(BATCH_ROWS, BATCH_CHARACTERS // mean))
        transformer.set_pgresult(None)  # free the result before the next one is received


def literal(values: Values) -> str:
    """Return a row as a composite literal, None for NULL."""
    quoted = [
        "" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for value in values
    ]
    return f"({','.join(quoted)})"


def _batch(transformer: TransformerType, start: int, end: int, nfields: int) -> list[str] | None:
    """Return rows as literals, or None if a value has one of the characters used here as marks.

    A row is its values with marks between them, a batch its rows with marks between them; then
    a few replacements in the whole text escape and quote all values at once. It does what
    `literal` does for each row, in half the time.
    """
    try:
        rows: list[str] = transformer.load_rows(start, end, NEXT_VALUE.join)
        nulls = 0
    except TypeError:  # None cannot be joined
        values: Sequence[Values] = transformer.load_rows(start, end, tuple)
        rows = [NEXT_VALUE.join([NULL if v is None else v for v in row]) for row in values]
        nulls = sum(row.count(None) for row in values)
    text = NEXT_ROW.join(rows)
    marks = len(rows) * (nfields - 1), len(rows) - 1, nulls
    if (text.count(NEXT_VALUE), text.count(NEXT_ROW), text.count(NULL)) != marks:
        return None
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    text = text.replace(NEXT_VALUE, '","').replace(NEXT_ROW, f'"){NEXT_ROW}("')
    return f'("{text}")'.replace(f'"{NULL}"', "").split(NEXT_ROW)


def _cast(rows: Sequence[Values], casts: Mapping[int, ColumnCast]) -> Sequence[Values]:
    if not casts:
        return rows
    columns: list[Values] = list(zip(*rows, strict=True))
    for index, cast in casts.items():
        columns[index] = cast(columns[index])
    return list(zip(*columns, strict=True))


def _float8(data: bytes) -> str:
    (value,) = struct.unpack("!d", data)
    return repr(value).removesuffix(".0")


def _uuid(data: bytes) -> str:
    digits = data.hex()
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def _integer(data: bytes) -> str:
    return str(int.from_bytes(data, "big", signed=True))


def _text(data: bytes) -> bytes:
    return data


# How values that came in binary are written: either as bytes of the connection's encoding or
# as str. These types have the same oid on every server; all others are asked for in text.
BINARY_TYPES: Mapping[int, Callable[[bytes], bytes | str]] = {
    16: lambda data: "t" if data[0] else "f",  # bool
    17: lambda data: "\\x" + data.hex(),  # bytea
    19: _text,  # name
    20: _integer,  # int8
    21: _integer,  # int2
    23: _integer,  # int4
    25: _text,  # text
    26: lambda data: str(int.from_bytes(data, "big")),  # oid
    114: _text,  # json
    701: _float8,  # float8
    1042: _text,  # character
    1043: _text,  # character varying
    2950: _uuid,  # uuid
    3802: lambda data: data[1:],  # jsonb, behind the number of its version
}


@cache
def _adapters(encoding: str) -> AdaptersMap:
    """Return loaders that give str for every type, whatever psycopg has for it."""
    adapters = AdaptersMap()
    adapters.register_loader(0, TextLoader if encoding == "utf-8" else _text_loader(encoding))
    for oid, convert in BINARY_TYPES.items():
        adapters.register_loader(oid, _binary_loader(convert, encoding))
    return adapters


def _text_loader(encoding: str) -> type[Loader]:
    class EncodedLoader(Loader):
        def load(self, data: Buffer) -> str:
            return str(data, encoding)

    return EncodedLoader


def _binary_loader(convert: Callable[[bytes], bytes | str], encoding: str) -> type[Loader]:
    class BinaryLoader(Loader):
        format = Format.BINARY

        def load(self, data: Buffer) -> str:
            try:
                value = convert(bytes(data))
            except (IndexError, struct.error):
                raise PmppError(
                    "a value is not what its type looks like in binary",
                    sqlstate=errors.INVALID_BINARY_REPRESENTATION,
                ) from None
            return value if isinstance(value, str) else str(value, encoding)

    return BinaryLoader
