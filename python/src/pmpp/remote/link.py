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

from .. import errors
from ..core.waiting import EVENT_READ, EVENT_WRITE, NOTHING, Steps, Wait
from ..errors import PmppError
from . import diagnostics
from .encoding import client_encoding, codec
from .results import BATCH_BYTES, BATCH_ROWS, Part, rows_within

Deliver = Callable[[Part], None]

LIBPQ_BUFFER = 16384
# An enum is slow to look at, for each chunk.
TUPLES_CHUNK = int(ExecStatus.TUPLES_CHUNK)
# Rows in a chunk, if they are not large. With more of them a result arrives no faster.
CHUNK_ROWS = 32


class ChunkRows:
    """How many rows libpq is to put into a chunk, learnt from those that came before.

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


class Link:
    """A connection of libpq.

    Args:
        where: which item of the manifest it belongs to, for messages.
        label: how messages show the connection.
        max_result_size: the most bytes to receive for a query, or None.
        chunk_rows: shared by all connections of a call.

    Attributes:
        pgconn: None before it is connected and after `close`.
        received: the bytes received that have not been delivered, about.
        statement: what the remote server runs or has run last, for messages.
    """

    def __init__(
        self, where: str, label: str, max_result_size: int | None, chunk_rows: ChunkRows
    ) -> None:
        self.where = where
        self.label = label
        self.pgconn: abc.PGconn | None = None
        self.received = 0
        self.statement: object = f"{where} on {label}"  # it connects
        self._max_result_size = max_result_size
        self._chunk_rows = chunk_rows
        self._delivered = 0  # bytes of the results of the query that runs
        self._loss: str | None = None  # why the connection was lost

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
    def name(self) -> str:
        """The application_name, as far as the remote server reports it."""
        return (self._conn.parameter_status(b"application_name") or b"").decode(errors="replace")

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

    def _send_query(self, where: object, method: str, *arguments: object) -> None:
        """Call one of libpq's functions that send a query, whose rows are to come in chunks."""
        self._send(where, method, *arguments)
        self._send(where, "set_chunked_rows_mode", self._chunk_rows.count)

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
        self.statement = where
        self._delivered = 0
        fd = self._socket(pgconn)
        while self._flush(pgconn):
            if (yield Wait(fd, EVENT_READ | EVENT_WRITE)) & EVENT_READ:
                self._receive(pgconn, where)
        readable = Wait(fd, EVENT_READ)
        is_busy, get_result = pgconn.is_busy, pgconn.get_result
        chunks: list[abc.PGresult] = []
        rows = 0
        while True:
            while is_busy():
                yield readable
                self._receive(pgconn, where)
            result = get_result()
            if result is None:
                break
            has_more = result.status == TUPLES_CHUNK
            if not (has_more or failure):
                failure = diagnostics.failure(pgconn, result, where, self.label, self._loss)
            if failure or not deliver:
                self.received = 0
                continue
            chunks.append(result)
            rows += result.ntuples
            # While this generator waits, it must not keep a chunk that has been delivered.
            del result
            if has_more and rows < BATCH_ROWS and self.received < BATCH_BYTES:
                continue
            deliver(self._part(chunks, rows, where))
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

    def _part(self, chunks: list[abc.PGresult], rows: int, where: object) -> Part:
        """Return what has been received as one part, and count its bytes."""
        size = self.received
        if size > rows * LIBPQ_BUFFER:
            # libpq reads long rows in one go, and more of them may have come meanwhile.
            values = (c.get_value(row, column) for c in chunks
                      for row in range(c.ntuples) for column in range(c.nfields))  # fmt: skip
            size = max(size, sum(len(value) for value in values if value))
        self._delivered += size
        self.received = 0
        self._check_size(where)
        if rows:
            self._chunk_rows.learn(rows, size)
        return Part(chunks, rows, size)

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
            # In the result, libpq adds that it has no socket, which is of no use.
            self._loss = self._loss or pgconn.get_error_message()
            return
        # Nobody reads notifications: libpq would keep them as long as the connection.
        while pgconn.notifies():
            pass
        self.received += available
        self._check_size(where)

    def _check_size(self, where: object) -> None:
        if self._max_result_size and self._delivered + self.received > self._max_result_size:
            raise PmppError(
                "the result is larger than pmpp.max_result_size",
                sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
                context=diagnostics.sentence(where),
                hint="Cut the query into smaller ones, or set pmpp.max_result_size.",
            )

    def _encode(self, text: str, where: object) -> bytes:
        try:
            return text.encode(self.encoding())
        except UnicodeEncodeError:
            raise PmppError(
                "the statement has characters that client_encoding of the connection lacks",
                sqlstate=errors.UNTRANSLATABLE_CHARACTER,
                context=diagnostics.sentence(where),
            ) from None


def _available(pgconn: abc.PGconn) -> int:
    """Return how many bytes the operating system holds for a connection."""
    answer = fcntl.ioctl(pgconn.socket, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)
