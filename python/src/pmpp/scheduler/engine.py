"""The work of a call: connections are opened, run the queries, and hand back results.

As many connections are made as the manifest asks for and the limits permit, all at the same time.
Each runs the next query of its item before the rows of the one before are converted, so that remote
servers do not wait for the caller, and is closed when no query is left. If a connection or a query
fails, everything is cancelled, or the call continues, as the settings say.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from psycopg.pq import ExecStatus

from .. import errors
from ..core.interrupts import Interrupts
from ..core.limits import MORE_FILES, UNCOUNTED, Bound, Limiter, Limits, OpenFiles
from ..core.manifest import Item
from ..core.notices import Notice, Progress, warning
from ..core.queue import Task, WorkQueue
from ..core.settings import Settings
from ..core.statements import may_write
from ..core.target import Target
from ..core.waiting import Steps
from ..errors import ConnectError, PmppError, as_context, lines
from ..remote.cancel import cancel_all
from ..remote.connection import ANYTHING, ChunkRows, Connection, Wanted
from ..remote.num_cpus import ask_cpus
from ..remote.results import Part
from .deadlock import Deadlocks, Worker
from .event_loop import HIGH_WATER, Loop

# libpq does not have the SQLSTATE with which a server has refused a connection.
_FEWER_CONNECTIONS = (
    "If the remote server takes no more connections, set pmpp.max_workers to open fewer at a time, "
    "or pmpp.connect_retries to try again."
)


class Delivery(NamedTuple):
    """What a query gave: rows, or a command tag.

    Attributes:
        task: the query.
        part: a result of it, or a part of one.
        encoding: the Python codec of the text in the result.
    """

    task: Task
    part: Part
    encoding: str


class _ItemState:
    """How many connections of an item there are, and in what state.

    Attributes:
        item: the item.
        target: where they lead.
        wanted: how many are to be opened when the limits permit.
        connecting: how many are being made and set up.
        connected: how many were made and can run queries.
        failures: why others could not be made, as long as it is not known what follows from it.
        has_asked: True if one of them has asked, or is asking, the remote server for its CPUs.
    """

    def __init__(self, item: Item, target: Target) -> None:
        self.item = item
        self.target = target
        self.wanted = 1 if item.asks_cpus else item.worker_count(cpus=1)
        self.connecting = 0
        self.connected = 0
        self.failures: list[PmppError] = []
        self.has_asked = False


class Engine:
    """Runs all queries of a manifest.

    Args:
        items: the manifest.
        targets: where the connections of each item lead, in the same order.
        settings: those of the call.
        limits: those of the servers and hosts.
        check_interrupts: called every 50 ms; an exception that it raises ends the run.
        on_notice: called with each notice of a remote server, and with those of pmpp itself.
        check: called with each result that was held until its query was done, if the call is to
            continue after failures. A query for whose result it raises a PmppError has failed.
        wanted: which results are of use.
        deadlocks: finds workers that wait for the caller, if it has a server process.
        open_files: counts the connections of all calls of the process.

    Attributes:
        queue: the queries, and what became of them.
    """

    def __init__(
        self,
        items: Sequence[Item],
        targets: Sequence[Target],
        settings: Settings,
        limits: Limits,
        check_interrupts: Callable[[], None],
        on_notice: Callable[[Notice], None],
        check: Callable[[Delivery], None] = lambda _: None,
        wanted: Wanted = ANYTHING,
        deadlocks: Deadlocks | None = None,
        open_files: OpenFiles = UNCOUNTED,
    ) -> None:
        interrupts = Interrupts(check_interrupts)
        pairs = zip(items, targets, strict=True)
        by_item = {item.number: target for item, target in interrupts.over(pairs)}
        names = {number: target.display_name for number, target in by_item.items()}
        self.queue = WorkQueue(items, names, interrupts)
        self._settings = settings
        self._continues = settings.on_error == "continue"
        self._limiter = Limiter(limits, settings.max_workers, by_item, interrupts, open_files)
        # Items that want connections: those to look at next, and those that wait for a limit.
        self._wanting = deque(_ItemState(i, by_item[i.number]) for i in interrupts.over(items))
        self._blocked: defaultdict[Bound, deque[_ItemState]] = defaultdict(deque)
        self._check_interrupts = check_interrupts
        self._on_notice = on_notice
        self._check = check
        self._wanted = wanted
        self._deadlocks = deadlocks
        self._chunk_rows = ChunkRows()
        self._progress = Progress(self.queue, settings.progress)
        self._notices: deque[Notice] = deque()
        self._delivered: deque[Delivery] = deque()
        self._undelivered = 0  # bytes in _delivered
        self._lacked_files = False
        self._closing = 0  # connections whose last query is done

    def run(self) -> Generator[Delivery]:
        """Run the queries and yield their results as they come.

        When it ends, however it ends, nothing runs any more and every connection is closed.

        Raises:
            PmppError: when a connection or a query fails; all others are cancelled. If the call
                is to continue, when all queries have failed.
        """
        self._loop = Loop(self._tick)
        try:
            self._open_wanted()
            while self.queue.unfinished or self._closing:
                self._turn()
                while self._delivered:
                    self._undelivered -= self._delivered[0].part.size
                    yield self._delivered.popleft()
            if error := self.queue.failure_of_all():
                raise error
        except BaseException as ex:
            self.queue.abandon()
            connections = self._loop.connections()
            for connection in connections:
                self._roll_back([task for task in connection.uncommitted if may_write(task.tag)])
            running = [c.pgconn for c in connections if c.pgconn is not None and c.is_running]
            cancel_all(running)
            # When PostgreSQL drops this generator, it must not be called any more.
            if self._settings.debug and running and not isinstance(ex, GeneratorExit):
                self._debug("asked %s connections to cancel what they run", len(running))
                self._forward_notices()
            raise
        finally:
            self._loop.close()
            self._limiter.close()

    def go_on(self) -> None:
        """Take a turn without waiting, if little is undelivered.

        The consumer of `run` is to call this now and then while it is busy with a result. The
        benchmark's row for four workers shows what it saves.

        Raises:
            PmppError: as `run` does, which is to be closed then.
        """
        if self._undelivered < HIGH_WATER:
            self._turn(wait=False)

    def _turn(self, *, wait: bool = True) -> None:
        try:
            self._loop.turn(wait=wait)
            self._end_deadlocks()
        except PmppError:
            # A notice may say why.
            self._forward_notices()
            raise
        self._forward_notices()

    def _end_deadlocks(self) -> None:
        """Have the queries fail that wait for the session that waits for them."""
        if self._deadlocks is None or not self._deadlocks.is_due():
            return
        workers = {
            connection: Worker(
                connection.pid, connection.application_name, connection.pgconn.socket
            )
            for connection in self._loop.connections()
            if connection.pgconn is not None and connection.is_running
        }
        found = self._deadlocks.find(workers)
        # The worker may hold a lock on a catalog that pmpp needs next.
        cancel_all([connection.pgconn for connection in found if connection.pgconn is not None])
        for connection, sentence in found.items():
            self._loop.throw(connection, _deadlock(connection.running, sentence))

    def _forward_notices(self) -> None:
        while self._notices:
            self._on_notice(self._notices.popleft())

    def _debug(self, message: str, *arguments: object) -> None:
        """Report a step of the call, if the server or the client wants messages of level DEBUG1."""
        if self._settings.debug:
            self._notices.append(Notice("DEBUG1", message % arguments))

    def _tick(self) -> None:
        """Look for interrupts, and report progress if it is time."""
        self._check_interrupts()
        if self._progress.is_due():
            count = sum(c.pgconn is not None for c in self._loop.connections())
            self._notices.append(self._progress.report(count))

    def _open_wanted(self) -> None:
        """Start all connections that are wanted and permitted, one of each item in turn."""
        while self._wanting:
            self._open(self._wanting.popleft())
        if self._limiter.lacks_files and not self._lacked_files:
            self._lacked_files = True
            message = f"the call goes on with {self._limiter.count} connections"
            detail = "The server process can have no more open."
            hint = f"Set num_workers. {MORE_FILES}"
            self._notices.append(Notice("WARNING", message, detail, hint))

    def _want(self, state: _ItemState, count: int) -> None:
        """Have more connections of an item opened when the limits permit."""
        if count and not state.wanted:
            self._wanting.append(state)
        state.wanted += count

    def _open_after(self, state: _ItemState) -> None:
        """Start the connections that the end of a connection of an item permits.

        Each item waits for one limit that is reached, so that pmpp need not look at all of them.
        """
        for bound in self._limiter.release(state.item.number):
            blocked = self._blocked[bound]
            while blocked and self._open(blocked.popleft()) != bound:
                pass
        self._open_wanted()

    def _open(self, state: _ItemState) -> Bound | None:
        """Start a connection of an item, or return the limit that does not permit it."""
        if not self.queue.has_waiting(state.item):
            return None
        reached = self._limiter.acquire(state.item.number)
        if reached is not None:
            self._blocked[reached].append(state)
            return reached
        state.wanted -= 1
        state.connecting += 1
        connection = Connection(
            state.item.name, state.target, self._settings, self._notices.append, self._chunk_rows
        )
        self._debug("%s: connecting to %s", state.item.name, connection.display_name)
        self._loop.start(connection, self._drive(state, connection))
        if state.wanted:
            self._wanting.append(state)
        return None

    def _drive(self, state: _ItemState, connection: Connection) -> Steps[None]:
        """Use a connection until no query is left for it, then let another one be opened."""
        yield from self._connect_and_run(state, connection)
        self._closing += 1
        yield from self._roll_back_open_transaction(state, connection)
        self._closing -= 1
        if connection.pgconn is not None:
            self._debug("%s: closing the connection of process %s", state.item.name, connection.pid)
        connection.close()
        self._open_after(state)

    def _connect_and_run(self, state: _ItemState, connection: Connection) -> Steps[None]:
        """Connect, and run queries until the item has none left or the connection is unusable."""
        try:
            yield from connection.connect()
            self._debug(
                "%s: connected to %s, process %s",
                state.item.name, connection.display_name, connection.pid,
            )  # fmt: skip
            if self.queue.has_waiting(state.item):
                yield from self._set_up(state, connection)
            state.connected += 1
        except PmppError as ex:
            names = [other.display_name for other in self._loop.connections()]
            if isinstance(ex, ConnectError) and names.count(connection.display_name) > 1:
                ex.hint = ex.hint or _FEWER_CONNECTIONS
            if not (self._continues or isinstance(ex, ConnectError)):
                self.queue.fail_waiting(state.item, ex)
                raise
            state.failures.append(ex)
            connection.close()
        state.connecting -= 1
        self._decide(state)
        while connection.pgconn is not None and (task := self.queue.take(state.item)):
            if not (yield from self._run(task, connection)):
                state.connected -= 1
                # Another one takes its place.
                self._want(state, 1)
                return

    def _set_up(self, state: _ItemState, connection: Connection) -> Steps[None]:
        if state.item.asks_cpus and not state.has_asked:
            state.has_asked = True
            self._want(state, state.item.worker_count((yield from ask_cpus(connection))) - 1)
            self._open_wanted()
        for number, command in enumerate(state.item.setup_commands, 1):
            yield from connection.setup(number, command)

    def _run(self, task: Task, connection: Connection) -> Steps[bool]:
        """Run a query; return False if the connection cannot be used for another one."""
        # If the call is to continue, results are held until it is known that the query succeeds.
        held: list[Delivery] = []
        accept = held.append if self._continues else self._deliver
        # Tags of commands count if no other result has rows.
        tags: list[Delivery] = []
        has_rows = False
        task.pid = connection.pid
        self._debug("process %s runs %s", task.pid, task)

        def deliver(part: Part) -> None:
            nonlocal has_rows
            task.rows += part.row_count
            task.tag = part.tag or task.tag
            if self._wanted.only_tags:
                if part.tag:
                    tags.append(Delivery(task, part.without_rows(), encoding))
            elif part.result.status == ExecStatus.COMMAND_OK:
                tags.append(Delivery(task, part, encoding))
            else:
                has_rows = True
                accept(Delivery(task, part, encoding))

        try:
            encoding = connection.encoding()
            yield from connection.query(task, deliver, self._wanted)
            for delivery in tags if not has_rows else []:
                accept(delivery)
            # The remote server reports a new encoding only when the query is done.
            if task.rows and connection.encoding() != encoding:
                raise _changed_encoding(task)
            for delivery in held:
                self._check(delivery)
        except PmppError as ex:
            self._debug("process %s has failed to run %s", task.pid, task)
            self._roll_back(connection.lost_with(task))
            self.queue.fail(task, ex)
            if not self._continues:
                raise
            self._notices.append(warning(ex.shortened()))
            return connection.is_idle
        self._debug("process %s has run %s", task.pid, task)
        self.queue.finish(task)
        connection.note_done(task)
        for delivery in held:
            self._deliver(delivery)
        return True

    def _roll_back_open_transaction(self, state: _ItemState, connection: Connection) -> Steps[None]:
        """Warn if the remote server will roll back what the connection has written."""
        if connection.pgconn is None:
            return
        lost = yield from connection.written()
        if lost is None:
            return
        self._roll_back(lost)
        name = state.item.name
        queries = ", ".join(str(task.number) for task in lost)
        detail = f"{connection.display_name} has rolled back " + (
            f"{'queries' if len(lost) > 1 else 'query'} {queries} of {name}."
            if lost
            else f"the setup commands of {name}."
        )
        message = f"{name}: a connection was closed in a transaction that has written"
        hint = "Without BEGIN in the setup commands, each query is committed by itself."
        self._notices.append(Notice("WARNING", message, detail, hint))

    def _roll_back(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.queue.roll_back(task)

    def _deliver(self, delivery: Delivery) -> None:
        self._delivered.append(delivery)
        self._undelivered += delivery.part.size

    def _decide(self, state: _ItemState) -> None:
        """When no connection of an item is being made any more, see if there are enough."""
        if state.connecting or not state.failures:
            return
        first = state.failures[0]
        if state.connected:
            wanted = state.connected + len(state.failures)
            message = f"{state.item.name}: going on with {state.connected} of {wanted} connections"
            detail = lines(first.message, first.full_detail)
            self._notices.append(warning(first)._replace(message=message, detail=detail))
        else:
            self.queue.fail_waiting(state.item, first)
            if not self._continues:
                raise first
            self._notices.append(warning(first))
        state.failures = []


def _deadlock(running: object, sentence: str) -> PmppError:
    return PmppError(
        "deadlock detected: a query waits for the session that made the call",
        sqlstate=errors.DEADLOCK_DETECTED,
        detail=sentence,
        context=as_context(running),
        hint="Release the lock before the call, with COMMIT for example, or run the query without "
        "pmpp. A command with CONCURRENTLY, or for a whole database, may wait for the statement "
        "that makes the call: make it from another database.",
    )


def _changed_encoding(task: Task) -> PmppError:
    return PmppError(
        "the query has changed client_encoding, and its rows may have been misread",
        sqlstate=errors.FEATURE_NOT_SUPPORTED,
        context=f"In {task}",
        hint="Set client_encoding in setup_commands.",
    )
