"""Making a connection: one address after the other, none for longer than its timeout."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
from psycopg import OperationalError
from psycopg.conninfo import conninfo_attempts, make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus, abc

from . import errors
from .conninfo import Target
from .errors import ConnectError, PmppError
from .waiting import EVENT_READ, EVENT_WRITE, Steps, Wait

_EVENTS = {PollingStatus.READING: EVENT_READ, PollingStatus.WRITING: EVENT_WRITE}

Parameters = dict[str, str | int | None]
OnNotice = Callable[[abc.PGconn, abc.PGresult], None]


class _RefusedAfterPassword(OperationalError):
    """A connection that was not let in after a password was sent, wrong or not."""


def connect(where: str, target: Target, on_notice: OnNotice) -> Steps[abc.PGconn]:
    """Return a connection that the caller may use.

    Args:
        where: which item of the manifest it is for, for messages.
        target: where to connect to.
        on_notice: called with the connection and each notice that the remote sends.

    Raises:
        ConnectError: if no address answers within its connect_timeout.
        PmppError: if the remote did not ask for the password and had to.
    """
    failures = []
    sent_password = False
    for params in _attempts(where, target):
        try:
            pgconn = yield from _attempt(params, on_notice)
        except TimeoutError:
            host = params.get("hostaddr") or params.get("host")
            failures.append(f"{host} did not answer within {params['connect_timeout']} s")
        except OperationalError as ex:
            sent_password = isinstance(ex, _RefusedAfterPassword)
            if not sent_password and _misses_require_auth(target, str(ex)):
                raise _did_not_ask(where, target, str(ex)) from None
            failures.append(str(ex))
            if sent_password:  # it may be wrong: not to be sent again, as libpq has it
                break
        else:
            _check_password(where, target, pgconn)
            return pgconn
    error = _cannot_connect(where, target, failures)
    error.sent_password = sent_password
    raise error


def _attempts(where: str, target: Target) -> list[Parameters]:
    """Return the parameters for each address that the hosts of the target have."""
    try:
        return list(conninfo_attempts(target.params))
    except (psycopg.Error, ValueError) as ex:  # unknown hosts, names that cannot be hosts
        raise _cannot_connect(where, target, [str(ex)]) from None


def _attempt(params: Parameters, on_notice: OnNotice) -> Steps[abc.PGconn]:
    """Connect to one address; raise OperationalError if that fails."""
    timeout = int(params["connect_timeout"] or 0)
    deadline = time.monotonic() + timeout if timeout > 0 else None
    pgconn = PGconn.connect_start(make_conninfo("", **params).encode())
    try:
        pgconn.notice_handler = lambda result: on_notice(pgconn, result)
        # Not polled before there is something to see: libpq would take the socket for connected,
        # and not tell why it never was.
        status = PollingStatus.WRITING if pgconn.status != ConnStatus.BAD else PollingStatus.FAILED
        while status != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                raise _failure(pgconn)
            yield Wait(pgconn.socket, _EVENTS[status], deadline)
            status = PollingStatus(pgconn.connect_poll())
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return pgconn


def _failure(pgconn: abc.PGconn) -> OperationalError:
    """Return why a connection was not made."""
    was_let_in = pgconn.parameter_status(b"server_version")  # but is not what was asked for
    kind = _RefusedAfterPassword if pgconn.used_password and not was_let_in else OperationalError
    return kind(pgconn.get_error_message())


def _check_password(where: str, target: Target, pgconn: abc.PGconn) -> None:
    if target.must_use_password and not pgconn.used_password:
        pgconn.finish()
        raise _did_not_ask(where, target, "")


def _misses_require_auth(target: Target, message: str) -> bool:
    """Return True if libpq has refused how a remote server lets in who must use a password."""
    # In every language, the message shows the parameter.
    return target.must_use_password and target.params["require_auth"] in message


def _did_not_ask(where: str, target: Target, reason: str) -> PmppError:
    rule = (
        "Users who are not superusers may connect only where the remote server checks the password."
    )
    return PmppError(
        f"{where}: {target.label} did not ask for the password",
        sqlstate=errors.PROHIBITED_STATEMENT,
        detail="\n".join(filter(None, [rule, reason])),
        hint="Change the authentication method of the remote server.",
    )


def _cannot_connect(where: str, target: Target, failures: list[str]) -> ConnectError:
    return ConnectError(
        f"{where}: could not connect to {target.label}",
        sqlstate=errors.UNABLE_TO_CONNECT,
        detail="\n".join(failures),
    )
