"""Making a connection: one address after the other, none for longer than its timeout."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import sample, shuffle

from psycopg import OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus, abc

from .. import errors
from ..core.target import Target, is_name
from ..core.waiting import EVENT_READ, EVENT_WRITE, Steps, Wait
from ..errors import ConnectError, PmppError
from . import resolver

_EVENTS = {PollingStatus.READING: EVENT_READ, PollingStatus.WRITING: EVENT_WRITE}

OnNotice = Callable[[abc.PGconn, abc.PGresult], None]


class _RefusedAfterPassword(OperationalError):
    """A connection that was not let in after a password was sent, wrong or not."""


def connect(item_name: str, target: Target, on_notice: OnNotice) -> Steps[abc.PGconn]:
    """Return a connection that the caller may use.

    Args:
        item_name: which item of the manifest it is for, for messages.
        target: where to connect to.
        on_notice: called with the connection and each notice that the remote server sends.

    Raises:
        ConnectError: if no address answers within its connect_timeout.
        PmppError: if the remote server did not ask for the password and had to.
    """
    failures: list[str] = []
    hosts = _hosts(target)
    for host in hosts:
        host.prepare()
    for session_attrs in _session_attrs(target):
        for host in hosts:
            for params in (yield from host.attempts(failures)):
                try:
                    pgconn = yield from _attempt({**params, **session_attrs}, on_notice)
                except TimeoutError:
                    address = params["hostaddr"] or params["host"]
                    failures.append(f"{address} did not answer within {_timeout(params)} s")
                except OperationalError as ex:
                    sent_password = isinstance(ex, _RefusedAfterPassword)
                    if not sent_password and _misses_require_auth(target, str(ex)):
                        raise _did_not_ask(item_name, target, str(ex)) from None
                    failures.append(str(ex))
                    if sent_password:
                        # It may be wrong. As libpq does, do not send it again.
                        error = _cannot_connect(item_name, target, failures)
                        error.sent_password = True
                        raise error from None
                else:
                    _check_password(item_name, target, pgconn)
                    return pgconn
    for host in hosts:
        resolver.forget(host.name)
    raise _cannot_connect(item_name, target, failures)


def _hosts(target: Target) -> list[_Host]:
    """Return the hosts of a target in the order in which to try them."""
    lists = (target.params[keyword].split(",") for keyword in ("host", "hostaddr", "port"))
    hosts = [_Host(target.params, *entries) for entries in zip(*lists, strict=True)]
    if target.params.get("load_balance_hosts") == "random":
        shuffle(hosts)
    return hosts


def _session_attrs(target: Target) -> list[dict[str, str]]:
    """Return with which target_session_attrs to try all hosts, one after the other."""
    if target.params.get("target_session_attrs") != "prefer-standby":
        return [{}]
    # Each attempt has one address, so libpq would take a primary at once.
    return [{"target_session_attrs": value} for value in ("standby", "any")]


class _Host:
    """A server that may be tried, under one or more addresses.

    Args:
        params: the parameters of the target.
        name, address, port: the entries of `host`, `hostaddr` and `port`. One of the first two may
            be empty.
    """

    def __init__(self, params: Mapping[str, str], name: str, address: str, port: str) -> None:
        self.name = name
        self._params = {**params, "host": name, "port": port}
        # Of a socket, which has no address, libpq reads the name.
        self._addresses: list[str] | None = [address]
        if name and not address and is_name(name):
            self._addresses = None

    def prepare(self) -> None:
        """Start to resolve the name, if it must be."""
        if self._addresses is None:
            resolver.prepare(self.name)

    def attempts(self, failures: list[str]) -> Steps[list[dict[str, str]]]:
        """Return the parameters for each address.

        Args:
            failures: why there is none is added here.
        """
        if self._addresses is None:
            try:
                self._addresses = yield from resolver.resolve(self.name, _deadline(self._params))
            except TimeoutError:
                reason = f"no answer within {_timeout(self._params)} s"
            except OSError as ex:
                # Too many files are open.
                reason = ex.strerror or str(ex)
            except resolver.NotResolvedError as ex:
                reason = str(ex)
            if self._addresses is None:
                self._addresses = []
                failures.append(f'could not translate host name "{self.name}" to address: {reason}')
            elif self._params.get("load_balance_hosts") == "random":
                self._addresses = sample(self._addresses, len(self._addresses))
        return [{**self._params, "hostaddr": address} for address in self._addresses]


def _timeout(params: Mapping[str, str]) -> int:
    """Return connect_timeout in seconds, 0 or less for none."""
    return int(params["connect_timeout"] or 0)


def _deadline(params: Mapping[str, str]) -> float | None:
    """Return when something that begins now must be done."""
    timeout = _timeout(params)
    return time.monotonic() + timeout if timeout > 0 else None


def _attempt(params: Mapping[str, str], on_notice: OnNotice) -> Steps[abc.PGconn]:
    """Connect to one address; raise OperationalError if that fails."""
    deadline = _deadline(params)
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
    # A server that accepts the connection reports its version, even if it is not the one wanted.
    was_let_in = pgconn.parameter_status(b"server_version")
    kind = _RefusedAfterPassword if pgconn.used_password and not was_let_in else OperationalError
    return kind(pgconn.get_error_message())


def _check_password(item_name: str, target: Target, pgconn: abc.PGconn) -> None:
    if target.must_use_password and not pgconn.used_password:
        pgconn.finish()
        raise _did_not_ask(item_name, target, "")


def _misses_require_auth(target: Target, message: str) -> bool:
    """Return True if libpq has refused how a remote server lets in who must use a password."""
    # In every language, the message shows the parameter.
    return target.must_use_password and target.params["require_auth"] in message


def _did_not_ask(item_name: str, target: Target, reason: str) -> PmppError:
    rule = (
        "Users who are not superusers may connect only where the remote server checks the password."
    )
    return PmppError(
        f"{item_name}: {target.display_name} did not ask for the password",
        sqlstate=errors.PROHIBITED_STATEMENT,
        detail="\n".join(filter(None, [rule, reason])),
        hint="Change the authentication method of the remote server.",
    )


def _cannot_connect(item_name: str, target: Target, failures: list[str]) -> ConnectError:
    return ConnectError(
        f"{item_name}: could not connect to {target.display_name}",
        sqlstate=errors.UNABLE_TO_CONNECT,
        detail="\n".join(failures),
    )
