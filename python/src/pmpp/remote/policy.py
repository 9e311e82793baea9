"""Who may connect where, and with which parameters.

The rule for users who are not superusers is that of dblink and postgres_fdw. The server's
operating system user can often connect without a password, and database users must not be able to
use that. So they supply a password of their own, and the remote server must ask for it
(`Target.must_use_password`, checked after connecting).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg.pq import Conninfo

from .. import errors
from ..core.target import Address, Target, worker_name
from ..errors import PmppError
from . import conninfo

# What ordinary users may set in a connection string. A list of what is allowed, since newer
# versions of libpq know more and more keywords that name files of the server.
ORDINARY_KEYWORDS = frozenset(
    [
        "host", "hostaddr", "port", "dbname", "user", "password", "options", "application_name",
        "fallback_application_name", "client_encoding", "connect_timeout", "tcp_user_timeout",
        "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
        "target_session_attrs", "load_balance_hosts", "sslmode", "sslnegotiation", "sslsni",
        "min_protocol_version", "max_protocol_version", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "channel_binding", "require_auth", "gssencmode",
        "requirepeer",
    ]
)  # fmt: skip

# What a foreign server may set. Anyone with USAGE on a wrapper can create a server, and a wrapper
# without a validator accepts any option, such as sslkeylogfile, a file that libpq would write.
SERVER_KEYWORDS = (ORDINARY_KEYWORDS - {"user", "password", "client_encoding"}) | frozenset(
    [
        "krbsrvname", "gssdelegation", "gsslib", "passfile", "service", "sslcert", "sslcertmode",
        "sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslrootcert",
    ]
)  # fmt: skip

# An option with which postgres_fdw logs in by keys of the client's own login, which it alone has.
PASSTHROUGH = "use_scram_passthrough"

# What a user mapping may set, whoever wrote it. Names of certificate files are taken only from
# mappings of postgres_fdw, which lets nobody but superusers write them.
MAPPING_KEYWORDS = frozenset(["user", "password", "password_required"])
CERTIFICATE_KEYWORDS = frozenset(["sslcert", "sslkey", "sslpassword"])

# A file that cannot exist, so that libpq does not look for the operating system user's own.
NO_FILE = "/dev/null/none"

# How a remote server may ask for a password, and all that libpq knows.
PASSWORD_METHODS = ("scram-sha-256", "md5", "password")
_METHODS = {*PASSWORD_METHODS, "gss", "sspi", "oauth", "none"}

# What makes the Kerberos ticket of the server's operating system user useless: a remote server
# could pass on the request of another one for it, and be let in there.
NO_KERBEROS = {"gssencmode": "disable", "gssdelegation": "0", "krbsrvname": "pmpp-has-no-ticket"}

# What PostgreSQL reads as one word of `options`.
_OPTION = re.compile(r"(?:[^\\\s]|\\.?)+", re.ASCII | re.DOTALL)


class Caller(NamedTuple):
    """Who asks: the current user, the process id of the session, and the address of its server."""

    name: str
    is_superuser: bool
    pid: int
    server: Address


class ForeignServer(NamedTuple):
    """A row of pg_foreign_server with what the caller may know of it.

    Attributes:
        options: options of the wrapper and of the server.
        has_usage: True if the caller has USAGE on the server.
        is_postgres_fdw: True if the wrapper's options are validated by postgres_fdw, so that
            only superusers can have set password_required and the names of certificates.
    """

    name: str
    options: Mapping[str, str]
    has_usage: bool
    is_postgres_fdw: bool

    def __repr__(self) -> str:
        # The options may contain a password.
        return f"ForeignServer({self.name!r})"


def from_string(item_name: str, text: str, caller: Caller) -> Target:
    """Resolve a connection string or URI.

    Args:
        item_name: which item it belongs to, for messages.
        text: the string.
        caller: who asks.

    Raises:
        PmppError: if it cannot be parsed, or the caller may not use it.
    """
    params = conninfo.parse(item_name, text)
    display_name = conninfo.display_name(params)
    if not caller.is_superuser:
        for keyword in params:
            names_no_file = (keyword, params[keyword]) == ("sslrootcert", "system")
            if keyword not in ORDINARY_KEYWORDS and not names_no_file:
                raise PmppError(
                    f"{item_name}: connection parameter {keyword} may only be used by superusers",
                    sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                )
        _require_password(item_name, display_name, params)
    return _target(
        item_name, display_name, params, caller, must_use_password=not caller.is_superuser
    )


def from_server(
    item_name: str, server: ForeignServer, mapping: Mapping[str, str] | None, caller: Caller
) -> Target:
    """Resolve the name of a foreign server.

    Args:
        item_name: which item names it, for messages.
        server: the server.
        mapping: the options of the user mapping that applies to the caller, or None.
        caller: who asks.

    Raises:
        PmppError: without USAGE on the server, without a user mapping, and where an ordinary
            user's mapping has no password and need not do without one.
    """
    if not server.has_usage:
        raise PmppError(
            f"{item_name}: permission denied for foreign server {server.name}",
            sqlstate=errors.INSUFFICIENT_PRIVILEGE,
        )
    if mapping is None:
        raise PmppError(
            f'{item_name}: no user mapping of server "{server.name}" applies to "{caller.name}"',
            sqlstate=errors.UNDEFINED_OBJECT,
            hint="Use CREATE USER MAPPING to define one.",
        )
    display_name = f'server "{server.name}"'
    passthrough = mapping.get(PASSTHROUGH, server.options.get(PASSTHROUGH, ""))
    if _is(True, passthrough) and not mapping.get("password"):
        raise PmppError(
            f"{item_name}: {display_name} has use_scram_passthrough, which pmpp does not support",
            sqlstate=errors.FEATURE_NOT_SUPPORTED,
            hint="Put a password into the user mapping.",
        )
    allowed = MAPPING_KEYWORDS
    if caller.is_superuser or server.is_postgres_fdw:
        allowed = allowed | CERTIFICATE_KEYWORDS
    libpq_knows = {option.keyword.decode() for option in Conninfo.get_defaults()}
    params = {
        keyword: value
        for keyword, value in [
            *((k, v) for k, v in server.options.items() if k in SERVER_KEYWORDS),
            *((k, v) for k, v in mapping.items() if k in allowed),
        ]
        if keyword in libpq_knows
    }
    conninfo.check_values(item_name, params)
    may_do_without = server.is_postgres_fdw and _is(False, mapping.get("password_required", ""))
    must_use_password = not (caller.is_superuser or may_do_without)
    if must_use_password:
        _require_password(item_name, display_name, params)
    return _target(
        item_name,
        display_name,
        params,
        caller,
        server=server.name,
        must_use_password=must_use_password,
    )


def _require_password(item_name: str, display_name: str, params: Mapping[str, str]) -> None:
    if not params.get("password"):
        raise PmppError(
            f"{item_name}: a password is required to connect to {display_name}",
            sqlstate=errors.PROHIBITED_STATEMENT,
            detail="Users who are not superusers must give a password in the connection string "
            "or in the user mapping.",
        )


def _target(
    item_name: str,
    display_name: str,
    params: Mapping[str, str],
    caller: Caller,
    *,
    server: str | None = None,
    must_use_password: bool,
) -> Target:
    full = {
        **conninfo.DEFAULTS,
        "application_name": worker_name(caller.pid, item_name),
        **conninfo.of_service(params),
        **params,
    }
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", full["connect_timeout"], re.ASCII):
        raise PmppError(
            f"{item_name}: connect_timeout must be an integer, not {full['connect_timeout']}",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    full.update(conninfo.addresses_to_try(item_name, full, caller.server))
    full["client_encoding"] = "UTF8"
    # An empty value is to libpq as none.
    if not (caller.is_superuser or full.get("user")):
        full["user"] = caller.name
    settings: Sequence[tuple[str, str]] = ()
    if must_use_password:
        settings = _settings(item_name, full.get("options", ""))
        # An empty value overrides PGOPTIONS.
        full["options"] = ""
        if full.get("gssencmode") == "require":
            raise PmppError(
                f"{item_name}: gssencmode=require may not be used by users who must use a password",
                sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                hint="Use TLS: sslmode=require.",
            )
        full["sslcert"] = full.get("sslcert") or NO_FILE
        full["sslkey"] = full.get("sslkey") or NO_FILE
        full.update(NO_KERBEROS)
        full["require_auth"] = _password_methods(item_name, full.get("require_auth", ""))
    return Target(display_name, full, must_use_password, settings, server)


def _password_methods(item_name: str, require_auth: str) -> str:
    """Return the value of require_auth that leaves of the caller's only asking for a password.

    Args:
        item_name: which item it belongs to, for messages.
        require_auth: the caller's value, as libpq has it, or an empty string.
    """
    methods = require_auth.split(",") if require_auth else []
    forbidden = [method[1:] for method in methods if method.startswith("!")]
    wanted = forbidden or methods or PASSWORD_METHODS
    left = [method for method in PASSWORD_METHODS if (method in wanted) != bool(forbidden)]
    if not _METHODS.issuperset(wanted) or len(forbidden) not in (0, len(methods)) or not left:
        raise PmppError(
            f"{item_name}: require_auth must permit a method that asks for the password",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
            hint=f"The methods are {', '.join(PASSWORD_METHODS)}.",
        )
    return ",".join(left)


def _settings(item_name: str, options: str) -> list[tuple[str, str]]:
    """Return the names and values of the settings in `options`.

    PostgreSQL acts on `options` before it asks for a password. A server that trusts the server's
    account would load files of the caller's choice (session_preload_libraries).

    Args:
        item_name: which item it belongs to, for messages.
        options: the value of the connection parameter.

    Raises:
        PmppError: if there is anything else in it.
    """
    words = iter(re.sub(r"\\(.?)", r"\1", w, flags=re.DOTALL) for w in _OPTION.findall(options))
    settings = []
    for word in words:
        switch, setting = word[:2], word[2:]
        if word == "-c":
            setting = next(words, "")
        name, equals, value = setting.partition("=")
        if switch not in ("-c", "--") or not (name and equals):
            raise PmppError(
                f"{item_name}: connection parameter options may only contain -c name=value",
                sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                detail="Only superusers may use other switches of the PostgreSQL server.",
            )
        # PostgreSQL does this too.
        name = name.replace("-", "_")
        if name.lower() != "client_encoding":
            settings.append((name, value))
    return settings


def _is(wanted: bool, value: str) -> bool:
    """Read a boolean as PostgreSQL does: words in any case, shortened as long as they are clear."""
    text = value.strip().lower()
    shortest = (
        {"true": "t", "yes": "y", "on": "on", "1": "1"}
        if wanted
        else {"false": "f", "no": "n", "off": "of", "0": "0"}
    )
    return any(text.startswith(s) and word.startswith(text) for word, s in shortest.items())
