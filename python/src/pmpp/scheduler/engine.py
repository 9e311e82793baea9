"""Runs a manifest: opens connections, hands them queries, and hands over the results.

Each connection is worked by a generator, `Engine._work`, and driven by the loop. It gets its next
query before the results of the last one are converted, so that remotes do not wait for us, and
between two batches of rows the consumer lets the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from psycopg.pq import ExecStatus

from .. import errors
from ..core.files import UNCOUNTED, Files
from ..core.interrupts import Interrupts
from ..core.limits import MORE_FILES, Limits, Places
from ..core.manifest import Item
from ..core.progress import Progress
from ..core.queue import Task, WorkQueue, may_write
from ..core.settings import Settings
from ..core.waiting import Steps
from ..errors import ConnectError, PmppError, lines
from ..remote import diagnostics
from ..remote.cancel import cancel_all
from ..remote.connection import ANYTHING, Session, Wanted
from ..remote.conninfo import Target
from ..remote.diagnostics import Notice
from ..remote.link import ChunkRows
from ..remote.num_cpus import ask_cpus
from ..remote.results import Part
from .crew import Crew
from .deadlock import Deadlocks, Worker
from .event_loop import HIGH_WATER, Loop

# libpq does not tell the SQLSTATE of a server that has refused a connection.
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


class Engine:
    """Runs all queries of a manifest.

    Args:
        items: the manifest.
        targets: where the connections of each item lead, in the same order.
        settings: those of the call.
        limits: those of the servers and hosts.
        check_interrupts: called every 50 ms; what it raises ends the run.
        on_notice: called with each notice of a remote, and with those of pmpp itself.
        check: called with what was held back until its query was done, if the call is to
            continue; a query that it raises a PmppError for has failed.
        wanted: which results are of use.
        deadlocks: finds workers that wait for the caller, if it has a server process.
        files: counts the connections of all calls of the process.

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
        files: Files = UNCOUNTED,
    ) -> None:
        interrupts = Interrupts(check_interrupts)
        pairs = zip(items, targets, strict=True)
        by_item = {item.number: target for item, target in interrupts.over(pairs)}
        labels = {number: target.label for number, target in by_item.items()}
        self.queue = WorkQueue(items, labels, interrupts)
        self._settings = settings
        self._continues = settings.on_error == "continue"
        self._places = Places(limits, settings.max_workers, by_item, interrupts, files)
        self._crews = [Crew(item, by_item[item.number]) for item in interrupts.over(items)]
        self._check_interrupts = check_interrupts
        self._on_notice = on_notice
        self._check = check
        self._wanted = wanted
        self._deadlocks = deadlocks
        self._chunk_rows = ChunkRows()
        self._progress = Progress(self.queue, settings.progress)
        self._notices: deque[Notice] = deque()
        self._delivered: deque[Delivery] = deque()
        self._lacked_files = False
        self._closing = 0  # connections whose last query is done
        self._undelivered = 0  # bytes of what has been received and not been taken

    def run(self) -> Generator[Delivery]:
        """Run the queries and yield their results as they come.

        When it ends, however it ends, nothing runs any more and every connection is closed.

        Raises:
            PmppError: when a connection or a query fails; all others are cancelled. If the call
                is to continue, when all queries have failed.
        """
        self._loop = Loop(self._tick)
        try:
            for crew in self._crews:
                crew.wanted = 1 if crew.item.asks_cpus else crew.item.worker_count(cpus=1)
            self._open_wanted()
            while self.queue.unfinished or self._closing:
                self._turn()
                while self._delivered:
                    self._undelivered -= self._delivered[0].part.size
                    yield self._delivered.popleft()
            if error := self.queue.failure_of_all():
                raise error
        except BaseException:
            self.queue.abandon()
            sessions = self._loop.sessions()
            for session in sessions:
                self._roll_back([task for task in session.uncommitted if may_write(task.tag)])
            cancel_all([s.pgconn for s in sessions if s.pgconn is not None and s.is_running])
            raise
        finally:
            self._loop.close()
            self._places.close()

    def go_on(self) -> None:
        """Take a turn without waiting, if little is undelivered.

        The consumer of `run` is to call this now and then while it is busy with a result. With
        4 workers a million narrow rows take 5 to 10 % less time.

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
            self._forward_notices()  # which may tell why
            raise
        self._forward_notices()

    def _end_deadlocks(self) -> None:
        """Have the queries fail that wait for the session that waits for them."""
        if self._deadlocks is None or not self._deadlocks.is_due():
            return
        workers = {
            session: Worker(session.pid, session.name, session.pgconn.socket)
            for session in self._loop.sessions()
            if session.pgconn is not None and session.is_running
        }
        found = self._deadlocks.find(workers)
        # The worker may hold a lock on a catalog that we need next.
        cancel_all([session.pgconn for session in found if session.pgconn is not None])
        for session, sentence in found.items():
            self._loop.throw(session, _deadlock(session.statement, sentence))

    def _forward_notices(self) -> None:
        while self._notices:
            self._on_notice(self._notices.popleft())

    def _tick(self) -> None:
        """Look for interrupts, and report progress if it is time."""
        self._check_interrupts()
        if self._progress.is_due():
            connections = sum(session.pgconn is not None for session in self._loop.sessions())
            self._notices.append(self._progress.report(connections))

    def _open_wanted(self) -> None:
        """Start all connections that are wanted and have a place, one of each item in turn."""
        candidates = [crew for crew in self._crews if crew.wanted]
        while candidates:
            candidates = [crew for crew in candidates if self._open(crew) and crew.wanted]
        if self._places.lacks_files and not self._lacked_files:
            self._lacked_files = True
            message = f"the call goes on with {self._places.taken} connections"
            detail = "The server process can have no more open."
            hint = f"Set num_workers. {MORE_FILES}"
            self._notices.append(Notice("WARNING", message, detail, hint))

    def _open(self, crew: Crew) -> bool:
        """Start a connection of an item; return False if it has no use or no place for one."""
        if not self.queue.has_waiting(crew.item) or not self._places.take(crew.item.number):
            return False
        crew.wanted -= 1
        crew.connecting += 1
        where = f"item {crew.item.number}"
        session = Session(
            where, crew.target, self._settings, self._notices.append, self._chunk_rows
        )
        self._loop.start(session, self._work(crew, session))
        return True

    def _work(self, crew: Crew, session: Session) -> Steps[None]:
        """Work one connection, then let others have its place."""
        yield from self._connect_and_run(crew, session)
        self._closing += 1
        yield from self._roll_back_open_transaction(crew, session)
        self._closing -= 1
        session.close()
        self._places.give_back(crew.item.number)
        self._open_wanted()

    def _connect_and_run(self, crew: Crew, session: Session) -> Steps[None]:
        """Connect, and run queries until none of the item is left or the connection is spoilt."""
        try:
            yield from session.connect()
            if self.queue.has_waiting(crew.item):
                yield from self._set_up(crew, session)
            crew.connected += 1
        except PmppError as ex:
            labels = [other.label for other in self._loop.sessions()]
            if isinstance(ex, ConnectError) and labels.count(session.label) > 1:
                ex.hint = ex.hint or _FEWER_CONNECTIONS
            if not (self._continues or isinstance(ex, ConnectError)):
                self.queue.fail_waiting(crew.item, ex)
                raise
            crew.failures.append(ex)
            session.close()
        crew.connecting -= 1
        self._settle(crew)
        while session.pgconn is not None and (task := self.queue.take(crew.item)):
            if not (yield from self._run(task, session)):
                crew.connected -= 1
                crew.wanted += 1  # another in place of this one
                return

    def _set_up(self, crew: Crew, session: Session) -> Steps[None]:
        if crew.item.asks_cpus and not crew.has_asked:
            crew.has_asked = True
            crew.wanted += crew.item.worker_count((yield from ask_cpus(session))) - 1
            self._open_wanted()
        for number, command in enumerate(crew.item.setup_commands, 1):
            yield from session.setup(number, command)

    def _run(self, task: Task, session: Session) -> Steps[bool]:
        """Run a query; return False if the connection cannot be used for another one."""
        held: list[Delivery] = []  # back, while it is not known if the query fails
        take_in = held.append if self._continues else self._deliver
        tags: list[Delivery] = []  # of commands. They count if no other result has rows
        has_rows = False
        task.pid = session.pid

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
                take_in(Delivery(task, part, encoding))

        try:
            encoding = session.encoding()
            yield from session.query(task, deliver, self._wanted)
            for delivery in tags if not has_rows else []:
                take_in(delivery)
            if task.rows and session.encoding() != encoding:  # the remote tells only at the end
                raise _changed_encoding(task)
            for delivery in held:
                self._check(delivery)
        except PmppError as ex:
            self._roll_back(session.lost_with(task))
            self.queue.fail(task, ex)
            if not self._continues:
                raise
            self._notices.append(diagnostics.warning(ex.shortened()))
            return session.is_idle
        self.queue.finish(task)
        session.count(task)
        for delivery in held:
            self._deliver(delivery)
        return True

    def _roll_back_open_transaction(self, crew: Crew, session: Session) -> Steps[None]:
        """Warn if the remote server will roll back what the connection has written."""
        if session.pgconn is None:
            return
        lost = yield from session.written()
        if lost is None:
            return
        self._roll_back(lost)
        number = crew.item.number
        queries = ", ".join(str(task.number) for task in lost)
        message = f"item {number}: a connection was closed in a transaction that has written"
        detail = f"{session.label} has rolled back " + (
            f"{'queries' if len(lost) > 1 else 'query'} {queries} of item {number}."
            if lost
            else f"the setup commands of item {number}."
        )
        hint = "Without BEGIN in the setup commands, each query is committed by itself."
        self._notices.append(Notice("WARNING", message, detail, hint))

    def _roll_back(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.queue.roll_back(task)

    def _deliver(self, delivery: Delivery) -> None:
        self._delivered.append(delivery)
        self._undelivered += delivery.part.size

    def _settle(self, crew: Crew) -> None:
        """See if there are connections enough to go on, when the last of an item is decided."""
        if crew.connecting or not crew.failures:
            return
        first = crew.failures[0]
        if crew.connected:
            wanted = crew.connected + len(crew.failures)
            message = (
                f"item {crew.item.number}: going on with {crew.connected} of {wanted} connections"
            )
            detail = lines(first.message, first.full_detail)
            notice = diagnostics.warning(first)._replace(message=message, detail=detail)
            self._notices.append(notice)
        else:
            self.queue.fail_waiting(crew.item, first)
            if not self._continues:
                raise first
            self._notices.append(diagnostics.warning(first))
        crew.failures = []


def _deadlock(statement: object, sentence: str) -> PmppError:
    return PmppError(
        "deadlock detected: a query waits for the session that made the call",
        sqlstate=errors.DEADLOCK_DETECTED,
        detail=f"{diagnostics.sentence(statement)}\n{sentence}",
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
