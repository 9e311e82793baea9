"""Reading results: from what libpq has received to the text of values.

Each part of a result is read in batches of rows, which `core.literals` writes for PostgreSQL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from math import inf
from types import SimpleNamespace
from typing import Any, NamedTuple

from psycopg.adapt import AdaptersMap, Buffer, Loader, Transformer
from psycopg.pq import Format, PGconn, abc
from psycopg.types.string import TextLoader

from .. import errors
from ..core.literals import Batch, ColumnCast, Values, Write, refuse_nul
from ..errors import PmppError

# The most rows and bytes of a batch. Larger ones take longer: Python allocates more objects.
BATCH_ROWS = 300
BATCH_BYTES = 256 * 1024


class Part(NamedTuple):
    """A result of a query, or a part of it.

    Attributes:
        chunks: what came from libpq, one or more with the same columns.
        row_count: how many rows they have together.
        size: the bytes received of them, about.
    """

    chunks: Sequence[abc.PGresult]
    row_count: int
    size: int

    @property
    def result(self) -> abc.PGresult:
        """Its status and its columns."""
        return self.chunks[0]

    @property
    def tag(self) -> bytes | None:
        """The command tag. It comes with the last chunk that has rows, or with an empty one."""
        tags = [chunk.command_status for chunk in self.chunks[-2:]]
        return tags[-1] or tags[0] or None

    def without_rows(self) -> Part:
        """Return a part with the same tag, for those who do not want the rows."""
        return Part(self.chunks[-2:], 0, 0)


def rows_within(bound: int, rows: int, size: int, most: int) -> int:
    """Return how many rows such as those that came are not larger than a bound.

    Args:
        bound: in bytes.
        rows, size: how many rows came, and their bytes.
        most: the result is at most this, and at least 1.
    """
    return max(1, min(most, bound * rows // max(size, 1)))


class Reader:
    """Reads results of one encoding, one after the other.

    Args:
        encoding: the Python codec of the text in the results.
    """

    def __init__(self, encoding: str) -> None:
        self._transformer = Transformer(_context(encoding))

    def batches(
        self, part: Part, write: Write, casts: Mapping[int, ColumnCast] | None = None
    ) -> Iterator[Batch]:
        """Yield rows, a batch at a time.

        Args:
            part: rows, in text or in binary format. Its chunks are empty afterwards.
            write: how to write the rows: `as_rows`, `as_columns`, or what leads to one of them.
            casts: for some columns, by their index from 0, what converts a batch of their values.

        Raises:
            UnicodeDecodeError: if the result has bytes that are not of the encoding.
            PmppError: if a value in binary is not what its type looks like, or a column is neither
                in text nor in binary.
        """
        _check_formats(part.result)
        for rows in self._loaded(part):
            batches = write(_cast(rows, casts) if casts else rows)
            # Values may be large, and PostgreSQL needs memory to convert them.
            rows.clear()
            yield from batches

    def _loaded(self, part: Part) -> Iterator[list[Values]]:
        """Yield the values of BATCH_ROWS rows at a time, of fewer if they are large."""
        set_pgresult, load_rows = self._transformer.set_pgresult, self._transformer.load_rows
        most = rows_within(BATCH_BYTES, part.row_count, part.size, BATCH_ROWS)
        rows: list[Values] = []
        for number, chunk in enumerate(part.chunks):
            set_pgresult(chunk, set_loaders=number == 0)
            count = chunk.ntuples
            for start in range(0, count, most):
                rows += load_rows(start, min(start + most, count), tuple)
                if start + most >= count:
                    chunk.clear()
                if len(rows) >= most:
                    yield rows
                    rows = []
        # The transformer must not keep the chunk while the next one is received.
        set_pgresult(None)
        if rows:
            yield rows


class _Context:
    """What psycopg's loaders look at.

    With a connection that reports no encoding, the loader of text decodes UTF-8. Without a
    connection, it would look up the codec by its name for every value.
    """

    def __init__(self, adapters: AdaptersMap) -> None:
        self.adapters = adapters
        self.connection: Any = SimpleNamespace(pgconn=PGconn.connect_start(b"never connected"))


def unreadable(ex: PmppError | UnicodeDecodeError, context: object) -> PmppError:
    """Return the error for a row with a value that could not be read.

    Args:
        ex: why.
        context: the query that the row is from, for messages.
    """
    if isinstance(ex, UnicodeDecodeError):
        ex = PmppError(
            f"a value is not valid in the client_encoding of the connection ({ex.encoding})",
            sqlstate=errors.CHARACTER_NOT_IN_REPERTOIRE,
            hint="Set client_encoding to the encoding of the remote data in setup_commands.",
        )
    ex.context = ex.context or f"In a row of {context}"
    return ex


def _check_formats(result: abc.PGresult) -> None:
    formats = {result.fformat(column) for column in range(result.nfields)}
    if unknown := formats - {Format.TEXT, Format.BINARY}:
        raise PmppError(
            f"a column came in format {min(unknown)}, where 0 stands for text and 1 for binary",
            sqlstate=errors.PROTOCOL_VIOLATION,
            hint="The remote server, or a pooler before it, violates PostgreSQL's protocol.",
        )


def _cast(rows: Sequence[Values], casts: Mapping[int, ColumnCast]) -> Sequence[Values]:
    columns: list[Values] = list(zip(*rows, strict=True))
    for index, cast in casts.items():
        refuse_nul("".join(filter(None, columns[index])))
        columns[index] = cast(columns[index])
    return list(zip(*columns, strict=True))


def _float8(data: bytes) -> str:
    """Write a number as PostgreSQL does, since its column may be one of text."""
    (value,) = struct.unpack("!d", data)
    if value != value:
        return "NaN"
    if abs(value) == inf:
        return "Infinity" if value > 0 else "-Infinity"
    if 1e15 <= abs(value) < 1e16:
        # Python writes these numbers without an exponent.
        return f"{Decimal(repr(value)).normalize():e}"
    return repr(value).removesuffix(".0")


def _uuid(data: bytes) -> str:
    digits = data.hex()
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def _integer(layout: str) -> Callable[[bytes], str]:
    unpack = struct.Struct(layout).unpack
    return lambda data: str(unpack(data)[0])


def _text(data: bytes) -> bytes:
    return data


# How to write a value that came in binary: as bytes of the connection's encoding, or as str. These
# types have the same oid on every server. Queries with other types are asked for text.
BINARY_TYPES: Mapping[int, Callable[[bytes], bytes | str]] = {
    16: lambda data: "ft"[data[0]],  # bool
    17: lambda data: "\\x" + data.hex(),  # bytea
    19: _text,  # name
    20: _integer("!q"),  # int8
    21: _integer("!h"),  # int2
    23: _integer("!i"),  # int4
    25: _text,  # text
    26: _integer("!I"),  # oid
    114: _text,  # json
    701: _float8,  # float8
    1042: _text,  # character
    1043: _text,  # character varying
    2950: _uuid,  # uuid
    3802: lambda data: data[1:],  # jsonb, after a byte for its version
}


@cache
def _context(encoding: str) -> _Context:
    """Return loaders that give str for every type, whatever psycopg has for it."""
    adapters = AdaptersMap()
    # A query may return values in binary although it was asked for text, from a binary cursor.
    adapters.register_loader(0, _binary_loader(_refuse, encoding))
    adapters.register_loader(0, TextLoader if encoding == "utf-8" else _text_loader(encoding))
    for oid, convert in BINARY_TYPES.items():
        adapters.register_loader(oid, _binary_loader(convert, encoding))
    return _Context(adapters)


def _refuse(_data: bytes) -> str:
    raise PmppError(
        "a value came in binary, and its type cannot be read so",
        sqlstate=errors.FEATURE_NOT_SUPPORTED,
        hint="Have the query cast the column to text.",
    )


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
