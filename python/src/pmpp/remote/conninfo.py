"""Where to connect, with which parameters, and whether the caller may.

A connection string is parsed once; what was parsed is checked, and exactly that is connected
with. No message of this module shows a connection string or a password.

The rule for users who are not superusers is that of dblink and postgres_fdw: the server's
operating system user has credentials that they must not borrow. So they bring a password of
their own, and the remote must ask for it (`Target.must_use_password`, checked after connecting).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo, PGconn

from .. import errors
from ..errors import PmppError

# What ordinary users may set in a connection string. A list of what is allowed, since newer
# versions of libpq know more and more keywords that name files of the server.
ORDINARY_KEYWORDS = frozenset(
    [
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "options",
        "application_name",
        "fallback_application_name",
        "client_encoding",
        "connect_timeout",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "target_session_attrs",
        "load_balance_hosts",
        "sslmode",
        "sslnegotiation",
        "sslsni",
        "min_protocol_version",
        "max_protocol_version",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "channel_binding",
        "require_auth",
        "gssencmode",
        "requirepeer",
    ]
)

# What a foreign server may set. Anyone with USAGE on a wrapper can create a server, and a wrapper
# without a validator accepts any option, such as sslkeylogfile, a file that libpq would write.
SERVER_KEYWORDS = (ORDINARY_KEYWORDS - {"user", "password", "client_encoding"}) | {
    "krbsrvname",
    "gssdelegation",
    "gsslib",
    "passfile",
    "service",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslrootcert",
}

# An option with which postgres_fdw logs in by keys of the client's own login, which it alone has.
PASSTHROUGH = "use_scram_passthrough"

# What a user mapping may set, whoever wrote it. Names of certificate files are taken only from
# mappings of postgres_fdw, which lets nobody but superusers write them.
MAPPING_KEYWORDS = frozenset(["user", "password", "password_required"])
CERTIFICATE_KEYWORDS = frozenset(["sslcert", "sslkey", "sslpassword"])

# A dead network is an error within about a minute, and not a wait for ever.
DEFAULTS = {
    "connect_timeout": "30",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

# A file that cannot exist, so that libpq does not look for the operating system user's own.
NO_FILE = "/dev/null/none"

# No pattern may take more than linear time: Python does not look for a cancel while it matches.

# How a remote server may ask for a password, and all that libpq knows.
PASSWORD_METHODS = ("scram-sha-256", "md5", "password")
_METHODS = {*PASSWORD_METHODS, "gss", "sspi", "oauth", "none"}

# What makes the Kerberos ticket of the server's operating system user useless: a remote server
# could pass on the request of another one for it, and be let in there.
NO_KERBEROS = {"gssencmode": "disable", "gssdelegation": "0", "krbsrvname": "pmpp-has-no-ticket"}

_WORD = re.compile(r"\w[\w$-]*")
# A parameter of a connection string, as libpq reads it.
_PARAMETER = re.compile(
    r"\s*([^=\s]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.?)*)", re.ASCII | re.DOTALL
)
_PLAIN_WORD = re.compile(r"[A-Z]?[a-z_]{1,23}|[A-Z_]{1,24}")
# In a value of another parameter: what libpq says of the value, or the remote, would show it.
# Not in the names of settings in `options`, which have a dot.
_PASSWORD = re.compile(r"(?<![\w.])\w*(?:pass(?:word|wd)?|pwd?)\s*=", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"(?:\w+://)?[^:@/=]*:[^@,]*@")
# What PostgreSQL reads as one word of `options`.
_OPTION = re.compile(r"(?:[^\\\s]|\\.?)+", re.ASCII | re.DOTALL)
_PORT = re.compile(r"[\d,\s]*", re.ASCII)
DEFAULT_PORT = "5432"  # libpq's, at another host than this server's

# What pmpp itself reads, and not libpq.
WHICH_SERVERS = ("host", "hostaddr", "port", "load_balance_hosts", "target_session_attrs")

# pmpp tries one host after the other, as libpq does.
MOST_HOSTS = 100


class Address(NamedTuple):
    """Where a server can be reached.

    Attributes:
        host: the directory of its socket, or a TCP address.
        port: its port.
    """

    host: str
    port: str


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
        return f"ForeignServer({self.name!r})"  # options may hold a password


class Target(NamedTuple):
    """Where one item connects to.

    Attributes:
        label: how messages show the connection.
        names: what a limit on connections can call it: the foreign server, and the hosts.
        params: the libpq parameters to connect with. `host`, `hostaddr` and `port` have one entry
            for each server to try, the first two not both empty.
        must_use_password: True if the connection is refused unless the remote asked
            for the password.
        settings: names and values of settings to set once the password has been checked.
    """

    label: str
    names: Sequence[str]
    params: Mapping[str, str]
    must_use_password: bool
    settings: Sequence[tuple[str, str]] = ()

    def __repr__(self) -> str:
        return f"Target({self.label!r})"  # params may hold a password


def from_string(where: str, text: str, caller: Caller) -> Target:
    """Resolve a connection string or URI.

    Args:
        where: which item it belongs to, for messages.
        text: the string.
        caller: who asks.

    Raises:
        PmppError: if it cannot be parsed, or the caller may not use it.
    """
    params = _parse(where, text)
    label = _label(params)
    if not caller.is_superuser:
        for keyword in params:
            names_no_file = (keyword, params[keyword]) == ("sslrootcert", "system")
            if keyword not in ORDINARY_KEYWORDS and not names_no_file:
                raise PmppError(
                    f"{where}: connection parameter {keyword} may only be used by superusers",
                    sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                )
        _require_password(where, label, params)
    return _target(where, label, params, caller, must_use_password=not caller.is_superuser)


def from_server(
    where: str, server: ForeignServer, mapping: Mapping[str, str] | None, caller: Caller
) -> Target:
    """Resolve the name of a foreign server.

    Args:
        where: which item names it, for messages.
        server: the server.
        mapping: the options of the user mapping that applies to the caller, or None.
        caller: who asks.

    Raises:
        PmppError: without USAGE on the server, without a user mapping, and where an ordinary
            user's mapping has no password and need not do without one.
    """
    if not server.has_usage:
        raise PmppError(
            f"{where}: permission denied for foreign server {server.name}",
            sqlstate=errors.INSUFFICIENT_PRIVILEGE,
        )
    if mapping is None:
        raise PmppError(
            f'{where}: no user mapping of server "{server.name}" applies to "{caller.name}"',
            sqlstate=errors.UNDEFINED_OBJECT,
            hint="Use CREATE USER MAPPING to define one.",
        )
    label = f'server "{server.name}"'
    passthrough = mapping.get(PASSTHROUGH, server.options.get(PASSTHROUGH, ""))
    if _is(True, passthrough) and not mapping.get("password"):
        raise PmppError(
            f"{where}: {label} has use_scram_passthrough, which pmpp does not support",
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
    _check_values(where, params)
    may_do_without = server.is_postgres_fdw and _is(False, mapping.get("password_required", ""))
    must_use_password = not (caller.is_superuser or may_do_without)
    if must_use_password:
        _require_password(where, label, params)
    return _target(
        where, label, params, caller, server=server.name, must_use_password=must_use_password
    )


def can_name_server(text: str) -> bool:
    """Return True if a connection may be the name of a foreign server.

    A connection string never is: anyone who may create a server could name it like one, and would
    receive the queries and the password that are meant for another server.
    """
    return "=" not in text and "://" not in text


def unknown_connection(where: str, text: str) -> PmppError:
    """Return the error for a text that is neither a server's name nor a connection string."""
    shown = f' "{text}"' if _WORD.fullmatch(text) else ""
    return PmppError(
        f"{where}: connection{shown} is neither a foreign server nor a valid connection string",
        sqlstate=errors.INVALID_PARAMETER_VALUE,
        hint="Write a connection string such as 'host=example.com dbname=shop', a URI such as "
        "'postgresql://example.com/shop', or the name of a foreign server.",
    )


