"""Results as batches of the columns that a call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

from psycopg.pq import ExecStatus, abc

from .. import errors
from ..core.literals import Batch, ColumnCast, Values, as_columns, as_rows
from ..core.queue import Task
from ..errors import PmppError
from ..remote.connection import Wanted
from ..remote.results import Reader, unreadable
from ..scheduler.engine import Delivery
from .local_backend import LocalBackend, as_pmpp_error

WriteFor = Callable[[Task, Sequence[Values]], list[Batch]]

# Servers give larger oids to types that are created in them. Smaller ones are the same everywhere.
FIRST_OWN_OID = 10000

_CATEGORIES = """
    select pg_catalog.bool_and(t.typcategory operator(pg_catalog.=) 'S') as all_strings
      from pg_catalog.pg_type t
     where t.oid operator(pg_catalog.=) any ($1)
"""

# The assignment cast from one type to another that does more than reading the text again.
_ASSIGNMENT_CAST = """
    with recursive target as (
        select t.oid, t.typtype, t.typbasetype
          from pg_catalog.pg_type t where t.oid operator(pg_catalog.=) $2
        union all
        select t.oid, t.typtype, t.typbasetype
          from target d join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) d.typbasetype
         where d.typtype operator(pg_catalog.=) 'd'
    )
    select pg_catalog.format_type(c.castsource, -1) as source,
           pg_catalog.format_type(c.casttarget, -1) as target
      from target t
      join pg_catalog.pg_cast c on c.casttarget operator(pg_catalog.=) t.oid
     where t.typtype operator(pg_catalog.<>) 'd'
       and c.castsource operator(pg_catalog.=) $1
       and c.castcontext operator(pg_catalog.=) any (array['a', 'i']::pg_catalog."char"[])
       and c.castmethod operator(pg_catalog.=) 'f'
