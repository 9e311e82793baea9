"""PL/Python entry points: what the functions in PL/Python of the extension call.

A call of an SQL wrapper function is found by a key, which the wrapper got when it handed over the
manifest. The state of calls is kept in the memory of the process, which ordinary users cannot reach
from SQL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from .. import errors
from ..core.interrupts import Interrupts
from ..core.literals import Batch
from ..core.queue import WorkQueue
from . import foreign_servers
from . import last_run as last_runs
from .call import (
    Batches,
    Call,
    Fields,
    Rows,
    as_plpy_error,
    caught_error,
    fields,
    fitted,
    read_as_written,
    run_ahead,
    show_detail,
)
from .delivery import WriteFor, write_columns, write_rows, write_tagged_rows
from .last_run import Row
from .local_backend import LocalBackend

# The oids of the types of a command and a tag.
TEXTS = [25, 25]

_handed_over: dict[int, object] = {}
_calls: dict[int, Call] = {}
_last_call: Call | None = None


def hand_over(value: object) -> int:
    """Keep a manifest for a function that gets the key in its place, and return the key.

    PostgreSQL may log the arguments of that function, and a manifest may contain passwords.
    """
    # The module secrets would load OpenSSL.
    key = int.from_bytes(os.urandom(8), signed=True)
    _handed_over[key] = value
    return key


def handed_json(plpy: Any, key: int) -> str:
    """Return the manifest in JSON that `records_of_json` has handed over.

    Raises:
        plpy.Error: if there is none, that is, if a user calls this by hand.
    """
    return str(_take(plpy, key))


def _take(plpy: Any, key: int) -> object:
    try:
        return _handed_over.pop(key)
    except KeyError:
        raise as_plpy_error(plpy, errors.only_by_pmpp()) from None


def records(plpy: Any, query_manifest: object) -> Iterator[str | None]:
    """Run a manifest for a form whose columns are named in the call.

    Args:
        plpy: the module that PL/Python provides.
        query_manifest: the value of a query_manifest[].

    Returns:
        The rows, as composite literals. All of them, or work_mem of them, have come when this
        returns, so that most errors are raised here, where PL/Python keeps their message.

    Raises:
        plpy.Error: here or while the rows are fetched.
    """
    return _records(plpy, lambda: query_manifest)


def records_of_json(plpy: Any, query_manifest: str) -> Iterator[str | None]:
    """Run a manifest in JSON, see `records`."""

    def read() -> object:
        # SQL reads it. JSON is no argument of a statement, see `hand_over`.
        key = hand_over(query_manifest)
        try:
            return _take(plpy, LocalBackend(plpy).read_json(key))
        finally:
            _handed_over.pop(key, None)

    return _records(plpy, read)


def _records(plpy: Any, read_manifest: Callable[[], object]) -> Iterator[str | None]:
    global _last_call
    call = _last_call = Call()
    batches = call.batches(plpy, read_manifest, None, write_rows)
    try:
        batches = run_ahead(batches, LocalBackend(plpy).work_mem())
    except Exception as ex:
        raise call.failed(plpy, ex) from None
    batches = show_detail(plpy, read_as_written(plpy, batches))
    return chain.from_iterable(Rows(call.converted(batches)))


def rows(plpy: Any, key: int, column_types: list[int]) -> Iterator[str | None]:
    """Run a manifest for an SQL wrapper function.

    Args:
        plpy: the module that PL/Python provides.
        key: of the manifest.
        column_types: the oids of the types of the columns that the queries return.

    Returns:
        The rows, as composite literals. Three columns come first that say where a row is from: the
        number of the item, the connection, and the number of the query.

    Raises:
        plpy.Error: if a user calls this by hand, or while the rows are fetched.
    """
    return chain.from_iterable(_wrapped(plpy, key, column_types, write_tagged_rows))


def tags(plpy: Any, key: int) -> Iterator[str | None]:
    """Run a manifest, see `rows`; throw its rows away, and return commands and tags."""
    return chain.from_iterable(_wrapped(plpy, key, TEXTS, write_rows, only_tags=True))


def columns(plpy: Any, key: int, column_types: list[int]) -> Iterator[Batch]:
    """Run a manifest, see `rows`, and return batches of rows, see `as_columns`.

    Where the rows are from stands behind each batch.
    """
    return _wrapped(plpy, key, column_types, write_columns)


def _wrapped(
    plpy: Any, key: int, column_types: list[int], write: WriteFor, *, only_tags: bool = False
) -> Iterator[Batch]:
    global _last_call
    manifest = _take(plpy, key)
    call = _last_call = _calls[key] = Call()

    def batches() -> Batches:
        yield from call.batches(plpy, lambda: manifest, column_types, write, only_tags=only_tags)
        # The wrapper function asks only about a call that has failed.
        del _calls[key]

    return Rows(call.converted(batches()))


def failure(key: int | None, caught: Mapping[str, str]) -> Fields:
    """Return the fields of the error that an SQL wrapper function is to raise, as a pmpp._error.

    Args:
        key: of the manifest; None if the wrapper function failed before it had one.
        caught: the fields of the error that it caught, "" for a field without text.
    """
    global _last_call
    if key is not None:
        _handed_over.pop(key, None)
        if call := _calls.pop(key, None):
            return fields(call.error_behind(caught))
    _last_call = None
    return fields(caught_error(caught))


def last_run(plpy: Any) -> list[Row]:
    """Return what became of the queries of the last call; nothing to other roles than made it."""
    queue = _last_queue(plpy)
    backend = LocalBackend(plpy)
    interrupts = Interrupts(backend.check_interrupts)
    return last_runs.rows(queue, backend.fit, interrupts) if queue else []


def unfinished(plpy: Any) -> list[Row]:
    """Return a manifest of the queries of the last call that are not done."""
    queue = _last_queue(plpy)
    interrupts = Interrupts(LocalBackend(plpy).check_interrupts)
    return last_runs.unfinished(queue, interrupts) if queue else []


def _last_queue(plpy: Any) -> WorkQueue | None:
    call = _last_call
    if call and call.owner and last_runs.is_owner(LocalBackend(plpy), call.owner):
        return call.queue
    return None


def read_user_mapping(plpy: Any) -> None:
    """Read the user mapping that `foreign_servers` requests, with a superuser's rights.

    Raises:
        plpy.Error: if it requests none, that is, if a user calls this by hand.
    """
    try:
        foreign_servers.read_requested_mapping(LocalBackend(plpy))
    except Exception as ex:
        raise as_plpy_error(plpy, fitted(plpy, ex)) from None
