"""Results as batches of the columns that a call returns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from psycopg.pq import ExecStatus, abc

from .. import errors
from ..core.queue import Task
from ..errors import PmppError
from ..remote.connection import Wanted
from ..remote.results import Batch, ColumnCast, Reader, Write, unreadable
from ..scheduler.engine import Delivery
from .local_backend import Catalog

FIRST_OWN_OID = 10000  # of those that a server gives to types itself; those before are the same


class Columns:
    """The columns that a call returns, as far as they are known beforehand.

    The polymorphic forms tell their types. The forms that return records do not: there the
    first result says how many there are, and PostgreSQL compares it with the caller's list.

    Args:
        catalog: the local server.
        types: the oids of the types of the columns, or None.
        write: how to write the rows, see `rows`.
        is_tagged: True if three columns come first that say where a row is from: the number of
            the item, the connection, and the number of the query.
        only_tags: True if the call returns a command and a tag for each result, and no rows.
    """

    def __init__(
        self,
        catalog: Catalog,
        types: list[int] | None,
        write: Write,
        *,
        is_tagged: bool = False,
        only_tags: bool = False,
    ) -> None:
        self._only_tags = only_tags
        self._catalog = catalog
        self._types = types
        self._write = write
        self._is_tagged = is_tagged
        self._count = None if types is None else len(types)
        self._readers: dict[str, Reader] = {}
        self._assignment_cast = cache(catalog.assignment_cast)

    def wanted(self) -> Wanted:
        """Return which results the engine is to deliver."""
        if self._only_tags:
            return Wanted(only_tags=True)
        if self._types is None:
            return Wanted()
        only_rows = len(self._types) != 2 or not self._catalog.take_text(self._types)
        return Wanted(only_rows=only_rows, check=self._check_description)

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
            yield from self._writer(task)([(task.sql, tag)])
            return
        try:
            casts = self._casts(task, result)
            yield from self._reader(delivery.encoding).batches(part, self._writer(task), casts)
        except (PmppError, UnicodeDecodeError) as ex:
            raise unreadable(ex, task) from None

    def _reader(self, encoding: str) -> Reader:
        if encoding not in self._readers:
            self._readers[encoding] = Reader(encoding)
        return self._readers[encoding]

    def _writer(self, task: Task) -> Write:
        if not self._is_tagged:
            return self._write
        tag = (str(task.item.number), task.label, str(task.number))
        return lambda rows: self._write([(*tag, *row) for row in rows])

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
        if self._types is None:
            self._count = self._count or 2
            fits = self._count == 2
        else:
            fits = len(self._types) == 2 and self._catalog.take_text(self._types)
        if not fits:
            raise PmppError(
                "a statement without rows returns its command and its tag, "
                "for which the row type must have two columns of type text",
                sqlstate=errors.DATATYPE_MISMATCH,
                context=f"In {task}",
                hint="Use pmpp.meta, or the type pmpp.command_with_result.",
            )

    def _casts(self, task: Task, result: abc.PGresult) -> dict[int, ColumnCast]:
        """Return what resolves differences of types, for queries in binary format."""
        if self._types is None or task.item.result_format != "binary":
            return {}
        casts = {}
        for index, wanted in enumerate(self._types):
            came = result.ftype(index)
            # other oids stand for other types here, with casts that strangers may have written
            if (
                came < FIRST_OWN_OID
                and came != wanted
                and (cast := self._assignment_cast(came, wanted))
            ):
                casts[index] = cast
        return casts
