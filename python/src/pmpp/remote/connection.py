"""One connection to a remote server, and what it can be asked to do.

The methods that send or receive are generators, which yield what they wait for (`core.waiting`).
"""

from __future__ import annotations

import fcntl
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from psycopg import OperationalError, sql
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus, abc

from .. import errors
from ..core.notices import Notice
from ..core.queue import Task
from ..core.settings import Settings
from ..core.statements import may_lack_rows, may_write, shown
from ..core.target import Target
from ..core.waiting import EVENT_READ, EVENT_WRITE, NOTHING, Steps, Wait, pause
from ..errors import ConnectError, PmppError, as_context
from . import diagnostics, value_format
from .connect import connect
from .encoding import client_encoding, codec
from .results import BATCH_BYTES, BATCH_ROWS, BINARY_TYPES, Part, rows_within

Deliver = Callable[[Part], None]

LIBPQ_BUFFER = 16384
# An enum is slow to look at, for each chunk.
TUPLES_CHUNK = int(ExecStatus.TUPLES_CHUNK)
# Rows in a chunk, if they are not large. With more of them a result arrives no faster.
CHUNK_ROWS = 32
# Seconds between attempts to connect.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class ChunkRows:
    """How many rows libpq is to put into a chunk, learnt from the rows that came before.

    libpq keeps a chunk in memory until it is complete, and the number cannot be changed while a
    result arrives.

    Attributes:
        count: the number for the next query.
    """

    def __init__(self) -> None:
        self.count = CHUNK_ROWS

    def learn(self, rows: int, size: int) -> None:
        """Take into account that this many rows had this many bytes."""
        self.count = rows_within(BATCH_BYTES, rows, size, CHUNK_ROWS)


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


