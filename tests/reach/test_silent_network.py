"""If a network loses every packet, the bounds in the connection string end the call."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NoReturn

import psycopg
import pytest
from cluster import Cluster
from helpers import PG_CONFIG, create_pmpp, eventually
from psycopg import errors, sql

CALL = "select * from pmpp.distribute(null::text, %s, %s, num_workers => %s)"
SLEEP = "select 'x' from pg_sleep(1000)"
# These addresses are reserved for documentation.
ADDRESSES = ("198.51.100.1", "198.51.100.2")
# No network card has this address.
NOBODY = "02:00:00:00:00:99"

SUDO = [] if os.getuid() == 0 else ["sudo"]


def ip(*arguments: str, within: str | None = None) -> None:
    """Run the program that configures networks, in a namespace if one is named.

    nsenter enters it, and not `ip -n`, which needs a root directory that is a mount point.
    """
    entering = ["nsenter", f"--net=/run/netns/{within}"] if within else []
    command = [*SUDO, *entering, "ip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as ex:
        cannot(str(ex))
    if "Operation not permitted" in done.stderr:
        cannot(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def cannot(reason: str) -> NoReturn:
    """Fail where networks cannot be made."""
    how = "tests/README.md says how to leave these tests out"
    pytest.fail(f"networks cannot be made here: {reason}; {how}", pytrace=False)


@dataclass
class Network:
    """Two namespaces with a cable between them, apart from the network of the machine.

    Attributes:
        caller: the server that calls, in the first.
        remote: the server that is called, in the second.
    """

    names: tuple[str, str]
    caller: Cluster
    remote: Cluster

    def at(self, **params: object) -> str:
        """A connection string that leads from one to the other."""
        there = {"host": ADDRESSES[1], "port": self.remote.port, "user": "postgres",
                 "dbname": "postgres", **params}  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in there.items())

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Lose what the caller sends, and tell nobody."""
        self._send_to(NOBODY)
        try:
            yield
        finally:
            self._send_to(None)

    def _send_to(self, card: str | None) -> None:
        change = ("replace", ADDRESSES[1], "lladdr", card) if card else ("del", ADDRESSES[1])
        ip("neigh", *change, "dev", "cable", within=self.names[0])


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """The two servers."""
    names = (f"pmpp{os.getpid()}a", f"pmpp{os.getpid()}b")
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1],
           within=names[0])  # fmt: skip
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("address", "add", f"{address}/30", "dev", "cable", within=name)
            ip("link", "set", "cable", "up", within=name)
            ip("link", "set", "lo", "up", within=name)
        caller, remote = (
            stack.enter_context(
                Cluster(
                    PG_CONFIG,
                    settings={"listen_addresses": address},
                    hba=[f"host all all {ADDRESSES[0]}/32 trust"],
                    entering=["nsenter", f"--net=/run/netns/{name}"],
                )
            )
            for name, address in zip(names, ADDRESSES, strict=True)
        )
        create_pmpp(caller)
        yield Network(names, caller, remote)


@pytest.fixture
def session(network: Network) -> Iterator[psycopg.Connection]:
    """A session on the server that calls; without the bounds its calls would not end in time."""
    with psycopg.connect(network.caller.superuser(), autocommit=True) as conn:
        conn.execute("set statement_timeout to '20s'")
        yield conn


@contextmanager
def running(
    network: Network, session: psycopg.Connection, connection: str, queries: list[str], workers: int
) -> Iterator[Future[psycopg.Cursor]]:
    """A call whose first query has come to the remote server."""
    started = f"exists (select from pg_stat_activity where query = {sql.quote(queries[0])})"
    with ThreadPoolExecutor() as pool:
        call = pool.submit(session.execute, CALL, [connection, queries, workers])
        eventually(network.remote, started)
        try:
            yield call
        finally:
            # The remote server does not know yet that its callers are gone.
            with psycopg.connect(network.remote.superuser(), autocommit=True) as conn:
                conn.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                    "where application_name like 'pmpp %'"
                )


@pytest.mark.parametrize(
    "bounds",
    [
        {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2, "tcp_user_timeout": 0},
        {"keepalives_idle": 1, "keepalives_interval": 1, "tcp_user_timeout": 2000},
    ],
    ids=["keepalives", "tcp_user_timeout"],
)  # fmt: skip
def test_waiting(network: Network, session: psycopg.Connection, bounds: dict[str, object]) -> None:
    """A call that only waits for an answer ends, though it has nothing to send."""
    with (
        running(network, session, network.at(**bounds), [SLEEP, SLEEP], 2) as call,
        network.silent(),
        pytest.raises(errors.ConnectionFailure, match="lost the connection") as raised,
    ):
        call.result()
    assert "Connection timed out" in str(raised.value.diag.message_detail)
    assert "of item 1 on host=198.51.100.2" in str(raised.value.diag.message_detail)


def test_sending(network: Network, session: psycopg.Connection) -> None:
    """A call that has a query to send ends long before keepalives would end it."""
    connection = network.at(tcp_user_timeout=2000)
    wait = "select 'x' from pg_advisory_lock(1)"
    long = f"select 'x' where 'x' <> '{'y' * 10_000_000}'"
    with psycopg.connect(network.remote.superuser(), autocommit=True) as lock:
        lock.execute("select pg_advisory_lock(1)")
        with running(network, session, connection, [wait, long], 1) as call, network.silent():
            lock.execute("select pg_advisory_unlock(1)")
            with pytest.raises(errors.ConnectionFailure, match="lost the connection") as raised:
                call.result()
    assert "Query 2 of item 1" in str(raised.value.diag.message_detail)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"connect_timeout": 2}, "198.51.100.2 did not answer within 2 s"),
        ({"tcp_user_timeout": 1000}, "Connection timed out"),
    ],
    ids=["connect_timeout", "tcp_user_timeout"],
)
def test_connecting(
    network: Network, session: psycopg.Connection, bounds: dict[str, object], reason: str
) -> None:
    """A call to a server that cannot be reached ends, and says why."""
    with network.silent(), pytest.raises(psycopg.OperationalError) as raised:
        session.execute(CALL, [network.at(**bounds), ["select 'x'"], 1])
    assert raised.value.sqlstate == "08001"
    assert reason in str(raised.value.diag.message_detail)


def test_cancel(network: Network, session: psycopg.Connection) -> None:
    """A call can be cancelled though no cancel request comes through."""
    with running(network, session, network.at(), [SLEEP, SLEEP], 2) as call, network.silent():
        session.cancel()
        with pytest.raises(errors.QueryCanceled, match="user request"):
            call.result()
