"""One connection to a remote server, as generators that do no waiting of their own.

Each generator method yields what it waits for and is resumed when that has come:

- `(fd, events)`: it is sent those of the `selectors` events that have come on the descriptor;
- `None`: nothing; the others take their turn, and what was delivered is taken away.

While `Session.is_late` says that it has waited too long, `TimeoutError` is thrown into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE

from psycopg import ConnectionInfo, NotSupportedError, OperationalError, capabilities
from psycopg.conninfo import conninfo_attempts, make_conninfo
from psycopg.pq import ExecStatus, Format, PGconn, PollingStatus, TransactionStatus, abc

from . import diagnostics, errors
from .conninfo import Target
from .diagnostics import Notice
from .errors import PmppError
from .manifest import Task
from .rows import BINARY_TYPES

Wait = tuple[int, int] | None
Waiting = Generator[Wait, int, None]
Deliver = Callable[[abc.PGresult], None]

CHUNK_ROWS = 1000
MOST_CPUS = 65536  # a remote that claims more is not believed

_EVENTS = {PollingStatus.READING: EVENT_READ, PollingStatus.WRITING: EVENT_WRITE}


class Session:
    """A connection, and what it can be asked to do.

    Args:
        where: which item of the manifest it belongs to, for messages.
        target: where to connect to.
        on_notice: called with each notice or warning that the remote sends.
    """

    pgconn: abc.PGconn

    def __init__(self, where: str, target: Target, on_notice: Callable[[Notice], None]) -> None:
        self.where = where
        self.target = target
        self.is_connected = False
        self._deadline: float | None = None
        self._is_open = False
        self._on_notice = on_notice

    def connect(self) -> Waiting:
        """Connect, trying one address after the other, and agree on how values are written.

        Raises:
            PmppError: if no address answers within its connect_timeout, or if the remote
                did not ask for the password and had to.
        """
        failures = []
        try:
            attempts = conninfo_attempts(self.target.params)
        except OperationalError as ex:
            raise self._cannot_connect([str(ex)]) from None
        for params in attempts:
            try:
                yield from self._attempt(params)
                break
            except TimeoutError:
                host = params.get("hostaddr") or params.get("host")
                failures.append(f"{host} did not answer within {params['connect_timeout']} s")
            except OperationalError as ex:
                failures.append(str(ex))
            self.close()
        else:
            raise self._cannot_connect(failures)
        self._deadline = None
        self.is_connected = True
        self.pgconn.nonblocking = 1
        self._check_password()
        yield from self._configure()

    def ask_cpus(self) -> Generator[Wait, int, int]:
        """Return the number of CPUs of the remote machine, as pmpp says there.

        Raises:
            PmppError: if pmpp is not there, may not be used, or gives no sensible answer.
        """
        answers: list[abc.PGresult] = []
        problem = f"could not ask {self.target.label} for its number of CPUs"
        hint = (
            "Set num_workers, or install pmpp in the remote database and grant its role pmpp "
            "to the user who connects."
        )
        try:
            yield from self._run(
                "select pmpp.num_cpus()",
                f"connection of {self.where}",
                answers.append,
            )
        except PmppError as ex:
            raise PmppError(
                f"{self.where}: {problem}: {ex.message}", sqlstate=ex.sqlstate, hint=hint
            ) from None
        (answer,) = answers
        value = answer.get_value(0, 0) if answer.ntuples == 1 and answer.nfields == 1 else None
        if not (value and value.isdigit() and 1 <= int(value) <= MOST_CPUS):
            raise PmppError(
                f"{self.where}: {problem}: no usable answer from pmpp.num_cpus()",
                sqlstate=errors.CONNECTION_FAILURE,
                hint=hint,
            )
        return int(value)

    def setup(self, number: int, command: str) -> Waiting:
        """Run one of the user's setup commands and throw its rows away.

        Raises:
            PmppError: if it fails, with the remote's own fields.
        """
        where = f"setup command {number} of {self.where} on {self.target.label}: {command}"
        yield from self._run(command, where)

    def query(self, task: Task, deliver: Deliver) -> Waiting:
        """Run a query and hand over every result of it, in order.

        A result comes whole, or in chunks of CHUNK_ROWS rows if libpq can (17 and later).

        Raises:
            PmppError: if the query fails, with the remote's own fields.
        """
        where = str(task)
        sql = self._encode(task.sql, where)
        if task.item.result_format is None:
            self.pgconn.send_query(sql)
        elif task.item.result_format == "text":
            self.pgconn.send_query_params(sql, None)
        else:
            result_format = yield from self._prepare(sql, where)
            self.pgconn.send_query_prepared(b"", None, result_format=result_format)
        if capabilities.has_stream_chunked():
            self.pgconn.set_chunked_rows_mode(CHUNK_ROWS)
        yield from self._results(where, deliver)

    @property
    def encoding(self) -> str:
        """The Python codec of what the remote sends and reads.

        UTF-8, unless a setup command chose otherwise.
        """
        encoding = ConnectionInfo(self.pgconn).encoding
        return "utf-8" if encoding == "ascii" else encoding

    @property
    def is_running(self) -> bool:
        """True if the remote is at work on something that can be cancelled."""
        return self._is_open and self.pgconn.transaction_status == TransactionStatus.ACTIVE

    def is_late(self, now: float) -> bool:
        """Return True if the step under way should have ended by that time (`time.monotonic`)."""
        return self._deadline is not None and now > self._deadline

    def close(self) -> None:
        """Close the connection, in whatever state it is."""
        if self._is_open:
            self.pgconn.finish()
            self._is_open = False

    def _attempt(self, params: dict[str, str | int | None]) -> Waiting:
        """Connect to one address; raise OperationalError if that fails."""
        timeout = int(params["connect_timeout"] or 0)
        self._deadline = time.monotonic() + timeout if timeout > 0 else None
        self.pgconn = PGconn.connect_start(make_conninfo("", **params).encode())
        self._is_open = True
        self.pgconn.notice_handler = lambda result: self._on_notice(diagnostics.notice(result))
        while True:
            status = self.pgconn.connect_poll()
            if status == PollingStatus.OK:
                return
            if status == PollingStatus.FAILED:
                raise OperationalError(self.pgconn.get_error_message())
            yield self.pgconn.socket, _EVENTS[PollingStatus(status)]

    def _cannot_connect(self, failures: list[str]) -> PmppError:
        return PmppError(
            f"{self.where}: could not connect to {self.target.label}",
            sqlstate=errors.UNABLE_TO_CONNECT,
            detail="\n".join(failures),
        )

    def _check_password(self) -> None:
        if self.target.must_use_password and not self.pgconn.used_password:
            raise PmppError(
                f"{self.where}: {self.target.label} did not ask for the password",
                sqlstate=errors.PROHIBITED_STATEMENT,
                detail="Users who are not superusers may connect only where the remote server "
                "checks the password.",
                hint="Change the authentication method of the remote server.",
            )

    def _configure(self) -> Waiting:
        """Have values written as we read them, and work ended when we are gone."""
        commands = []
        datestyle = self.pgconn.parameter_status(b"DateStyle")
        if datestyle is not None and not datestyle.startswith(b"ISO"):
            commands.append("set datestyle to iso")
        if self.pgconn.parameter_status(b"IntervalStyle") not in (None, b"postgres"):
            commands.append("set intervalstyle to postgres")
        if 90000 <= self.pgconn.server_version < 120000:
            commands.append("set extra_float_digits to 3")
        if commands:
            yield from self._run("; ".join(commands), f"connection of {self.where}")
        if self.pgconn.server_version >= 140000:
            # Not every platform can. There the remote ends its work when it next sends a row.
            with suppress(PmppError):
                yield from self._run("set client_connection_check_interval to '1s'", "")

    def _prepare(self, sql: bytes, where: str) -> Generator[Wait, int, int]:
        """Prepare a query, and return the format to run it in.

        Binary, unless a column has a type that `rows` cannot read in binary.
        """
        self.pgconn.send_prepare(b"", sql)
        yield from self._results(where)
        described: list[abc.PGresult] = []
        self.pgconn.send_describe_prepared(b"")
        yield from self._results(where, described.append)
        columns = range(described[0].nfields)
        readable = all(described[0].ftype(column) in BINARY_TYPES for column in columns)
        return Format.BINARY if readable else Format.TEXT

    def _run(self, command: str, where: str, deliver: Deliver | None = None) -> Waiting:
        self.pgconn.send_query(self._encode(command, where))
        yield from self._results(where, deliver)

    def _results(self, where: str, deliver: Deliver | None = None) -> Waiting:
        """Send what is still to be sent, then receive until the remote is ready again."""
        pgconn = self.pgconn
        while pgconn.flush():
            if (yield pgconn.socket, EVENT_READ | EVENT_WRITE) & EVENT_READ:
                self._receive()
        while True:
            while pgconn.is_busy():
                yield pgconn.socket, EVENT_READ
                self._receive()
            result = pgconn.get_result()
            if result is None:
                return
            diagnostics.check(result, where, self.target.label)
            if deliver:
                deliver(result)
            if result.status == ExecStatus.TUPLES_CHUNK:
                yield None

    def _receive(self) -> None:
        # get_result() tells more of a failure: what the remote said before it hung up
        with suppress(OperationalError):
            self.pgconn.consume_input()

    def _encode(self, text: str, where: str) -> bytes:
        try:
            return text.encode(self.encoding)
        except (UnicodeEncodeError, NotSupportedError):
            raise PmppError(
                "the statement has characters that client_encoding of the connection lacks",
                sqlstate=errors.UNTRANSLATABLE_CHARACTER,
                detail=diagnostics.sentence(where),
            ) from None