class Connection:
    """A connection to a remote server, made by `connect`.

    Args:
        item_name: the item of the manifest that it belongs to, for messages.
        target: where to connect to.
        settings: those of the call.
        on_notice: called with each notice or warning that the remote server sends.
        chunk_rows: shared by all connections of a call.

    Attributes:
        item_name: see above.
        display_name: how messages show the connection.
        pgconn: None before it is connected and after `close`.
        received: the bytes received that have not been delivered, about.
        running: what the remote server runs or has run last, for messages.
        uncommitted: the queries that are done in a transaction that is still open.
    """

    def __init__(
        self,
        item_name: str,
        target: Target,
        settings: Settings,
        on_notice: Callable[[Notice], None],
        chunk_rows: ChunkRows,
    ) -> None:
        self.item_name = item_name
        self.display_name = target.display_name
        self.pgconn: abc.PGconn | None = None
        self.received = 0
        self._own_work = f"{item_name} on {target.display_name}"
        self.running: object = self._own_work
        self.uncommitted: list[Task] = []
        self._setup_has_written = False
        self._target = target
        self._settings = settings
        self._on_notice = on_notice
        self._chunk_rows = chunk_rows
        self._max_result_size = settings.result_limit
        self._reads_money = True
        self._delivered = 0  # bytes of the results of the query that runs
        self._loss: str | None = None  # why the connection was lost

    # ---- Its state ----

    @property
    def _conn(self) -> abc.PGconn:
        assert self.pgconn is not None
        return self.pgconn

    @property
    def is_running(self) -> bool:
        """True if the remote server runs something that can be cancelled."""
        pgconn = self.pgconn
        return pgconn is not None and pgconn.transaction_status == TransactionStatus.ACTIVE

    @property
    def is_idle(self) -> bool:
        """True if the remote server can be given another query, outside of any transaction."""
        pgconn = self.pgconn
        return pgconn is not None and pgconn.transaction_status == TransactionStatus.IDLE

    @property
    def pid(self) -> int:
        """The process id of the remote server's process."""
        return self._conn.backend_pid

    @property
    def application_name(self) -> str:
        """The application_name, as far as the remote server reports it."""
        return (self._conn.parameter_status(b"application_name") or b"").decode(errors="replace")

    def encoding(self) -> str:
        """Return the Python codec of what the remote server sends and reads.

        It is UTF-8, unless a setup command chose otherwise.

        Raises:
            PmppError: if Python has no such codec.
        """
        found = codec(self._conn)
        if found is None:
            name = client_encoding(self._conn).decode(errors="replace")
            raise PmppError(
                f"{self.item_name}: client_encoding is not supported: {name}",
                sqlstate=errors.FEATURE_NOT_SUPPORTED,
                hint="Use UTF8, which is what connections have unless told otherwise.",
            )
        return found

    # ---- What it can be asked to do ----

    def connect(self) -> Steps[None]:
        """Connect, and make the settings that `value_format` wants.

        If the connection is refused or dropped, try again as often as the settings say.

        Raises:
            ConnectError, PmppError: see `connect.connect`.
        """
        seconds = FIRST_PAUSE
        for retries in range(self._settings.connect_retries, -1, -1):
            try:
                self.pgconn = yield from connect(self.item_name, self._target, self._notify)
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

    def close(self) -> None:
        """Close the connection, in whatever state it is."""
        if self.pgconn is not None:
            self.pgconn.finish()
            self.pgconn = None
        self.received = 0

    def setup(self, number: int, command: str) -> Steps[None]:
        """Run one of the user's setup commands and throw its rows away.

        Raises:
            PmppError: if it fails, with the remote server's own fields.
        """
        context = f"setup command {number} of {self._own_work}: {shown(command)}"
        tags: list[bytes | None] = []
        yield from self.run(command, context, lambda part: tags.append(part.tag))
        self._setup_has_written |= any(map(may_write, tags))
        self._setup_has_written &= not self.is_idle

    def query(self, task: Task, deliver: Deliver, wanted: Wanted = ANYTHING) -> Steps[None]:
        """Run a query and hand over every result of it, in order, in parts while it runs.

        Raises:
            PmppError: if the query fails, with the remote server's own fields. If its result is of
                no use and that can be known, before the query runs.
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
        reads_money, has_iso_dates = self._reads_money, value_format.has_iso_dates(self._conn)

        def checked(part: Part) -> None:
            try:
                if not reads_money:
                    value_format.refuse_money(part, self.display_name, self._settings.lc_monetary)
                if has_iso_dates:
                    value_format.refuse_other_dates(part, self.display_name)
            except PmppError as ex:
                ex.context = as_context(task)
                raise
            deliver(part)

        yield from self._results(task, checked)

    def run(self, command: str, context: object, deliver: Deliver | None = None) -> Steps[None]:
        """Run a command of pmpp's own.

        Args:
            command: its text.
            context: how messages name it.
            deliver: called with each result, if they are wanted.

        Raises:
            PmppError: if it fails, with the remote server's own fields.
        """
        self._send_query(context, "send_query", self._encode(command, context))
        yield from self._results(context, deliver)

    def row(self, query: str) -> Steps[list[bytes | None] | None]:
        """Run a query of pmpp's own and return its row, or None if it has none or several.

        Raises:
            PmppError: if it fails, with the remote server's own fields.
        """
        parts: list[Part] = []
        yield from self.run(query, self.item_name, parts.append)
        if [part.row_count for part in parts if part.row_count] != [1]:
            return None
        result = next(part for part in parts if part.row_count).result
        return [result.get_value(0, column) for column in range(result.nfields)]

    # ---- Transactions that the user's commands leave open ----

    def note_done(self, task: Task) -> None:
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

    # ---- Connecting ----

    def _notify(self, pgconn: abc.PGconn, result: abc.PGresult) -> None:
        self._on_notice(diagnostics.notice(pgconn, result, as_context(self.running)))

    def _apply_options(self) -> Steps[None]:
        """Set what the connection's `options` would have set, if that had to wait."""
        if self._target.settings:
            calls = (
                f"pg_catalog.set_config({sql.quote(name)}, {sql.quote(value)}, false)"
                for name, value in self._target.settings
            )
            yield from self.run(f"select {', '.join(calls)}", f"options of {self._own_work}")

    def _configure(self) -> Steps[None]:
        """Make the settings under which values can be read. Not every server has all of them."""
        pgconn = self._conn
        if not value_format.has_iso_dates(pgconn):
            yield from self.run("set datestyle to iso", self._own_work)
        commands = value_format.settings(pgconn.server_version, self._settings.lc_monetary)
        self._reads_money = bool(commands)
        if commands and not (yield from self._try("; ".join(commands))):
            # lc_monetary is the last one.
            for command in commands:
                self._reads_money = yield from self._try(command)

    def _try(self, command: str) -> Steps[bool]:
        """Run a command and return True if it worked."""
        try:
            yield from self.run(command, self._own_work)
        except PmppError:
            if self.is_running or self._conn.status != ConnStatus.OK:
                raise
            return False
        return True

    # ---- Sending ----

    def _encode(self, text: str, context: object) -> bytes:
        try:
            return text.encode(self.encoding())
        except UnicodeEncodeError:
            raise PmppError(
                "the statement has characters that client_encoding of the connection lacks",
                sqlstate=errors.UNTRANSLATABLE_CHARACTER,
                context=as_context(context),
            ) from None

    def _send_binary(self, statement: bytes, task: Task, wanted: Wanted) -> Steps[None]:
        """Send a query whose result is to be in binary format.

        In text, if a column has a type that `results` cannot read in binary.
        """
        types = yield from self._describe(statement, task)
        wanted.check(task, len(types))
        readable = all(oid in BINARY_TYPES for oid in types)
        result_format = Format.BINARY if readable else Format.TEXT
        self._send_query(task, "send_query_params", statement, None, None, None, result_format)

    def _describe(self, statement: bytes, context: object) -> Steps[list[int]]:
        """Return the types of the columns of a query.

        What this takes is sent in one go, and the query itself does not depend on it: a pooler
        may have it run by another server, which has prepared something else.
        """
        failures: list[PmppError] = []
        described: list[Part] = []
        self._send(context, "enter_pipeline_mode")
        self._send(context, "send_prepare", b"", statement)
        self._send(context, "send_describe_prepared", b"")
        self._send(context, "pipeline_sync")
        for deliver in (None, described.append, None):
            try:
                yield from self._results(context, deliver)
            except PmppError as ex:
                failures.append(ex)
                if self._conn.status != ConnStatus.OK:
                    break
        if failures:
            # The connection may have been lost.
            with suppress(OperationalError):
                self._conn.exit_pipeline_mode()
            raise failures[0]
        self._send(context, "exit_pipeline_mode")
        return [part.result.ftype(n) for part in described for n in range(part.result.nfields)]

    def _send_query(self, context: object, method: str, *arguments: object) -> None:
        """Call one of libpq's functions that send a query, whose rows are to come in chunks."""
        self._send(context, method, *arguments)
        self._send(context, "set_chunked_rows_mode", self._chunk_rows.count)

    def _send(self, context: object, method: str, *arguments: object) -> None:
        """Call one of libpq's functions that send."""
        try:
            getattr(self._conn, method)(*arguments)
        except OperationalError as ex:
            raise diagnostics.lost_connection(self.display_name, str(ex), context) from None

    # ---- Receiving ----

    def _results(self, context: object, deliver: Deliver | None = None) -> Steps[None]:
        """Send what is still to be sent, then receive until the remote server is ready again."""
        pgconn = self._conn
        failure: PmppError | None = None
        self.running = context
        self._delivered = 0
        fd = _socket(pgconn)
        while _flush(pgconn):
            if (yield Wait(fd, EVENT_READ | EVENT_WRITE)) & EVENT_READ:
                self._receive(pgconn)
        readable = Wait(fd, EVENT_READ)
        is_busy, get_result = pgconn.is_busy, pgconn.get_result
        chunks: list[abc.PGresult] = []
        rows = 0
        while True:
            while is_busy():
                yield readable
                self._receive(pgconn)
            result = get_result()
            if result is None:
                break
            has_more = result.status == TUPLES_CHUNK
            if not (has_more or failure):
                failure = diagnostics.failure(
                    pgconn, result, context, self.display_name, self._loss
                )
            if failure or not deliver:
                self.received = 0
                continue
            chunks.append(result)
            rows += result.ntuples
            # While this generator waits, it must not keep a chunk that has been delivered.
            del result
            if has_more and rows < BATCH_ROWS and self.received < BATCH_BYTES:
                continue
            deliver(self._part(chunks, rows))
            chunks, rows = [], 0
            if has_more:
                yield None
        if failure:
            try:
                raise failure
            finally:
                # Its traceback leads to this frame. Without a way back, no text of a megabyte waits
                # for the garbage collector.
                del failure

    def _part(self, chunks: list[abc.PGresult], rows: int) -> Part:
        """Return what has been received as one part, and count its bytes."""
        size = self.received
        if size > rows * LIBPQ_BUFFER:
            # libpq reads long rows in one go, and more of them may have come meanwhile.
            values = (c.get_value(row, column) for c in chunks
                      for row in range(c.ntuples) for column in range(c.nfields))  # fmt: skip
            size = max(size, sum(len(value) for value in values if value))
        self._delivered += size
        self.received = 0
        self._check_size()
        if rows:
            self._chunk_rows.learn(rows, size)
        return Part(chunks, rows, size)

    def _receive(self, pgconn: abc.PGconn) -> None:
        try:
            available = _available(pgconn)
            pgconn.consume_input()
            if available > LIBPQ_BUFFER:
                # libpq does not say how much of it it took: one buffer, or all if the row is
                # long. Meanwhile more may have come.
                available = max(available - _available(pgconn), LIBPQ_BUFFER)
        except OperationalError:
            # In the result, libpq adds that it has no socket, which is of no use.
            self._loss = self._loss or pgconn.get_error_message()
            return
        # libpq would keep notifications as long as the connection, and nobody reads them.
        while pgconn.notifies():
            pass
        self.received += available
        self._check_size()

    def _check_size(self) -> None:
        limit = self._max_result_size
        if limit and self._delivered + self.received > limit:
            raise PmppError(
                "the result is larger than pmpp.max_result_size",
                sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
                context=as_context(self.running),
                hint="Cut the query into smaller ones, or set pmpp.max_result_size.",
            )


# When sending or receiving fails, get_result() returns what the remote server said before. libpq
# has no socket any more for a connection that it has lost, and neither sends nor waits.


def _socket(pgconn: abc.PGconn) -> int:
    try:
        return pgconn.socket
    except OperationalError:
        return NOTHING


def _flush(pgconn: abc.PGconn) -> int:
    try:
        return pgconn.flush() if pgconn.status == ConnStatus.OK else 0
    except OperationalError:
        return 0


def _available(pgconn: abc.PGconn) -> int:
    """Return how many bytes the operating system holds for a connection."""
    answer = fcntl.ioctl(pgconn.socket, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)
