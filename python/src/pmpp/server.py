"""The entrances from SQL: what the PL/Python functions of the extension call.

State is kept for one purpose only: a front in PL/pgSQL that caught an error asks `failure` what
to say, and the function that may read user mappings is told `read_user_mapping` for whom.
Both live in the memory of the process, which ordinary users cannot reach from SQL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from . import conninfo, errors, manifest
from .catalog import Catalog, local_error
from .columns import Columns
from .conninfo import Caller, Target
from .diagnostics import Notice
from .engine import Engine
from .errors import PmppError
from .manifest import Item, Task

Batch = tuple[Task, list[str]]


class _Call:
    """How a call stands, for its front to ask when it fails.

    Attributes:
        has_front: True if the call comes from a front that catches its errors.
        failure: the error that ended it.
        delivering: the query whose rows PostgreSQL converts at the moment.
    """

    def __init__(self, has_front: bool) -> None:
        self.has_front = has_front
        self.failure: PmppError | None = None
        self.delivering: Task | None = None


_failed_call: _Call | None = None
_mapping_request: tuple[str, str] | None = None
_mapping_answer: dict[str, str] | None = None


def rows(plpy: Any, query_manifest: object, column_types: list[int] | None) -> Iterator[str]:
    """Run a manifest.

    Args:
        plpy: the module that PL/Python provides.
        query_manifest: the value of a query_manifest[].
        column_types: the oids of the types of the columns to return, if they are known.

    Returns:
        The rows, as composite literals. All of them, or work_mem of them, have come when this
        returns, so that most errors are raised here, where PL/Python keeps their message.

    Raises:
        plpy.Error: here or while the rows are fetched.
    """
    global _failed_call
    _failed_call = None
    call = _Call(has_front=column_types is not None)
    try:
        catalog = Catalog(plpy)
        items = manifest.parse(query_manifest)
        settings, work_mem = catalog.settings()
        engine = Engine(
            items,
            _targets(plpy, catalog, items),
            settings,
            catalog.check_interrupts,
            lambda notice: _forward_notice(plpy, catalog, notice),
        )
        batches = _batches(plpy, call, engine, Columns(catalog, column_types))
        ahead = _run_ahead(batches, work_mem)
    except Exception as ex:
        raise _shown(plpy, call, ex) from None
    return chain.from_iterable(_marked(call, ahead, batches))


def rows_of_json(plpy: Any, query_manifest: str) -> Iterator[str]:
    """Run a manifest in JSON, see `rows`."""
    try:
        parsed = Catalog(plpy).manifest_of_json(query_manifest)
    except Exception as ex:
        raise _shown(plpy, _Call(has_front=False), ex) from None
    return rows(plpy, parsed, None)


def failure(sqlstate: str, message: str, detail: str, hint: str) -> list[str | None]:
    """Return the four fields of the error that a front is to raise.

    Args:
        sqlstate, message, detail, hint: the error that it caught, "" for a field without text.

    Returns:
        The same of the error behind it, if pmpp raised that. If PostgreSQL refused a value, the
        error as it was, with the query that gave the value added to its detail.
    """
    global _failed_call
    call, _failed_call = _failed_call, None
    if call is not None and call.failure is not None:
        error = call.failure
        return [error.sqlstate, error.message, error.detail, error.hint]
    is_about_a_value = sqlstate[:2] in ("22", "23", "42")
    if call is not None and call.delivering is not None and is_about_a_value:
        detail = "\n".join(filter(None, [detail, f"In a row of {call.delivering}"]))
    return [sqlstate, message, detail or None, hint or None]


def read_user_mapping(plpy: Any) -> None:
    """Answer the request that `_targets` has left, with a superuser's rights.

    Raises:
        plpy.Error: if there is no request, that is, if a user calls it by hand.
    """
    global _mapping_request, _mapping_answer
    try:
        if _mapping_request is None:
            raise PmppError(
                "this function can only be called by pmpp itself",
                sqlstate=errors.INSUFFICIENT_PRIVILEGE,
            )
        request, _mapping_request = _mapping_request, None
        _mapping_answer = Catalog(plpy).user_mapping(*request)
    except Exception as ex:
        raise _shown(plpy, _Call(has_front=False), ex) from None


def _targets(plpy: Any, catalog: Catalog, items: Sequence[Item]) -> list[Target]:
    """Resolve the connections of all items."""
    caller = catalog.caller()
    servers = catalog.foreign_servers([item.connection for item in items])
    targets = []
    for item in items:
        where = f"item {item.number}"
        server = servers.get(item.connection)
        if server is None:
            target = conninfo.from_string(where, item.connection, caller)
        else:
            mapping = _user_mapping(plpy, caller, server.name)
            target = conninfo.from_server(where, server, mapping, caller)
        targets.append(target)
    return targets


def _user_mapping(plpy: Any, caller: Caller, server: str) -> dict[str, str] | None:
    """Have a function with the right to do so read the mapping that applies to the caller."""
    global _mapping_request, _mapping_answer
    _mapping_request = caller.name, server
    try:
        plpy.execute("select pmpp._read_user_mapping()")
        return _mapping_answer
    finally:
        _mapping_request = _mapping_answer = None


def _batches(plpy: Any, call: _Call, engine: Engine, columns: Columns) -> Iterator[Batch]:
    """Yield the rows of all queries as they come, each batch with its query."""
    try:
        for delivery in engine.run():
            for batch in columns.literals(delivery):
                yield delivery.task, batch
            del delivery  # free the result before the next one is received
    except Exception as ex:
        raise _shown(plpy, call, ex) from None


def _run_ahead(batches: Iterator[Batch], limit: int) -> deque[Batch]:
    """Take batches until there are no more or their text exceeds the limit (bytes)."""
    ahead: deque[Batch] = deque()
    size = 0
    for task, batch in batches:
        ahead.append((task, batch))
        size += sum(map(len, batch))
        if size > limit:
            break
    return ahead


def _marked(call: _Call, ahead: deque[Batch], batches: Iterator[Batch]) -> Iterator[list[str]]:
    """Yield the rows, and keep in mind which query those under conversion are from."""
    try:
        while ahead:
            call.delivering, batch = ahead.popleft()
            yield batch
        for call.delivering, batch in batches:
            yield batch
    except GeneratorExit:
        _remember(call)
        raise


def _remember(call: _Call) -> None:
    """Keep a call that has failed until its front asks about it, as it does at once."""
    global _failed_call
    if call.has_front:
        _failed_call = call


def _forward_notice(plpy: Any, catalog: Catalog, notice: Notice) -> None:
    """Give a remote's notice to the caller, at the level it came with."""
    levels = {"WARNING": plpy.warning, "NOTICE": plpy.notice, "INFO": plpy.info}
    level = levels.get(notice.severity, plpy.debug)
    fields = {"detail": notice.detail, "hint": notice.hint}
    shown = {name: catalog.fit(text) for name, text in fields.items() if text}
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
    for field in ("message", "detail", "hint"):
        if text := getattr(error, field):
            setattr(error, field, catalog.fit(text))
    call.failure = error
    _remember(call)
    # PL/Python starts the message with the name of the class: "pmpp: ..."
    shown: Exception = type("pmpp", (plpy.Error,), {"__module__": "__main__"})(error.message)
    for field in ("sqlstate", "detail", "hint"):
        setattr(shown, field, getattr(error, field))
    return shown
