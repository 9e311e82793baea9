"""Connection strings: parsing them, and finding the servers that they lead to.

A connection string is parsed once. What was parsed is checked (`policy`), and pmpp connects with
exactly that. No message of this module shows a connection string or a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from psycopg import OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo, PGconn

from .. import errors
from ..core.target import Address
from ..errors import PmppError

# A dead network is an error within about a minute, and not a wait for ever.
DEFAULTS = {
    "connect_timeout": "30",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# libpq's own. It is used for other hosts than this server's.
DEFAULT_PORT = "5432"

# What pmpp itself reads, and not libpq.
WHICH_SERVERS = ("host", "hostaddr", "port", "load_balance_hosts", "target_session_attrs")

# pmpp tries one host after the other, as libpq does.
MOST_HOSTS = 100
_WORD = re.compile(r"\w[\w$-]*")

# A parameter of a connection string, as libpq reads it.
_PARAMETER = re.compile(
    r"\s*([^=\s]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.?)*)", re.ASCII | re.DOTALL
)
_PLAIN_WORD = re.compile(r"[A-Z]?[a-z_]{1,23}|[A-Z_]{1,24}")

# A password in the value of another parameter, which messages of libpq or the remote server would
# show. Names of settings in `options` have a dot, and are none.
_PASSWORD = re.compile(r"(?<![\w.])\w*(?:pass(?:word|wd)?|pwd?)\s*=", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"(?:\w+://)?[^:@/=]*:[^@,]*@")
_PORT = re.compile(r"[\d,\s]*", re.ASCII)


def can_name_server(text: str) -> bool:
    """Return True if a connection may be the name of a foreign server.

    A connection string never is: anyone who may create a server could name it like one, and would
    receive the queries and the password that are meant for another server.
    """
    return "=" not in text and "://" not in text


def parse(item_name: str, text: str) -> dict[str, str]:
    if _is_misread_uri(text):
        raise PmppError(
            f"{item_name}: connection is a URI with an @ where none can be",
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
                f'{item_name}: unknown connection parameter "{keyword}"',
                sqlstate=errors.INVALID_PARAMETER_VALUE,
                hint="Use the names of libpq, such as host, port, dbname, user and password.",
            ) from None
        raise unknown_connection(item_name, text) from None
    check_values(item_name, params)
    return params


def display_name(params: Mapping[str, str]) -> str:
    """Show where a string leads to, by those of its parts that cannot hold a secret."""
    shown = {
        keyword: params[keyword]
        for keyword in ("service", "host", "hostaddr", "port", "dbname")
        if params.get(keyword) and not re.search(r"[=@]", params[keyword])
    }
    if shown:
        return make_conninfo("", **shown)
    return "a host" if params.get("host") or params.get("hostaddr") else "this server"


def unknown_connection(item_name: str, text: str) -> PmppError:
    """Return the error for a text that is neither a server's name nor a connection string."""
    shown = f' "{text}"' if _WORD.fullmatch(text) else ""
    return PmppError(
        f"{item_name}: connection{shown} is neither a foreign server nor a valid connection string",
        sqlstate=errors.INVALID_PARAMETER_VALUE,
        hint="Write a connection string such as 'host=example.com dbname=shop', a URI such as "
        "'postgresql://example.com/shop', or the name of a foreign server.",
    )


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


def check_values(item_name: str, params: Mapping[str, str]) -> None:
    """Raise a PmppError if a value cannot be used or shown."""
    if any(params.get(keyword, "").count(",") >= MOST_HOSTS for keyword in ("host", "hostaddr")):
        raise PmppError(
            f"{item_name}: connection has more than {MOST_HOSTS} hosts",
            sqlstate=errors.PROGRAM_LIMIT_EXCEEDED,
        )
    for keyword, value in params.items():
        if _may_show_password(keyword, value):
            raise PmppError(
                f"{item_name}: connection parameter {keyword} seems to contain a password",
                sqlstate=errors.INVALID_PARAMETER_VALUE,
                hint="In a connection string, parameters are separated by spaces.",
            )
    if not _PORT.fullmatch(params.get("port", "")):
        raise _invalid_port(item_name)


def _invalid_port(item_name: str) -> PmppError:
    return PmppError(
        f"{item_name}: port must be a number, or one for each host",
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


def addresses_to_try(item_name: str, params: Mapping[str, str], local: Address) -> dict[str, str]:
    """Return `host`, `hostaddr` and `port`, with an entry for each server that may be tried.

    Where no host is named it is the local server. So nothing is left to the environment variables
    PGHOST, PGHOSTADDR and PGPORT of the local server.

    Args:
        item_name: which item they belong to, for messages.
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
            f"{item_name}: host and hostaddr must have the same number of entries",
            sqlstate=errors.INVALID_PARAMETER_VALUE,
        )
    if len(ports) not in (0, 1, count):
        raise _invalid_port(item_name)
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


def of_service(params: Mapping[str, str]) -> dict[str, str]:
    """Return which servers to try according to the service that a connection names.

    libpq reads the service only when it connects, and reports then what it has read. It does not
    connect with this value of sslmode.
    """
    named = {key: params[key] for key in ("service", "servicefile") if params.get(key)}
    if "service" not in named:
        return {}
    pgconn = PGconn.connect_start(make_conninfo("", **named, sslmode="none").encode())
    reported = {o.keyword.decode(): o.val.decode() for o in pgconn.info if o.val is not None}
    pgconn.finish()
    found = {key: reported[key] for key in WHICH_SERVERS if reported.get(key)}
    if not (found.get("host") or found.get("hostaddr")) and found.get("port") == DEFAULT_PORT:
        # libpq reports its default as if the service had it.
        del found["port"]
    return found
