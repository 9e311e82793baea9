"""Where a connection leads: the addresses of a remote server and the parameters to connect with."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

# The application_name of a worker connection. The view pmpp.activity reads it too.
_WORKER_NAME = re.compile(r"pmpp (\d{1,9}) item \d{1,9}", re.ASCII)

# The most bytes in the name of a socket. The operating system accepts no longer ones.
LONGEST_SOCKET_NAME = 108


class Address(NamedTuple):
    """Where a server can be reached.

    Attributes:
        host: the directory of its socket, or a TCP address.
        port: its port.
    """

    host: str
    port: str


class Target(NamedTuple):
    """The remote server of an item, and how to connect to it.

    Attributes:
        display_name: how messages show the connection.
        params: the libpq parameters to connect with. `host`, `hostaddr` and `port` have one entry
            for each address to try. An entry of `host` or of `hostaddr` may be empty, not both.
        must_use_password: True if pmpp refuses the connection unless the remote server asked for
            the password.
        settings: names and values of settings to set once the password has been checked.
        server: the name of the foreign server, or None.
    """

    display_name: str
    params: Mapping[str, str]
    must_use_password: bool
    settings: Sequence[tuple[str, str]] = ()
    server: str | None = None

    def __repr__(self) -> str:
        # The parameters may contain a password.
        return f"Target({self.display_name!r})"

    @property
    def hosts(self) -> list[str]:
        """Every host and address that libpq may connect to."""
        return [
            host for host in f"{self.params['host']},{self.params['hostaddr']}".split(",") if host
        ]


def worker_name(caller_pid: int, item_name: str) -> str:
    """Return the application_name of the worker connections of an item."""
    return f"pmpp {caller_pid} {item_name}"


def caller_of(application_name: str) -> int | None:
    """Return the process id of the session that a worker connection works for, if it is one."""
    match = _WORKER_NAME.fullmatch(application_name)
    return int(match[1]) if match else None


def addresses(host: str, flags: int = 0) -> list[str]:
    """Return the addresses of a host.

    Args:
        host: a name or a numeric address.
        flags: those of getaddrinfo().

    Raises:
        OSError: if it has none.
    """
    # Python would encode a text as an internationalized name.
    found = socket.getaddrinfo(
        host.encode(), None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def numeric_address(host: str) -> str | None:
    """Return a numeric address in the usual form, None if the host is not one."""
    try:
        return addresses(host, socket.AI_NUMERICHOST)[0]
    except OSError:
        return None


def is_name(host: str) -> bool:
    """Return True if a host is neither the directory of a socket nor a numeric address."""
    return not host.startswith(("/", "@")) and numeric_address(host) is None


def normalized(host: str) -> str:
    """Return the one spelling of all texts that lead to the same host."""
    if host.startswith("/"):
        return os.path.realpath(host) if len(host) < LONGEST_SOCKET_NAME else host
    address = numeric_address(host)
    if address is None:
        return host if host.startswith("@") else host.lower().rstrip(".")
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    # A connection to address zero reaches the local machine.
    return str(ip) if int(ip) else ("127.0.0.1" if ip.version == 4 else "::1")
