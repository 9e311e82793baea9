"""A connection of libpq: sending and receiving without blocking.

The methods that wait are generators, see `waiting`.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from collections.abc import Callable

from psycopg import OperationalError
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus, abc

from . import diagnostics, errors
from .encoding import client_encoding, codec
from .errors import PmppError
from .rows import BATCH_CHARACTERS, BATCH_ROWS, Part, Reader, Values
from .waiting import EVENT_READ, EVENT_WRITE, NOTHING, Steps, Wait

Deliver = Callable[[Part], None]

LIBPQ_BUFFER = 16384
SINGLE_TUPLE = ExecStatus.SINGLE_TUPLE  # members of enums are slow to find, for each row


class Link:
    """A connection of libpq.

    Args:
        where: which item of the manifest it belongs to, for messages.
        label: how messages show the connection.
        max_result_size: the largest result to hold in memory, in bytes as they are received.

    Attributes:
        pgconn: None before it is connected and after `close`.
        received: the bytes received of a result that is not complete yet, about.
    """

    def __init__(self, where: str, label: str, max_result_size: int) -> None:
        self.where = where
        self.label = label
        self.pgconn: abc.PGconn | None = None
        self.received = 0
        self._max_result_size = max_result_size

    def encoding(self) -> str:
        """Return the Python codec of what the remote sends and reads.

        It is UTF-8, unless a setup command chose otherwise.

        Raises:
            PmppError: if Python has no such codec.
        """
        found = codec(self._conn)
        if found is None:
            name = client_encoding(self._conn).decode(errors="replace")
            raise PmppError(
                f"{self.where}: client_encoding is not supported: {name}",
                sqlstate=errors.FEATURE_NOT_SUPPORTED,
                hint="Use UTF8, which is what connections have unless told otherwise.",
            )
        return found

    @property
    def is_running(self) -> bool:
        """True if the remote is at work on something that can be cancelled."""
        pgconn = self.pgconn
        return pgconn is not None and pgconn.transaction_status == TransactionStatus.ACTIVE

    @property
    def pid(self) -> int:
        """The process id of the remote."""
        return self._conn.backend_pid

    @property
    def is_idle(self) -> bool:
        """True if the remote can be given another query, outside of any transaction."""
        pgconn = self.pgconn
        return pgconn is not None and pgconn.transaction_status == TransactionStatus.IDLE

    def close(self) -> None:
        """Close the connection, in whatever state it is."""
        if self.pgconn is not None:
            self.pgconn.finish()
            self.pgconn = None
        self.received = 0

    @property
    def _conn(self) -> abc.PGconn:
        assert self.pgconn is not None
        return self.pgconn

    def _send(self, where: object, method: str, *arguments: object) -> None:
        """Call one of libpq's functions that send."""
        try:
            getattr(self._conn, method)(*arguments)
        except OperationalError as ex:
            raise diagnostics.lost_connection(self.label, str(ex), where) from None

    def _results(self, where: object, deliver: Deliver | None = None) -> Steps[None]:
        """Send what is still to be sent, then receive until the remote is ready again."""
        pgconn = self._conn
        failure: PmppError | None = None
        fd = self._socket(pgconn)
        while self._flush(pgconn):
            if (yield Wait(fd, EVENT_READ | EVENT_WRITE)) & EVENT_READ:
                self._receive(pgconn, where)
        readable = Wait(fd, EVENT_READ)
        while True:
            while pgconn.is_busy():
                yield readable
                self._receive(pgconn, where)
            result = pgconn.get_result()
            if deliver and result and result.status == SINGLE_TUPLE:
                result = yield from self._single_rows(result, readable, where, deliver)
            if result is None:
                break
            failure = failure or diagnostics.failure(pgconn, result, where, self.label)
            if deliver and not failure:
                deliver(Part(result))
            self.received = 0
            if result.status == ExecStatus.TUPLES_CHUNK:
                yield None
        if failure:
            raise failure

    def _single_rows(
        self, first: abc.PGresult, readable: Wait, where: object, deliver: Deliver
    ) -> Steps[abc.PGresult | None]:
        """Take in rows that come one by one, and return the result that comes behind them."""
        pgconn = self._conn
        is_busy, get_result = pgconn.is_busy, pgconn.get_result
        read_row = Reader(self.encoding()).row_reader(first, where)
        result: abc.PGresult | None = first
        rows: list[Values] = []
        while result is not None and result.status == SINGLE_TUPLE:
            rows.append(read_row(result))
            if len(rows) == BATCH_ROWS or self.received > BATCH_CHARACTERS:
                deliver(Part(first, rows))
                rows = []
                self.received = 0
                yield None
            while is_busy():
                yield readable
                self._receive(pgconn, where)
            result = get_result()
        if rows:
            deliver(Part(first, rows))
        return result

    # When sending or receiving fails, get_result() tells what the remote said before. Of a lost
    # connection libpq has no socket any more, and neither sends nor waits.

    @staticmethod
    def _socket(pgconn: abc.PGconn) -> int:
        try:
            return pgconn.socket
        except OperationalError:
            return NOTHING

    @staticmethod
    def _flush(pgconn: abc.PGconn) -> int:
        try:
            return pgconn.flush() if pgconn.status == ConnStatus.OK else 0
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
        if self.received > self._max_result_size:
            raise PmppError(
                "the result is larger than pmpp.max_result_size",
                sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
                detail=diagnostics.sentence(where),
                hint="Cut the query into smaller ones, or set pmpp.max_result_size.",
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
