"""The entrances from SQL: what the PL/Python functions of the extension call.

State is kept for two purposes: a front in PL/pgSQL that caught an error asks `failure` what to
say, and `last_run` tells what became of the last call. It lives in the memory of the process,
which ordinary users cannot reach from SQL. It is for the role that made the call, until DISCARD
ALL, see `local_backend.Owner`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from .. import errors
from ..core import files, manifest
from ..core.interrupts import Interrupts
from ..core.queue import Task, WorkQueue
from ..errors import NAMES, PmppError
from ..remote.diagnostics import Notice
from ..remote.results import Batch, Write, as_columns, as_rows
from ..scheduler.engine import Delivery, Engine
from . import foreign_servers
from . import last_run as last_runs
from .delivery import Columns
from .local_backend import Catalog, Owner, local_error

# The settings under which PostgreSQL reads values, as in the SET clauses of the fronts.
READING = {"intervalstyle": "sql_standard", "array_nulls": "on"}
TEXTS = [25, 25]  # the types of a command and a tag
TAG_TYPES = [23, 25, 23]  # of the columns that say where a row is from

T = TypeVar("T")
Batches = Iterator[tuple[Task, Batch]]
Source = Callable[[], object]  # of the value of a query_manifest[]
Fields = dict[str, str | None]


class _Call:
    """How a call stands, for its front to ask when it fails.

    Attributes:
        owner: who may ask, once that is known.
        has_front: True if the call comes from a front that catches its errors.
        failure: the error that ended it.
        queue: the queries, once they are known.
        delivering: the one whose rows PostgreSQL converts at the moment.
        is_iterated: True if its function has returned, and PostgreSQL fetches rows.
    """

    def __init__(self, has_front: bool) -> None:
        self.owner: Owner | None = None
        self.has_front = has_front
        self.failure: PmppError | None = None
        self.queue: WorkQueue | None = None
        self.delivering: Task | None = None
        self.is_iterated = False


class _Run(NamedTuple):
    """The last call: who may see it, and its queries."""

    owner: Owner
    queue: WorkQueue


_handed_over: tuple[int, object] | None = None
_handed_over_json: str | None = None
_last_run: _Run | None = None
_failed_call: _Call | None = None


def hand_over(query_manifest: object) -> int:
    """Keep a manifest for the statement that its front runs next, and return the key to it.

    PostgreSQL may log the parameters of that statement, and a manifest may have passwords.
    """
    global _handed_over
    # Not the module secrets: it would load OpenSSL.
    key = int.from_bytes(os.urandom(8), signed=True)
    _handed_over = key, query_manifest
    return key


def rows(plpy: Any, query_manifest: object) -> Iterator[str | None]:
    """Run a manifest.

    Args:
        plpy: the module that PL/Python provides.
        query_manifest: the value of a query_manifest[].

    Returns:
        The rows, as composite literals. All of them, or work_mem of them, have come when this
        returns, so that most errors are raised here, where PL/Python keeps their message.

    Raises:
        plpy.Error: here or while the rows are fetched.
    """
    return _rows(plpy, lambda: query_manifest, None)


def rows_of_json(plpy: Any, query_manifest: str) -> Iterator[str | None]:
    """Run a manifest in JSON, see `rows`."""
    return _rows(plpy, lambda: _read_json(plpy, query_manifest), None)


def rows_for_front(
    plpy: Any, key: int, column_types: list[int], *, is_tagged: bool
) -> Iterator[str | None]:
    """Run a manifest for a front, see `rows`.

    Args:
        plpy: the module that PL/Python provides.
        key: of the manifest, which is handed over.
        column_types: the oids of the types of the columns that the queries return.
        is_tagged: True if three columns come first that say where a row is from.
    """
    return _rows(plpy, lambda: _take(key), column_types, is_tagged=is_tagged)


def _rows(
    plpy: Any,
    source: Source,
    column_types: list[int] | None,
    *,
    is_tagged: bool = False,
    only_tags: bool = False,
) -> Iterator[str | None]:
    call = _Call(has_front=column_types is not None)
    batches = _batches(plpy, call, source, column_types, as_rows, is_tagged, only_tags)
    try:
        batches = _run_ahead(batches, Catalog(plpy).work_mem())
    except Exception as ex:
        raise _shown(plpy, call, ex) from None
    if not call.has_front:
        batches = _read_as_written(Catalog(plpy), batches)
    call.is_iterated = True
    return chain.from_iterable(_Marked(call, batches))


def columns(plpy: Any, key: int, column_types: list[int], *, is_tagged: bool) -> Iterator[Batch]:
    """Run a manifest for a front.

    Args:
        plpy, key, column_types, is_tagged: see `rows_for_front`.

    Returns:
        Batches of rows, see `as_columns`.

    Raises:
        plpy.Error: while they are fetched.
    """
    call = _Call(has_front=True)
    types = [*TAG_TYPES, *column_types] if is_tagged else column_types
    write = partial(as_columns, types=types)
    batches = _batches(plpy, call, lambda: _take(key), column_types, write, is_tagged)
    return _Marked(call, batches)


def tags(plpy: Any, key: int) -> Iterator[str | None]:
    """Run a manifest for a front, throw its rows away, and return commands and tags."""
    return _rows(plpy, lambda: _take(key), TEXTS, only_tags=True)


def handed_json(plpy: Any) -> str:
    """Return the manifest in JSON that `rows_of_json` hands over.

    Raises:
        plpy.Error: if there is none, that is, if a user calls this by hand.
    """
    global _handed_over_json
    json, _handed_over_json = _handed_over_json, None
    if json is None:
        raise _shown(plpy, _Call(has_front=False), errors.only_by_pmpp())
    return json


def _read_json(plpy: Any, query_manifest: str) -> object:
    """Have SQL read a manifest in JSON; it is no parameter of a statement, see `hand_over`."""
    global _handed_over_json
    _handed_over_json = query_manifest
    try:
        return _take(Catalog(plpy).read_json())
    finally:
        _handed_over_json = None


def _take(key: int) -> object:
    """Return the manifest that was handed over last, if this is its key.

    Raises:
        PmppError: if it is not, that is, if a user calls a function of a front by hand.
    """
    global _handed_over
    handed_over, _handed_over = _handed_over, None
    if handed_over is None or handed_over[0] != key:
        raise errors.only_by_pmpp()
    return handed_over[1]


def last_run(plpy: Any) -> list[last_runs.Row]:
    """Return what became of the queries of the last call; nothing to other roles than made it."""
    run = _own_last_run(plpy)
    catalog = Catalog(plpy)
    interrupts = Interrupts(catalog.check_interrupts)
    return last_runs.last_run(run.queue, catalog.fit, interrupts) if run else []


def unfinished(plpy: Any) -> list[last_runs.Row]:
    """Return a manifest of the queries of the last call that are not done."""
    run = _own_last_run(plpy)
    interrupts = Interrupts(Catalog(plpy).check_interrupts)
    return last_runs.unfinished(run.queue, interrupts) if run else []


def _own_last_run(plpy: Any) -> _Run | None:
    return _last_run if _last_run and Catalog(plpy).is_owner(_last_run.owner) else None


def failure(plpy: Any, caught: Mapping[str, str]) -> Fields:
    """Return the fields of the error that a front is to raise, as a pmpp._error.

    Args:
        plpy: the module that PL/Python provides.
        caught: those of the error that the front caught, "" for a field without text.

    Returns:
        Those of the error behind it, if pmpp raised that. If PostgreSQL refused a value, the
        error as it was, with the query that gave the value added to its detail.
    """
    global _failed_call, _handed_over, _last_run
    _handed_over = None
    call, _failed_call = _failed_call, None
    if call and call.owner and not Catalog(plpy).is_owner(call.owner):
        call = None
    sqlstate = caught["sqlstate"]
    if call is None and sqlstate.startswith("22"):  # the front has refused the manifest itself
        _last_run = None
    if call is not None and call.failure is not None:
        return _fields(call.failure)
    error = PmppError(
        caught["message"],
        sqlstate=sqlstate,
        detail=caught["detail"],
        hint=caught["hint"],
        names={name: caught[name] for name in NAMES},
    )
    is_about_a_value = sqlstate[:2] not in ("53", "57", "58")  # resources, an end from outside
    if call is not None and call.queue and call.delivering and is_about_a_value:
        error.context = f"In a row of {call.delivering}"
        call.queue.fail(call.delivering, error)
    return _fields(error)


def _fields(error: PmppError) -> Fields:
    """Return the fields of an error that PL/pgSQL can raise; None for one without text."""
    return {
        "sqlstate": error.sqlstate,
        "message": error.message,
        "detail": error.full_detail,
        "hint": error.hint,
        **{name: error.names.get(name) for name in NAMES},
    }


def read_user_mapping(plpy: Any) -> None:
    """Read the user mapping that `foreign_servers` asks for, with a superuser's rights.

    Raises:
        plpy.Error: if it asks for none, that is, if a user calls this by hand.
    """
    try:
        foreign_servers.answer(Catalog(plpy))
    except Exception as ex:
        raise _shown(plpy, _Call(has_front=False), ex) from None


def _batches(
    plpy: Any,
    call: _Call,
    source: Source,
    column_types: list[int] | None,
    write: Write,
    is_tagged: bool,
    only_tags: bool = False,
) -> Batches:
    """Run the manifest that a function returns, and yield batches of rows, each with its query."""
    global _failed_call, _last_run
    _failed_call = _last_run = None
    try:
        catalog = Catalog(plpy)
        call.owner = catalog.owner()
        interrupts = Interrupts(catalog.check_interrupts)
        items = manifest.parse(source(), interrupts)
        caller = catalog.caller()
        columns = Columns(catalog, column_types, write, is_tagged=is_tagged, only_tags=only_tags)
        engine = Engine(
            items,
            foreign_servers.resolve(plpy, catalog, caller, items, interrupts),
            catalog.settings(),
            catalog.limits(),
            catalog.check_interrupts,
            lambda notice: _forward_notice(plpy, catalog, notice),
            columns.check if column_types is not None else lambda _: None,
            columns.wanted(),
            catalog.deadlocks(caller),
            files.of_server(),
        )
        call.queue = engine.queue
        _last_run = _Run(call.owner, engine.queue)
        for delivery in engine.run():
            for number, batch in enumerate(_read(columns, delivery, engine.queue)):
                if number:
                    engine.go_on()
                yield delivery.task, batch
            del delivery  # free the result before the next one is received
    except Exception as ex:
        raise _shown(plpy, call, ex) from None


def _read(columns: Columns, delivery: Delivery, queue: WorkQueue) -> Iterator[Batch]:
    """Yield the rows of a result; if they cannot be read, its query has failed after all."""
    try:
        yield from columns.batches(delivery)
    except PmppError as ex:
        queue.fail(delivery.task, ex)
        raise


def _run_ahead(batches: Batches, limit: int) -> Batches:
    """Take batches until there are no more or their text exceeds the limit (bytes)."""
    ahead: deque[tuple[Task, Batch]] = deque()
    size = 0
    for task, batch in batches:
        ahead.append((task, batch))
        size += sum(len(value or "") for value in batch)
        if size > limit:
            break
    return chain(_drain(ahead), batches)


def _read_as_written(catalog: Catalog, batches: Batches) -> Batches:
    """Yield batches; PostgreSQL converts them under the settings that fit every server.

    The fronts have them in SET clauses, which here would take 2 microseconds for each row. If the
    call fails, PostgreSQL itself puts the settings back.
    """
    before = {name: catalog.set_config(name, value) for name, value in READING.items()}
    yield from batches
    for name, value in before.items():
        catalog.set_config(name, value)


def _drain(queue: deque[T]) -> Iterator[T]:
    while queue:
        yield queue.popleft()


class _Marked:
    """Iterates over the rows, and keeps in mind which query those under conversion are from.

    Not a generator: when a session is terminated its iterator is dropped while it runs, and of a
    generator Python would complain about that in the server's log.
    """

    def __init__(self, call: _Call, batches: Batches) -> None:
        self._call = call
        self._batches = batches
        self._under_conversion = False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._under_conversion = False
        self._call.delivering, batch = next(self._batches)
        self._under_conversion = True
        # The generators that made the batch refer to it until they go on. What they see must not
        # keep large values in memory while PostgreSQL converts them.
        own = batch.copy()
        batch.clear()
        return own

    def __del__(self) -> None:
        if self._under_conversion:
            call = self._call
            if call.queue and call.delivering:  # whether it has failed is for `failure` to say
                call.queue.cancel(call.delivering)
            _remember(call)


def _remember(call: _Call) -> None:
    """Keep a call that has failed until its front asks about it, as it does at once."""
    global _failed_call
    if call.has_front:
        _failed_call = call


def _forward_notice(plpy: Any, catalog: Catalog, notice: Notice) -> None:
    """Give a remote's notice to the caller, at the level it came with."""
    levels = {"WARNING": plpy.warning, "NOTICE": plpy.notice, "INFO": plpy.info}
    level = levels.get(notice.severity, plpy.debug)
    fields = {"detail": notice.detail, "hint": notice.hint, **notice.names}
    shown = {name: catalog.fit(text) for name, text in fields.items() if text}
    if notice.sqlstate:
        shown["sqlstate"] = notice.sqlstate
    level(catalog.fit(notice.message), **shown)


def _shown(plpy: Any, call: _Call, ex: Exception) -> Exception:
    """Return the exception to raise for another, so that PL/Python shows all its fields."""
    if isinstance(ex, plpy.Error):  # has been through here
        return ex.with_traceback(None)  # type: ignore[no-any-return]
    if isinstance(ex, PmppError):
        error = ex
    elif isinstance(ex, plpy.SPIError):
        error = local_error(ex)
    else:  # a defect: say so, in one line
        error = PmppError(f"internal error: {type(ex).__name__}: {ex}")
    catalog = Catalog(plpy)
    for field in ("message", "detail", "hint", "context"):
        if text := getattr(error, field):
            setattr(error, field, catalog.fit(text))
    error.names = {name: catalog.fit(text) for name, text in error.names.items()}
    call.failure = error
    _remember(call)
    text = error.message
    if call.is_iterated and error.full_detail:  # all that is seen, unless there is a front
        text += f"\n{error.full_detail}"
    # PL/Python starts the message with the name of the class: "pmpp: ..."
    shown: Exception = type("pmpp", (plpy.Error,), {"__module__": "__main__"})(text)
    for name, value in _fields(error).items():
        setattr(shown, name, value)
    return shown
