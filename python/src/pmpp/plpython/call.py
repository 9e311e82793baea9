"""One call: from its manifest to the last row, or to the error that ends it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

from ..core import manifest
from ..core.interrupts import Interrupts
from ..core.literals import Batch
from ..core.queue import Task, WorkQueue
from ..errors import NAMES, PmppError
from ..scheduler.engine import Delivery, Engine
from . import last_run
from .delivery import Columns, WriteFor
from .external_fds import open_files
from .foreign_servers import resolve
from .last_run import Owner
from .local_backend import LocalBackend, as_pmpp_error
from .local_sessions import deadlocks

# The settings under which PostgreSQL reads values. SQL wrapper functions have them in SET clauses.
READING = {"intervalstyle": "sql_standard", "array_nulls": "on"}

T = TypeVar("T")
Batches = Iterator[tuple[Task, Batch]]
Fields = dict[str, str | None]


class Call:
    """A call, and how it stands.

    Attributes:
        owner: who may see what the call leaves in the session; None before the call has begun.
        queue: the queries, once they are known.
        converting: the query whose rows PostgreSQL converts. If an error ends the call, it is from
            one of these rows.
        error: what ended the call, if pmpp raised it.
    """

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.queue: WorkQueue | None = None
        self.converting: Task | None = None
        self.error: PmppError | None = None

    def batches(
        self,
        plpy: Any,
        read_manifest: Callable[[], object],
        column_types: list[int] | None,
        write: WriteFor,
        *,
        only_tags: bool = False,
    ) -> Batches:
        """Run the queries, and yield batches of rows, each with its query.

        Args:
            plpy: the module that PL/Python provides.
            read_manifest: returns the value of a query_manifest[].
            column_types, write, only_tags: see `Columns`.

        Raises:
            plpy.Error: if the manifest or a connection is not valid, or a query fails.
        """
        try:
            backend = LocalBackend(plpy)
            self.owner = last_run.owner(backend)
            interrupts = Interrupts(backend.check_interrupts)
            items = manifest.parse(read_manifest(), interrupts)
            caller = backend.caller()
            columns = Columns(backend, column_types, write, only_tags=only_tags)
            engine = Engine(
                items,
                resolve(backend, caller, items, interrupts),
                backend.settings(),
                backend.limits(),
                backend.check_interrupts,
                backend.notify,
                columns.check if column_types is not None else lambda _: None,
                columns.wanted(),
                deadlocks(backend, caller),
                open_files(),
            )
            self.queue = engine.queue
            for delivery in engine.run():
                for number, batch in enumerate(self._read(columns, delivery)):
                    if number:
                        engine.go_on()
                    yield delivery.task, batch
                # Free the result before the next one is received.
                del delivery
        except Exception as ex:
            raise self.failed(plpy, ex) from None

    def _read(self, columns: Columns, delivery: Delivery) -> Iterator[Batch]:
        """Yield the rows of a result; if they cannot be read, its query has failed after all."""
        try:
            yield from columns.batches(delivery)
        except PmppError as ex:
            if self.queue:
                self.queue.fail(delivery.task, ex)
            raise

    def failed(self, plpy: Any, ex: Exception) -> Exception:
        """Note what ended the call, and return the exception to raise in PL/Python."""
        if isinstance(ex, plpy.Error):
            # It has been here before.
            return ex.with_traceback(None)  # type: ignore[no-any-return]
        self.error = fitted(plpy, ex)
        return as_plpy_error(plpy, self.error)

    def error_behind(self, caught: Mapping[str, str]) -> PmppError:
        """Return the error to report for one that PostgreSQL has raised.

        Args:
            caught: its fields, as in `fields`, "" for one without text.

        Returns:
            The error that ended the call, if pmpp raised it. If PostgreSQL refused a value, its
            error, with the query that gave the value as context.
        """
        if self.error is not None:
            return self.error
        error = caught_error(caught)
        # Resources, and an end from outside, have nothing to do with a value.
        is_about_a_value = error.sqlstate[:2] not in ("53", "57", "58")
        if self.queue and self.converting and is_about_a_value:
            error.context = f"In a row of {self.converting}"
            self.queue.fail(self.converting, error)
        return error

    def converted(self, batches: Batches) -> Iterator[Batch]:
        """Yield batches, and keep in mind the query of the one that PostgreSQL converts."""
        try:
            for self.converting, batch in batches:
                yield _moved(batch)
                self.converting = None
        finally:
            # PostgreSQL has refused a value, or dropped the rows for another reason.
            if self.queue and self.converting:
                self.queue.cancel(self.converting)


def _moved(batch: Batch) -> Batch:
    """Return the values of a batch in a list that no generator refers to.

    The generators that made the batch, and the one that yields it, refer to it until they go on.
    What they see must not keep large values in memory while PostgreSQL converts them.
    """
    moved = batch.copy()
    batch.clear()
    return moved


class Rows:
    """An iterator that PostgreSQL may drop while it runs, as it does when it terminates a session.

    It is no generator, because Python would complain in the server's log that it cannot close one.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def run_ahead(batches: Batches, limit: int) -> Batches:
    """Take batches until there are no more or their text exceeds the limit (bytes)."""
    ahead: deque[tuple[Task, Batch]] = deque()
    size = 0
    for task, batch in batches:
        ahead.append((task, batch))
        size += sum(len(value or "") for value in batch)
        if size > limit:
            break
    return chain(_drain(ahead), batches)


