"""The server process that runs a call, through the `plpy` module that PL/Python provides.

Every name and operator in the statements of this package is qualified: they run under the caller's
search_path, because PostgreSQL converts the values of a call under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .. import errors
from ..core import settings
from ..core.limits import Limits
from ..core.notices import Notice
from ..core.settings import HINTS, Settings
from ..core.target import Address
from ..errors import PmppError
from ..remote.policy import Caller

_LOCK_FILE = Path("postmaster.pid")
# The address to connect to where a server listens at all addresses.
_TO_ITSELF = {"*": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}

_CALLER = """
    select current_user::pg_catalog.text as name,
           r.rolsuper as is_superuser,
           pg_catalog.pg_backend_pid() as pid
      from pg_catalog.pg_roles r
     where r.rolname operator(pg_catalog.=) current_user
"""

_OWN_SETTINGS = ", ".join(f"pg_catalog.current_setting('pmpp.{n}', true) as {n}" for n in HINTS)
_SETTINGS = f"""
    select pg_catalog.current_setting('lc_monetary') as lc_monetary,
           pg_catalog.concat(
               pg_catalog.current_setting('client_min_messages'),
               pg_catalog.current_setting('log_min_messages')
           ) operator(pg_catalog.~) 'debug' as debug,
           {_OWN_SETTINGS}
"""

_LIMITS = """
    select l.connection, l.max_workers,
           exists (
               select from pg_catalog.pg_foreign_server s
                 join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) s.srvowner
                where s.srvname::pg_catalog.text operator(pg_catalog.=) l.connection
                  and r.rolsuper
           ) as is_server
      from pmpp.connection_limit l
"""

_SETTING = "select pg_catalog.current_setting($1) as value"
_SET = "select pg_catalog.set_config($1, $2, true)"
_WORK_MEM = "select pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) as bytes"
_BYTES = "select pg_catalog.pg_size_bytes($1) as value"
_SECONDS = "select extract(epoch from $1::pg_catalog.interval)::pg_catalog.float8 as value"
_DEBUG = "select pmpp._debug($1)"
_READ_JSON = "select pmpp._read_json($1) as key"

_plans: dict[tuple[str, ...], Any] = {}


class LocalBackend:
    """The server process, as the current user sees it.

    Args:
        plpy: the module of that name.

    Attributes:
        SPIError: the base of what `select` raises.
    """

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self.SPIError = plpy.SPIError

    def select(self, sql: str, *arguments: tuple[str, object]) -> Any:
        """Run a statement, which is prepared once in a session, and return its rows.

        Args:
            sql: its text.
            arguments: the type and the value of each of its parameters.

        Raises:
            plpy.SPIError: if it fails.
        """
        types = [name for name, _ in arguments]
        key = (sql, *types)
        if key not in _plans:
            _plans[key] = self._plpy.prepare(sql, types)
        return self._plpy.execute(_plans[key], [value for _, value in arguments])

    def check_interrupts(self) -> None:
        """Raise what PostgreSQL raises when the call is to end.

        Python waits without looking at PostgreSQL's flags. Running a statement looks at them.
        """
        self.select("select 1")

    def caller(self) -> Caller:
        """Return who calls: the current user, not the one who logged in."""
        (row,) = self.select(_CALLER)
        return Caller(row["name"], row["is_superuser"], row["pid"], local_address())

    def settings(self) -> Settings:
        """Return the settings of a call.

        Raises:
            PmppError: naming a setting of pmpp whose value cannot be used.
        """
        (row,) = self.select(_SETTINGS)
        parsed = settings.parse(
            row,
            bytes_of=lambda text: int(self._convert(_BYTES, text)),
            seconds_of=lambda text: self._convert(_SECONDS, text),
        )
        return parsed._replace(lc_monetary=row["lc_monetary"], debug=row["debug"])

    def limits(self) -> Limits:
        """Return the limits of servers and hosts."""
        rows = self.select(_LIMITS)
        return Limits(
            {row["connection"]: row["max_workers"] for row in rows},
            frozenset(row["connection"] for row in rows if row["is_server"]),
        )

    def set_config(self, name: str, value: str) -> str:
        """Set a setting until the transaction ends, and return what it was."""
        (row,) = self.select(_SETTING, ("pg_catalog.text", name))
        self.select(_SET, ("pg_catalog.text", name), ("pg_catalog.text", value))
        return str(row["value"])

    def work_mem(self) -> int:
        """Return work_mem in bytes."""
        (row,) = self.select(_WORK_MEM)
        return int(row["bytes"])

    def read_json(self, key: int) -> int:
        """Have SQL read the manifest in JSON that has a key, and return the key of what it says."""
        (row,) = self.select(_READ_JSON, ("pg_catalog.int8", key))
        return int(row["key"])

    def notify(self, notice: Notice) -> None:
        """Send a notice to the caller, at the level that it has."""
        message = self.fit(notice.message)
        if notice.severity == "DEBUG1":
            # plpy.debug() is of level DEBUG2.
            self.select(_DEBUG, ("pg_catalog.text", message))
            return
        plpy = self._plpy
        levels = {"WARNING": plpy.warning, "NOTICE": plpy.notice, "INFO": plpy.info}
        fields = {"detail": notice.detail, "hint": notice.hint, **notice.names}
        fitted = {name: self.fit(text) for name, text in fields.items() if text}
        if notice.sqlstate:
            fitted["sqlstate"] = notice.sqlstate
        levels.get(notice.severity, plpy.debug)(message, **fitted)

    def fit(self, text: str) -> str:
        """Return a text as the encoding of the database can have it.

        PL/Python must not be given other text in a message: the error that PostgreSQL then
        raises jumps over frames of the Python interpreter and leaves it broken. ASCII always fits,
        and is no parameter of a statement, which PostgreSQL may log.
        """
        if text.isascii():
            return text
        try:
            self.select("select $1", ("pg_catalog.text", text))
        except self.SPIError as ex:
            if as_pmpp_error(ex).sqlstate != errors.UNTRANSLATABLE_CHARACTER:
                # A cancel must not be lost here.
                raise
            return text.encode("ascii", "backslashreplace").decode()
        return text

    def _convert(self, sql: str, text: str) -> float:
        """Have PostgreSQL read a value; raise ValueError if it cannot, or if it is negative."""
        try:
            (row,) = self.select(sql, ("pg_catalog.text", text))
        except self.SPIError as ex:
            if as_pmpp_error(ex).sqlstate.startswith("22"):
                raise ValueError from None
            raise
        if row["value"] < 0:
            raise ValueError
        return float(row["value"])


@cache
def local_address() -> Address:
    """Return where the server of this process listens: its first socket, or else by TCP.

    Ordinary users may not read unix_socket_directories, but the server writes its addresses into
    a file of the data directory, which is the current directory of its processes.
    """
    *_, port, socket_directory, listen_address = _LOCK_FILE.read_text().split("\n")[:6]
    return Address(socket_directory or _TO_ITSELF.get(listen_address, listen_address), port)


def as_pmpp_error(ex: Any) -> PmppError:
    """Return the error that PostgreSQL raised in a statement of pmpp's own, a plpy.SPIError."""
    data: Sequence[Any] = getattr(ex, "spidata", None) or [None] * 10
    _, detail, hint, _, _, *names = data
    return PmppError(
        str(ex),
        sqlstate=getattr(ex, "sqlstate", None) or errors.INTERNAL_ERROR,
        detail=detail,
        hint=hint,
        names=dict(zip(errors.NAMES, names, strict=True)),
    )