def _parse(where: str, text: str) -> dict[str, str]:
    if _is_misread_uri(text):
        raise PmppError(
            f"{where}: connection is a URI with an @ where none can be",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
            hint="In the names and the password in a URI, write @ as %40 and / as %2F.",
        )
    try:
        options = Conninfo.parse(text.encode())
        params = {o.keyword.decode(): o.val.decode() for o in options if o.val is not None}
    except (OperationalError, UnicodeDecodeError):
        # libpq's message quotes the string, which may hold a password.
        if keyword := _unknown_keyword(text):
            raise PmppError(
                f'{where}: unknown connection parameter "{keyword}"',
                sqlstate=errors.INVALID_PARAMETER_VALUE,
                hint="Use the names of libpq, such as host, port, dbname, user and password.",
            ) from None
        raise unknown_connection(where, text) from None
    _check_values(where, params)
    return params


def _unknown_keyword(text: str) -> str | None:
    """Return the first keyword that libpq does not know.

    None if it could be a part of a password: if it is not a plain word, if it has no value, and if
    a password could have begun before it.
    """
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    position = 0
    while parameter := _PARAMETER.match(text, position):
        position = parameter.end()
        keyword, value = parameter.groups()
        if keyword not in known:
            is_plain = _PLAIN_WORD.fullmatch(keyword) and value and not value.startswith("=")
            return keyword if is_plain else None
        if keyword in ("password", "sslpassword") or re.search("[:;@?|]", value):
            return None
    return None


