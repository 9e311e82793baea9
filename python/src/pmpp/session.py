"""One connection to a remote server, and what it can be asked to do.

The methods that talk to the remote are generators, see `waiting`.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import ConnectionInfo, NotSupportedError, OperationalError, capabilities, sql
from psycopg.pq import ExecStatus, Format, TransactionStatus, abc

from . import diagnostics, errors
from .connect import connect
from .conninfo import Target
from .diagnostics import Notice
from .errors import PmppError
from .manifest import Task
from .rows import BINARY_TYPES
from .waiting import EVENT_READ, EVENT_WRITE, Steps, Wait

Deliver = Callable[[abc.PGresult], None]

CHUNK_ROWS = 1000
HAS_CHUNKS = capabilities.has_stream_chunked()
MOST_CPUS = 65536  # a remote that claims more is not believed
MONEY = 790  # the oid of the type
LIBPQ_BUFFER = 16384


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the local server that sessions have to know.

    Attributes:
        lc_monetary: how amounts of money are written.
        max_result_size: the largest result to hold in memory, in bytes as they are received.
    """

    lc_monetary: str = "C"
    max_result_size: int = 1 << 30


class Session:
    """A connection.

    Args:
        where: which item of the manifest it belongs to, for messages.
        target: where to connect to.
        settings: those of the local server.
        on_notice: called with each notice or warning that the remote sends.

    Attributes:
        pgconn: the connection of libpq, None before `connect` and after `close`.
        received: the bytes received of a result that is not complete yet, about.
    """

    def __init__(
        self, where: str, target: Target, settings: Settings, on_notice: Callable[[Notice], None]
    ) -> None:
        self.where = where
        self.target = target
        self.pgconn: abc.PGconn | None = None
        self.received = 0
        self._settings = settings
        self._on_notice = on_notice
        self._reads_money = True

    def connect(self) -> Steps[None]:
        """Connect, and agree on how values are written; see `connect.connect`."""
        self.pgconn = yield from connect(self.where, self.target, self._on_notice)
        yield from self._configure()

    def ask_cpus(self) -> Steps[int]:
        """Return the number of CPUs of the remote machine, as pmpp says there.

        Raises:
            PmppError: if pmpp is not there, may not be used, or gives no sensible answer.
        """
        problem = f"{self.where}: could not ask {self.target.label} for its number of CPUs"
        hint = (
            "Set num_workers, or install pmpp in the remote database and grant its role pmpp "
            "to the user who connects."
        )
        answers: list[abc.PGresult] = []
        try:
            yield from self._run("select pmpp.num_cpus()", self.where, answers.append)
        except PmppError as ex:
            raise PmppError(f"{problem}: {ex.message}", sqlstate=ex.sqlstate, hint=hint) from None
        if [(answer.ntuples, answer.nfields) for answer in answers] == [(1, 1)]:
            value = answers[0].get_value(0, 0)
            if value and value.isdigit() and 1 <= int(value) <= MOST_CPUS:
                return int(value)
        raise PmppError(
            f"{problem}: no usable answer from pmpp.num_cpus()",
            sqlstate=errors.CONNECTION_FAILURE,
            hint=hint,
        )

    def setup(self, number: int, command: str) -> Steps[None]:
        """Run one of the user's setup commands and throw its rows away.

        Raises:
            PmppError: if it fails, with the remote's own fields.
        """
        where = f"setup command {number} of {self.where} on {self.target.label}: {command}"
        yield from self._run(command, where)

    def query(self, task: Task, deliver: Deliver) -> Steps[None]:
        """Run a query and hand over every result of it, in order.

        A result comes whole, or in chunks of CHUNK_ROWS rows if libpq can (17 and later).

        Raises:
            PmppError: if the query fails, with the remote's own fields.
        """
        statement = self._encode(task.sql, task)
        if task.item.result_format is None:
            self._send(task, "send_query", statement)
        elif task.item.result_format == "text":
            self._send(task, "send_query_params", statement, None)
        else:
            yield from self._send_binary(statement, task)
        if HAS_CHUNKS:
            self._send(task, "set_chunked_rows_mode", CHUNK_ROWS)
        yield from self._results(task, deliver)

    def encoding(self) -> str:
        """Return the Python codec of what the remote sends and reads.

        It is UTF-8, unless a setup command chose otherwise.

        Raises:
            PmppError: if Python has no such codec.
        """
        name = self._conn.parameter_status(b"client_encoding")
        if name in (b"UTF8", b"SQL_ASCII", None):
            return "utf-8"
        try:
            return ConnectionInfo(self._conn).encoding
        except NotSupportedError as ex:
            raise PmppError(
                f"{self.where}: client_encoding is not supported: {ex}",
                sqlstate=errors.FEATURE_NOT_SUPPORTED,
            ) from None

    @property
    def is_running(self) -> bool:
        """True if the remote is at work on something that can be cancelled."""
        pgconn = self.pgconn
        return pgconn is not None and pgconn.transaction_status == TransactionStatus.ACTIVE

    def close(self) -> None:
        """Close the connection, in whatever state it is."""
        if self.pgconn is not None:
            self.pgconn.finish()
            self.pgconn = None

    @property
    def _conn(self) -> abc.PGconn:
        assert self.pgconn is not None
        return self.pgconn

    def _configure(self) -> Steps[None]:
        """Have values written as we read them, and work ended when we are gone."""
        pgconn = self._conn
        commands = []
        if not (pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO"):
            commands.append("set datestyle to iso")
        if pgconn.parameter_status(b"IntervalStyle") not in (None, b"postgres"):
            commands.append("set intervalstyle to postgres")
        if commands:
            yield from self._run("; ".join(commands), self.where)
        # What follows is not to be had everywhere. Without the first, the remote notices
        # only when it next sends that nobody reads; without the last, money is refused.
        commands = []
        if pgconn.server_version >= 140000:
            commands.append("set client_connection_check_interval to '1s'")
        if pgconn.server_version >= 90000:
            commands.append("set extra_float_digits to 3")
            commands.append(f"set lc_monetary to {sql.quote(self._settings.lc_monetary)}")
        if commands and not (yield from self._try("; ".join(commands))):
            for command in commands:
                self._reads_money = yield from self._try(command)

    def _try(self, command: str) -> Steps[bool]:
        """Run a command and return True if it worked."""
        try:
            yield from self._run(command, self.where)
        except PmppError:
            return False
        return True

    def _run(self, command: str, where: object, deliver: Deliver | None = None) -> Steps[None]:
        self._send(where, "send_query", self._encode(command, where))
        yield from self._results(where, deliver)

    def _send_binary(self, statement: bytes, where: object) -> Steps[None]:
        """Prepare a query and run it in binary format.

        In text, if a column has a type that `rows` cannot read in binary.
        """
        self._send(where, "send_prepare", b"", statement)
        yield from self._results(where)
        described: list[abc.PGresult] = []
        self._send(where, "send_describe_prepared", b"")
        yield from self._results(where, described.append)
        types = [r.ftype(column) for r in described for column in range(r.nfields)]
        readable = all(oid in BINARY_TYPES for oid in types)
        result_format = Format.BINARY if readable else Format.TEXT
        self._send(where, "send_query_prepared", b"", None, None, result_format)

    def _send(self, where: object, method: str, *arguments: object) -> None:
        """Call one of libpq's functions that send."""
        try:
            getattr(self._conn, method)(*arguments)
        except OperationalError as ex:
            raise diagnostics.lost_connection(self.target.label, str(ex), where) from None

    def _results(self, where: object, deliver: Deliver | None = None) -> Steps[None]:
        """Send what is still to be sent, then receive until the remote is ready again."""
        pgconn = self._conn
        while self._flush(pgconn):
            if (yield Wait(pgconn.socket, EVENT_READ | EVENT_WRITE)) & EVENT_READ:
                self._receive(pgconn, where)
        readable = Wait(pgconn.socket, EVENT_READ)
        while True:
            while pgconn.is_busy():
                yield readable
                self._receive(pgconn, where)
            result = pgconn.get_result()
            self.received = 0
            if result is None:
                return
            diagnostics.check(result, where, self.target.label)
            if deliver:
                self._check_money(result, where)
                deliver(result)
            if result.status == ExecStatus.TUPLES_CHUNK:
                yield None

    # When sending or receiving fails, get_result() tells what the remote said before.

    @staticmethod
    def _flush(pgconn: abc.PGconn) -> int:
        try:
            return pgconn.flush()
        except OperationalError:
            return 0

    def _receive(self, pgconn: abc.PGconn, where: object) -> None:
        try:
            available = _available(pgconn)
            pgconn.consume_input()
            if available > LIBPQ_BUFFER:
                # libpq does not say how much of it it took: one buffer, or all if the row is
                # long. Meanwhile more may have come.
                available = max(available - _available(pgconn), LIBPQ_BUFFER)
        except OperationalError:
            return
        self.received += available
        if self.received > self._settings.max_result_size:
            raise PmppError(
                "the result is larger than pmpp.max_result_size",
                sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
                detail=diagnostics.sentence(where),
                hint="Cut the query into smaller ones, or set pmpp.max_result_size.",
            )

    def _check_money(self, result: abc.PGresult, where: object) -> None:
        if not self._reads_money and MONEY in map(result.ftype, range(result.nfields)):
            raise PmppError(
                f"{self.target.label} cannot write values of type money as they are read here",
                sqlstate=errors.FEATURE_NOT_SUPPORTED,
                detail=diagnostics.sentence(where),
                hint=f"It does not have the locale {self._settings.lc_monetary}, which is "
                "lc_monetary here. Have the query cast the column to numeric.",
            )

    def _encode(self, text: str, where: object) -> bytes:
        try:
            return text.encode(self.encoding())
        except UnicodeEncodeError:
            raise PmppError(
                "the statement has characters that client_encoding of the connection lacks",
                sqlstate=errors.UNTRANSLATABLE_CHARACTER,
                detail=diagnostics.sentence(where),
            ) from None


def _available(pgconn: abc.PGconn) -> int:
    """Return how many bytes the operating system holds for a connection."""
    answer = fcntl.ioctl(pgconn.socket, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)
