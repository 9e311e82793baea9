"""One connection to a remote server, and what it can be asked to do.

The methods that talk to the remote are generators, see `waiting`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from psycopg import OperationalError, sql
from psycopg.pq import ConnStatus, Format, TransactionStatus, abc

from .. import errors
from ..core.queue import Task, may_lack_rows, may_write, shown
from ..core.settings import Settings
from ..core.waiting import Steps, pause
from ..errors import ConnectError, PmppError
from . import diagnostics
from .connect import connect
from .conninfo import Target
from .diagnostics import Notice
from .link import ChunkRows, Deliver, Link
from .results import BINARY_TYPES, Part

# The oids of types, the same on every server.
# money, and arrays of it
MONEY = frozenset([790, 791])
# date, timestamp, timestamp with time zone; their arrays; their ranges, and arrays of ranges; their
# multiranges, and arrays of multiranges
DATES = frozenset(
    [
        *(1082, 1114, 1184),
        *(1182, 1115, 1185),
        *(3912, 3908, 3910, 3913, 3909, 3911),
        *(4535, 4533, 4534, 6155, 6152, 6153),
    ]
)
_ISO_DATE = re.compile(rb"\d{4}-\d\d-\d\d", re.ASCII)
_DIGIT = re.compile(rb"\d", re.ASCII)
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to connect


class Wanted(NamedTuple):
    """Which results are of use to the caller.

    Attributes:
        only_tags: True if it wants the command tag of each result, and no rows.
        only_rows: True if it has no use for command tags.
        check: called with a query and the number of its columns, 0 if it returns no rows, if that
            is known before the query runs. The query fails if this raises a PmppError.
    """

    only_tags: bool = False
    only_rows: bool = False
    check: Callable[[Task, int], None] = lambda _task, _count: None


ANYTHING = Wanted()


class Session(Link):
    """A connection.

    Attributes:
        uncommitted: the queries that are done in a transaction that is still open.

    Args:
        where: which item of the manifest it belongs to, for messages.
        target: where to connect to.
        settings: those of the call.
        on_notice: called with each notice or warning that the remote sends.
        chunk_rows: shared by all connections of a call.
    """

    def __init__(
        self,
        where: str,
        target: Target,
        settings: Settings,
        on_notice: Callable[[Notice], None],
        chunk_rows: ChunkRows,
    ) -> None:
        super().__init__(where, target.label, settings.result_limit, chunk_rows)
        self._target = target
        self._settings = settings
        self._on_notice = on_notice
        self._reads_money = True
        self.uncommitted: list[Task] = []
        self._setup_has_written = False

    def connect(self) -> Steps[None]:
        """Connect, and agree on how values are written; see `connect.connect`.

        If the connection is refused or dropped, try again as often as the settings say.
        """
        seconds = FIRST_PAUSE
        for retries in range(self._settings.connect_retries, -1, -1):
            try:
                self.pgconn = yield from connect(self.where, self._target, self._notify)
                yield from self._apply_options()
                yield from self._configure()
                return
            except PmppError as ex:
                was_dropped = self.pgconn is not None and self.pgconn.status != ConnStatus.OK
                was_refused = isinstance(ex, ConnectError) and not ex.sent_password
                self.close()
                if not (retries and (was_dropped or was_refused)):
                    raise
            yield from pause(seconds)
            seconds = min(2 * seconds, LONGEST_PAUSE)

    def _notify(self, pgconn: abc.PGconn, result: abc.PGresult) -> None:
        where = diagnostics.sentence(self.statement)
        self._on_notice(diagnostics.notice(pgconn, result, where))

    def setup(self, number: int, command: str) -> Steps[None]:
        """Run one of the user's setup commands and throw its rows away.

        Raises:
            PmppError: if it fails, with the remote's own fields.
        """
        where = f"setup command {number} of {self.where} on {self.label}: {shown(command)}"
        tags: list[bytes | None] = []
        yield from self.run(command, where, lambda part: tags.append(part.tag))
        self._setup_has_written |= any(map(may_write, tags))
        self._setup_has_written &= not self.is_idle

    def run(self, command: str, where: object, deliver: Deliver | None = None) -> Steps[None]:
        """Run a command of ours.

        Args:
            command: its text.
            where: what messages call it.
            deliver: called with each result, if they are wanted.

        Raises:
            PmppError: if it fails, with the remote's own fields.
        """
        self._send_query(where, "send_query", self._encode(command, where))
        yield from self._results(where, deliver)

    def row(self, query: str) -> Steps[list[bytes | None] | None]:
        """Run a query of ours and return its row, or None if it has none or several.

        Raises:
            PmppError: if it fails, with the remote's own fields.
        """
        parts: list[Part] = []
        yield from self.run(query, self.where, parts.append)
        if [part.row_count for part in parts if part.row_count] != [1]:
            return None
        result = next(part for part in parts if part.row_count).result
        return [result.get_value(0, column) for column in range(result.nfields)]

    def count(self, task: Task) -> None:
        """Note that a query is done, in a transaction or not."""
        if self.is_idle or (task.tag or b"").startswith(b"COMMIT"):
            self.uncommitted.clear()
            self._setup_has_written = False
        if not self.is_idle:
            self.uncommitted.append(task)

    def lost_with(self, task: Task) -> list[Task]:
        """Return the queries that were rolled back because this one failed and ended a transaction.

        A COMMIT may fail. If the transaction is still open, `written` tells when it is closed.
        """
        if not self.is_idle:
            return []
        lost, self.uncommitted = self.uncommitted, []
        has_committed = (task.tag or b"").startswith(b"COMMIT")
        return [] if has_committed else [t for t in lost if may_write(t.tag)]

    def written(self) -> Steps[list[Task] | None]:
        """Return the queries whose work is lost when the connection is closed, None if none is.

        The list is empty if only setup commands have written.
        """
        has_written = yield from self._has_written()
        if has_written and not self._setup_has_written:
            return self.uncommitted
        written = [task for task in self.uncommitted if may_write(task.tag)]
        return written if has_written or (written and has_written is None) else None

    def query(self, task: Task, deliver: Deliver, wanted: Wanted = ANYTHING) -> Steps[None]:
        """Run a query and hand over every result of it, in order, in parts while it runs.

        Raises:
            PmppError: if the query fails, with the remote's own fields. If its result is of no
                use and that can be known, before the query runs.
        """
        statement = self._encode(task.sql, task)
        if wanted.only_rows and task.item.result_format != "binary" and may_lack_rows(task.sql):
            wanted.check(task, len((yield from self._describe(statement, task))))
        if task.item.result_format is None:
            self._send_query(task, "send_query", statement)
        elif task.item.result_format == "text":
            self._send_query(task, "send_query_params", statement, None)
        else:
            yield from self._send_binary(statement, task, wanted)
        if not self._reads_money:
            deliver = self._without_money(task, deliver)
        if self._writes_iso_dates():
            deliver = self._with_iso_dates(task, deliver)
        yield from self._results(task, deliver)

    def _apply_options(self) -> Steps[None]:
        """Set what the connection's `options` would have set, if that had to wait."""
        if self._target.settings:
            calls = (
                f"pg_catalog.set_config({sql.quote(name)}, {sql.quote(value)}, false)"
                for name, value in self._target.settings
            )
            yield from self.run(
                f"select {', '.join(calls)}", f"options of {self.where} on {self.label}"
            )

    def _configure(self) -> Steps[None]:
        """Have values written as we read them, and work ended when we are gone."""
        pgconn = self._conn
        if not self._writes_iso_dates():
            yield from self.run("set datestyle to iso", f"{self.where} on {self.label}")
        # Behind a pooler these settings stay in a session that others get next. So pmpp sets none
        # that is right already. Not every server has them. Without
        # client_connection_check_interval, an orphaned query runs until it next sends data.
        # Without lc_monetary, pmpp refuses money.
        commands = []
        self._reads_money = pgconn.server_version >= 90000
        if pgconn.server_version >= 140000:
            commands.append(_set_unless("client_connection_check_interval", "1s", "<>", "'0'"))
        if pgconn.server_version >= 120000:
            commands.append(_set_unless("extra_float_digits", "1", "=", "any ('{1,2,3}')"))
        elif pgconn.server_version >= 90000:
            commands.append(_set_unless("extra_float_digits", "3", "=", "'3'"))
        if pgconn.server_version >= 90000:
            # A pooler may report the DateStyle of another session than the one that it hands out.
            commands.append(_set_unless("datestyle", "ISO", "~", "'^ISO'"))
            wanted = self._settings.lc_monetary
            commands.append(_set_unless("lc_monetary", wanted, "=", sql.quote(wanted)))
        if commands and not (yield from self._try("; ".join(commands))):
            for command in commands:
                self._reads_money = yield from self._try(command)

    def _writes_iso_dates(self) -> bool:
        """Return True if the remote server says that its DateStyle is ISO, or does not say."""
        return (self._conn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")

    def _has_written(self) -> Steps[bool | None]:
        """Return True if a transaction is open and has written, None if that is not known."""
        pgconn = self._conn
        if pgconn.transaction_status == TransactionStatus.IDLE:
            return False
        if pgconn.transaction_status == TransactionStatus.INTRANS:
            with suppress(PmppError):
                answer = yield from self.row(
                    "select pg_catalog.txid_current_if_assigned() is not null"
                )
                return answer == [b"t"]
        return None

    def _try(self, command: str) -> Steps[bool]:
        """Run a command and return True if it worked."""
        try:
            yield from self.run(command, f"{self.where} on {self.label}")
        except PmppError:
            if self.is_running or self._conn.status != ConnStatus.OK:
                raise
            return False
        return True

    def _send_binary(self, statement: bytes, task: Task, wanted: Wanted) -> Steps[None]:
        """Send a query whose result is to be in binary format.

        In text, if a column has a type that `rows` cannot read in binary.
        """
        types = yield from self._describe(statement, task)
        wanted.check(task, len(types))
        readable = all(oid in BINARY_TYPES for oid in types)
        result_format = Format.BINARY if readable else Format.TEXT
        self._send_query(task, "send_query_params", statement, None, None, None, result_format)

    def _describe(self, statement: bytes, where: object) -> Steps[list[int]]:
        """Return the types of the columns of a query.

        What this takes is sent in one go, and the query itself does not depend on it: a pooler
        may have it run by another server, which has prepared something else.
        """
        failures: list[PmppError] = []
        described: list[Part] = []
        self._send(where, "enter_pipeline_mode")
        self._send(where, "send_prepare", b"", statement)
        self._send(where, "send_describe_prepared", b"")
        self._send(where, "pipeline_sync")
        for deliver in (None, described.append, None):
            try:
                yield from self._results(where, deliver)
            except PmppError as ex:
                failures.append(ex)
                if self._conn.status != ConnStatus.OK:
                    break
        if failures:
            with suppress(OperationalError):  # of a lost connection
                self._conn.exit_pipeline_mode()
            raise failures[0]
        self._send(where, "exit_pipeline_mode")
        return [part.result.ftype(n) for part in described for n in range(part.result.nfields)]

    def _without_money(self, task: Task, deliver: Deliver) -> Deliver:
        """Return a function that delivers results, but refuses those with amounts of money."""

        def checked(part: Part) -> None:
            if not MONEY.isdisjoint(map(part.result.ftype, range(part.result.nfields))):
                raise PmppError(
                    f"{self.label} cannot write values of type money as they are read here",
                    sqlstate=errors.FEATURE_NOT_SUPPORTED,
                    context=diagnostics.sentence(task),
                    hint=f"Its lc_monetary could not be set to {self._settings.lc_monetary}, which "
                    "it is here. Have the query cast the column to numeric.",
                )
            deliver(part)

        return checked

    def _with_iso_dates(self, task: Task, deliver: Deliver) -> Deliver:
        """Return a function that delivers results, but refuses dates that are not written as ISO.

        Behind a pooler another session may have run the query than the one that pmpp has set up.
        """

        def checked(part: Part) -> None:
            result = part.result
            for column in range(result.nfields):
                if result.ftype(column) in DATES and has_other_dates(result, column):
                    raise PmppError(
                        f"{self.label} writes dates in another DateStyle than ISO",
                        sqlstate=errors.FEATURE_NOT_SUPPORTED,
                        context=diagnostics.sentence(task),
                        hint="A pooler may have run the query in another session. Set datestyle "
                        "to iso for the role or the database.",
                    )
            deliver(part)

        return checked


def _set_unless(name: str, value: str, operator: str, operand: str) -> str:
    """Return a statement that sets a parameter unless its value is right already.

    Args:
        name, value: of the parameter.
        operator, operand: what a value that is right has to the right of it.
    """
    return (
        f"select pg_catalog.set_config('{name}', {sql.quote(value)}, false) where not "
        f"pg_catalog.current_setting('{name}') operator(pg_catalog.{operator}) {operand}"
    )


def has_other_dates(result: abc.PGresult, column: int) -> bool:
    """Return True if the first date in a column is not in ISO style. A session has one style."""
    values = (result.get_value(row, column) or b"" for row in range(result.ntuples))
    # Infinity, NULL and empty ranges have no digits; the bounds of an array end with "=".
    first = next((v for v in values if _DIGIT.search(v.rpartition(b"=")[2])), None)
    return first is not None and not _ISO_DATE.search(first)