def _check_values(where: str, params: Mapping[str, str]) -> None:
    """Raise a PmppError if a value cannot be used or shown."""
    if any(params.get(keyword, "").count(",") >= MOST_HOSTS for keyword in ("host", "hostaddr")):
        raise PmppError(
            f"{where}: connection has more than {MOST_HOSTS} hosts",
            sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
        )
    for keyword, value in params.items():
        if _may_show_password(keyword, value):
            raise PmppError(
                f"{where}: connection parameter {keyword} seems to contain a password",
                sqlstate=errors.INVALID_PARAMETER_VALUE,
                hint="In a connection string, parameters are separated by spaces.",
            )
    if not _PORT.fullmatch(params.get("port", "")):
        raise _invalid_port(where)


def _invalid_port(where: str) -> PmppError:
    return PmppError(
        f"{where}: port must be a number, or one for each host",
        sqlstate=errors.INVALID_PARAMETER_VALUE,
    )


def _is_misread_uri(text: str) -> bool:
    """Return True if libpq would take a part of the password in a URI for a host."""
    scheme, _, rest = text.partition("://")
    if scheme not in ("postgres", "postgresql"):
        return False
    authority, _, path = rest.partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in path


def _may_show_password(keyword: str, value: str) -> bool:
    """Return True if a parameter's value looks as if a password had become a part of it."""
    if keyword in ("password", "sslpassword"):
        return False
    is_place = keyword in ("host", "hostaddr", "dbname")
    return bool(_PASSWORD.search(value) or (is_place and _USER_AND_PASSWORD.match(value)))


def _require_password(where: str, label: str, params: Mapping[str, str]) -> None:
    if not params.get("password"):
        raise PmppError(
            f"{where}: a password is required to connect to {label}",
            sqlstate=errors.PROHIBITED_STATEMENT,
            detail="Users who are not superusers must give a password in the connection string "
            "or in the user mapping.",
        )