"""


def write_rows(_task: Task, rows: Sequence[Values]) -> list[Batch]:
    """Write rows as composite literals."""
    return as_rows(rows)


def write_tagged_rows(task: Task, rows: Sequence[Values]) -> list[Batch]:
    """Write rows as composite literals, with the tag of the query in front of each."""
    tag = _tag(task)
    return as_rows([(*tag, *row) for row in rows])


def write_columns(task: Task, rows: Sequence[Values]) -> list[Batch]:
    """Write rows as array literals, with the tag of the query behind each batch."""
    return as_columns(rows, _tag(task))


def _tag(task: Task) -> tuple[str, str, str]:
    """Return the columns that say which query a row is from."""
    return str(task.item.number), task.display_name, str(task.number)


class Columns:
    """The columns that a call returns, as far as they are known beforehand.

    The SQL wrapper functions know their types. The forms that return records do not: there the
    first result decides how many there are, and PostgreSQL compares it with the caller's list.

    Args:
        backend: the server process.
        types: the oids of the types of the columns, or None.
        write: writes rows of a query, see `core.literals`.
        only_tags: True if the call returns a command and a tag for each result, and no rows.
    """

    def __init__(
        self,
        backend: LocalBackend,
        types: list[int] | None,
        write: WriteFor,
        *,
        only_tags: bool = False,
    ) -> None:
        self._only_tags = only_tags
        self._types = types
        self._write = write
        self._count = None if types is None else len(types)
        self._readers: dict[str, Reader] = {}
        self._accept_text = cache(partial(_accept_text, backend))
        self._assignment_cast = cache(partial(_assignment_cast, backend))

    def wanted(self) -> Wanted:
        """Return which results the engine is to deliver."""
        if self._only_tags:
            return Wanted(only_tags=True)
        if self._types is None:
            return Wanted()
        return Wanted(only_rows=not self._fits_command(), check=self._check_description)

    def check(self, delivery: Delivery) -> None:
        """Raise a PmppError if a result does not have these columns."""
        result = delivery.part.result
        if self._only_tags:
            return
        if result.status == ExecStatus.COMMAND_OK:
            self._check_command(delivery.task)
        else:
            self._check_count(delivery.task, result.nfields)

    def _check_description(self, task: Task, count: int) -> None:
        """Raise a PmppError if a query that has so many columns, or none, is of no use."""
        if count:
            self._check_count(task, count)
        else:
            self._check_command(task)

    def batches(self, delivery: Delivery) -> Iterator[Batch]:
        """Yield the rows of a result, or one row for the tag of a command.

        Raises:
            PmppError: if the result does not have these columns, or a value cannot be read.
        """
        self.check(delivery)
        task, part = delivery.task, delivery.part
        result = part.result
        if self._only_tags or result.status == ExecStatus.COMMAND_OK:
            tag = (part.tag or b"").decode(errors="replace")
            yield from self._write(task, [(task.sql, tag)])
            return
        try:
            casts = self._casts(task, result)
            write = partial(self._write, task)
            yield from self._reader(delivery.encoding).batches(part, write, casts)
        except (PmppError, UnicodeDecodeError) as ex:
            raise unreadable(ex, task) from None

    def _reader(self, encoding: str) -> Reader:
        if encoding not in self._readers:
            self._readers[encoding] = Reader(encoding)
        return self._readers[encoding]

    def _fits_command(self) -> bool:
        """Return True if a row can be a command and its tag."""
        if self._types is None:
            return self._count in (None, 2)
        return len(self._types) == 2 and self._accept_text(tuple(self._types))

    def _check_count(self, task: Task, came: int) -> None:
        if self._count is None and came > 0:
            self._count = came
        if came != self._count:
            raise PmppError(
                f"wrong number of columns: expected {self._count or 'some'}, got {came}",
                sqlstate=errors.DATATYPE_MISMATCH,
                context=f"In {task}",
            )

    def _check_command(self, task: Task) -> None:
        if not self._fits_command():
            raise PmppError(
                "a statement without rows returns its command and its tag, "
                "for which the row type must have two columns of type text",
                sqlstate=errors.DATATYPE_MISMATCH,
                context=f"In {task}",
                hint="Use pmpp.meta, or the type pmpp.command_with_result.",
            )
        self._count = 2

    def _casts(self, task: Task, result: abc.PGresult) -> dict[int, ColumnCast]:
        """Return what resolves differences of types, for queries in binary format."""
        if self._types is None or task.item.result_format != "binary":
            return {}
        casts = {}
        for index, wanted in enumerate(self._types):
            came = result.ftype(index)
            # Larger oids stand for other types here, with casts that strangers may have written.
            if (
                came < FIRST_OWN_OID
                and came != wanted
                and (cast := self._assignment_cast(came, wanted))
            ):
                casts[index] = cast
        return casts


def _accept_text(backend: LocalBackend, types: Sequence[int]) -> bool:
    """Return True if all these types are string types or domains over them."""
    (row,) = backend.select(_CATEGORIES, ("pg_catalog.oid[]", list(types)))
    return bool(row["all_strings"])


def _assignment_cast(backend: LocalBackend, source: int, target: int) -> ColumnCast | None:
    """Return what converts the text of values as an assignment would.

    None if the text can be read as it is, or if there is no such cast.
    """
    oids = ("pg_catalog.oid", source), ("pg_catalog.oid", target)
    for row in backend.select(_ASSIGNMENT_CAST, *oids):
        statement = (
            f"select v::{row['source']}::{row['target']}::pg_catalog.text as v "
            "from pg_catalog.unnest($1) v"
        )
        return partial(_run_cast, backend, statement)
    return None


def _run_cast(backend: LocalBackend, statement: str, values: Values) -> Values:
    try:
        rows: Any = backend.select(statement, ("pg_catalog.text[]", list(values)))
    except backend.SPIError as ex:
        raise as_pmpp_error(ex) from None
    return [row["v"] for row in rows]