def _drain(queue: deque[T]) -> Iterator[T]:
    while queue:
        yield queue.popleft()


def read_as_written(plpy: Any, batches: Batches) -> Batches:
    """Yield batches; PostgreSQL converts them under the settings that fit every server.

    SQL wrapper functions have these settings in SET clauses. A PL/Python function with such clauses
    would make the settings for each row. If the call fails, PostgreSQL itself restores them.
    """
    backend = LocalBackend(plpy)
    before = {name: backend.set_config(name, value) for name, value in READING.items()}
    yield from batches
    for name, value in before.items():
        backend.set_config(name, value)


def show_detail(plpy: Any, batches: Batches) -> Batches:
    """Yield batches. If that fails, write the detail of the error into its message.

    PL/Python reports nothing but the message of an error that an iterator raises.
    """
    try:
        yield from batches
    except plpy.Error as ex:
        if ex.detail:
            ex.args = (f"{ex}\n{ex.detail}",)
        raise


def caught_error(caught: Mapping[str, str]) -> PmppError:
    """Return an error that an SQL wrapper function has caught."""
    return PmppError(
        caught["message"],
        sqlstate=caught["sqlstate"],
        detail=caught["detail"],
        hint=caught["hint"],
        names={name: caught[name] for name in NAMES},
    )


def fields(error: PmppError) -> Fields:
    """Return the fields of an error that PL/pgSQL can raise; None for one without text."""
    return {
        "sqlstate": error.sqlstate,
        "message": error.message,
        "detail": error.full_detail,
        "hint": error.hint,
        **{name: error.names.get(name) for name in NAMES},
    }


def fitted(plpy: Any, ex: Exception) -> PmppError:
    """Return an exception as an error whose texts the encoding of the database can have."""
    if isinstance(ex, PmppError):
        error = ex
    elif isinstance(ex, plpy.SPIError):
        error = as_pmpp_error(ex)
    else:
        # This is a defect of pmpp. It is reported in one line, without a traceback.
        error = PmppError(f"internal error: {type(ex).__name__}: {ex}")
    fit = LocalBackend(plpy).fit
    for field in ("message", "detail", "hint", "context"):
        if text := getattr(error, field):
            setattr(error, field, fit(text))
    error.names = {name: fit(text) for name, text in error.names.items()}
    return error


def as_plpy_error(plpy: Any, error: PmppError) -> Exception:
    """Return an exception for an error, so that PL/Python reports all its fields.

    PL/Python writes the name of the exception's class in front of the message: "pmpp: …".
    """
    exception: Exception = type("pmpp", (plpy.Error,), {"__module__": "__main__"})(error.message)
    for name, value in fields(error).items():
        setattr(exception, name, value)
    return exception