def _target(
    where: str,
    label: str,
    params: Mapping[str, str],
    caller: Caller,
    *,
    server: str | None = None,
    must_use_password: bool,
) -> Target:
    application_name = f"pmpp {caller.pid} {where}"
    full = {
        **DEFAULTS, "application_name": application_name, **_of_service(params), **params,
    }  # fmt: skip
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", full["connect_timeout"], re.ASCII):
        raise PmppError(
            f"{where}: connect_timeout must be an integer, not {full['connect_timeout']}",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    full.update(_servers_to_try(where, full, caller.server))
    full["client_encoding"] = "UTF8"
    # An empty value is to libpq as none.
    if not (caller.is_superuser or full.get("user")):
        full["user"] = caller.name
    settings: Sequence[tuple[str, str]] = ()
    if must_use_password:
        settings = _settings(where, full.get("options", ""))
        full["options"] = ""  # not those of PGOPTIONS
        if full.get("gssencmode") == "require":
            raise PmppError(
                f"{where}: gssencmode=require may not be used by users who must use a password",
                sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                hint="Use TLS: sslmode=require.",
            )
        full["sslcert"] = full.get("sslcert") or NO_FILE
        full["sslkey"] = full.get("sslkey") or NO_FILE
        full.update(NO_KERBEROS)
        full["require_auth"] = _password_methods(where, full.get("require_auth", ""))
    hosts = f"{full['host']},{full['hostaddr']}".split(",")
    names = [name for name in (server, *hosts) if name]
    return Target(label, names, full, must_use_password, settings)


def _servers_to_try(where: str, params: Mapping[str, str], local: Address) -> dict[str, str]:
    """Return `host`, `hostaddr` and `port`, with an entry for each server that may be tried.

    Where no host is named it is the local server. So nothing is left to the environment variables
    PGHOST, PGHOSTADDR and PGPORT of the local server.

    Args:
        where: which item they belong to, for messages.
        params: the parameters that the connection has.
        local: the local server.

    Raises:
        PmppError: if the numbers of hosts, addresses and ports differ.
    """
    names, addresses, ports = (
        params[keyword].split(",") if params.get(keyword) else []
        for keyword in ("host", "hostaddr", "port")
    )
    count = len(addresses or names) or 1
    if len(names) not in (0, count):
        raise PmppError(
            f"{where}: host and hostaddr must have the same number of entries",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    if len(ports) not in (0, 1, count):
        raise _invalid_port(where)
    servers: dict[str, list[str]] = {"host": [], "hostaddr": [], "port": []}
    for name, address, port in zip(
        names or [""] * count,
        addresses or [""] * count,
        ports * count if len(ports) == 1 else ports or [""] * count,
        strict=True,
    ):
        is_local = not (name or address)
        servers["host"].append(local.host if is_local else name)
        servers["hostaddr"].append(address)
        servers["port"].append(port.strip() or (local.port if is_local else DEFAULT_PORT))
    return {keyword: ",".join(entries) for keyword, entries in servers.items()}


def _of_service(params: Mapping[str, str]) -> dict[str, str]:
    """Return which servers to try according to the service that a connection names.

    libpq reads the service only when it connects, and tells then what it has read. It does not
    connect with this value of sslmode.
    """
    named = {key: params[key] for key in ("service", "servicefile") if params.get(key)}
    if "service" not in named:
        return {}
    pgconn = PGconn.connect_start(make_conninfo("", **named, sslmode="none").encode())
    told = {o.keyword.decode(): o.val.decode() for o in pgconn.info if o.val is not None}
    pgconn.finish()
    found = {key: told[key] for key in WHICH_SERVERS if told.get(key)}
    if not (found.get("host") or found.get("hostaddr")) and found.get("port") == DEFAULT_PORT:
        del found["port"]  # libpq tells its default too
    return found


def _password_methods(where: str, require_auth: str) -> str:
    """Return the value of require_auth that leaves of the caller's only asking for a password.

    Args:
        where: which item it belongs to, for messages.
        require_auth: the caller's value, as libpq has it, or an empty string.
    """
    methods = require_auth.split(",") if require_auth else []
    forbidden = [method[1:] for method in methods if method.startswith("!")]
    wanted = forbidden or methods or PASSWORD_METHODS
    left = [method for method in PASSWORD_METHODS if (method in wanted) != bool(forbidden)]
    if not _METHODS.issuperset(wanted) or len(forbidden) not in (0, len(methods)) or not left:
        raise PmppError(
            f"{where}: require_auth must permit a method that asks for the password",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
            hint=f"The methods are {', '.join(PASSWORD_METHODS)}.",
        )
    return ",".join(left)


def _settings(where: str, options: str) -> list[tuple[str, str]]:
    """Return the names and values of the settings in `options`.

    PostgreSQL acts on `options` before it asks for a password. A server that trusts the server's
    account would load files of the caller's choice (session_preload_libraries).

    Args:
        where: which item it belongs to, for messages.
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
                f"{where}: connection parameter options may only contain -c name=value",
                sqlstate=errors.INSUFFICIENT_PRIVILEGE,
                detail="Only superusers may use other switches of the PostgreSQL server.",
            )
        name = name.replace("-", "_")  # as PostgreSQL does
        if name.lower() != "client_encoding":
            settings.append((name, value))
    return settings


def _label(params: Mapping[str, str]) -> str:
    """Show where a string leads to, by those of its parts that cannot hold a secret."""
    shown = {
        keyword: params[keyword]
        for keyword in ("service", "host", "hostaddr", "port", "dbname")
        if params.get(keyword) and not re.search(r"[=@]", params[keyword])
    }
    if shown:
        return make_conninfo("", **shown)
    return "a host" if params.get("host") or params.get("hostaddr") else "this server"


def _is(wanted: bool, value: str) -> bool:
    """Read a boolean as PostgreSQL does: words in any case, shortened as long as they are clear."""
    text = value.strip().lower()
    shortest = (
        {"true": "t", "yes": "y", "on": "on", "1": "1"}
        if wanted
        else {"false": "f", "no": "n", "off": "of", "0": "0"}
    )
    return any(text.startswith(s) and word.startswith(text) for word, s in shortest.items())
