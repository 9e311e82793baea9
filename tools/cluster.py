#!/usr/bin/env python3
"""Make a PostgreSQL server for a while, in a temporary directory and on a free port.

    tools/cluster.py [--keep | --kept] PG_CONFIG -- COMMAND...

runs a command with PGHOST, PGPORT, PGUSER and PG_CONFIG set, then removes the server again, also
when interrupted. PostgreSQL refuses to run as root: there the server belongs to the user postgres.

    tools/cluster.py --start PG_CONFIG
    tools/cluster.py --stop

starts and removes the server that stays for the tests. They use it, and so does --kept, if it is of
the PostgreSQL that they test; else they make one.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from installation import TOP

SERVER_USER = "postgres"

# This file names the server that stays for the tests. Each program that uses the server locks it.
KEPT = TOP / "build" / "server"

# The server trusts everyone on Unix sockets, and requires a password on the network.
HBA = """
local all,replication all trust
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""

SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "400",
    "shared_buffers": "128MB",
    # A query without end must not fill the disk of the machine.
    "temp_file_limit": "1GB",
}


# Makes a server as it was when it was new, but for what PostgreSQL counts on, such as OIDs.
EMPTY = r"""
select format('alter database %I is_template false', datname)
  from pg_database where datname !~ '^template[01]$' \gexec
select format('drop database %I with (force)', datname)
  from pg_database where datname !~ '^template[01]$' \gexec
select format('drop owned by %I; drop role %1$I', rolname)
  from pg_roles where rolname !~ '^(pg_|postgres$)' \gexec
create database postgres template template0;
alter system reset all;
select pg_reload_conf();
"""


class Cluster:
    """A throwaway server.

    Args:
        pg_config: the program of that name of the PostgreSQL to use.
        bindir: the directory of the server's programs, where there is no pg_config.
        settings: parameters of the server, besides SETTINGS.
        hba: lines to put before those of HBA.
        environment: variables of the server process, which has few of its own.
        entering: the command that enters the namespaces that the server is in, if they are not
            the machine's own.
        directory: where the server is that runs already.
        port: its port.
    """

    def __init__(
        self,
        pg_config: str = "pg_config",
        settings: Mapping[str, str] | None = None,
        hba: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        bindir: Path | None = None,
        entering: Sequence[str] = (),
        directory: Path | None = None,
        port: int | None = None,
    ) -> None:
        self.bindir = bindir or _bindir(pg_config)
        self.port = port or free_port()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="pmpp-"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._hba = [*hba, HBA]
        self._entering = entering
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            **(environment or {}),
        }

    @property
    def host(self) -> str:
        """The directory of the Unix socket."""
        return str(self.directory)

    def start(self) -> None:
        """Create the server's files and start it."""
        self._give_to_server_user()
        self._run("initdb", "--pgdata", str(self.data), "--username=postgres", "--auth=trust",
                  "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        (self.data / "pg_hba.conf").write_text("\n".join(self._hba))
        self._configure()
        self.control("start")

    def copy(self, primary: Cluster) -> None:
        """Start as a standby of another server instead."""
        self._give_to_server_user()
        self._run("pg_basebackup", "--pgdata", str(self.data), "--write-recovery-conf",
                  "--checkpoint=fast", "--host", primary.host, "--port", str(primary.port),
                  "--username=postgres", "--no-sync")  # fmt: skip
        self._configure()
        self.control("start")

    def control(self, action: str, *options: str) -> None:
        """Run pg_ctl: start, stop, restart."""
        self._run("pg_ctl", action, "--pgdata", str(self.data), "--log", str(self.log),
                  "--wait", *options)  # fmt: skip

    def is_running(self) -> bool:
        """Return True if the server accepts connections."""
        command = [str(self.bindir / "pg_isready"), "--quiet", f"--dbname={self.superuser()}"]
        return subprocess.run(command, check=False).returncode == 0

    def empty(self) -> None:
        """Remove all databases, roles and settings that were added, and what is in the log."""
        command = [str(self.bindir / "psql"), "-Xqo/dev/null", "--set=ON_ERROR_STOP=1"]
        subprocess.run([*command, self.superuser("template1")], input=EMPTY, text=True, check=True)
        os.truncate(self.log, 0)

    def remove(self) -> None:
        """Stop the server and remove its files."""
        if (self.data / "postmaster.pid").exists():
            self.control("stop", "--mode=immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return variables with which libpq finds the server."""
        return {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": "postgres"}

    def superuser(self, dbname: str = "postgres") -> str:
        """Return a connection string for a database, as superuser and by the socket."""
        return f"host={self.host} port={self.port} user=postgres dbname={dbname}"

    def read_log(self) -> str:
        """Return what the server has logged. Not all of it need be valid text."""
        return self.log.read_text(errors="replace")

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _give_to_server_user(self) -> None:
        if os.getuid() == 0:
            shutil.chown(self.directory, SERVER_USER)
        os.chmod(self.directory, 0o755)

    def _configure(self) -> None:
        settings = {
            **self._settings,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        command = _as_server_user([str(self.bindir / program), *arguments], self._entering)
        # The server would inherit a pipe and keep it open, so this is a file.
        with (self.directory / "output").open("w+") as file:
            done = subprocess.run(
                command,
                check=False,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            file.seek(0)
            output = file.read()
        if done.returncode:
            log = self.read_log() if self.log.exists() else ""
            raise RuntimeError(f"{program} failed:\n{output}{log[-2000:]}")


@contextmanager
def server_for_tests(pg_config: str) -> Iterator[Cluster]:
    """The server that stays for the tests, empty, if it fits and nobody uses it; else a new one."""
    with ExitStack() as stack:
        cluster = None
        if KEPT.exists():
            file = stack.enter_context(KEPT.open())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cluster = _kept(pg_config)
            except BlockingIOError:
                print(f"another program uses the server of {KEPT}: making one", file=sys.stderr)
        if cluster:
            cluster.empty()
        yield cluster or stack.enter_context(Cluster(pg_config))


def _kept(pg_config: str | None = None) -> Cluster | None:
    """Return the server that stays for the tests, if it runs and is as one made now would be."""
    if not KEPT.exists():
        return None
    kept = json.loads(KEPT.read_text())
    bindir = Path(kept["bindir"])
    if pg_config and (bindir, kept["settings"]) != (_bindir(pg_config), SETTINGS):
        return None
    cluster = Cluster(bindir=bindir, directory=Path(kept["directory"]), port=kept["port"])
    return cluster if cluster.is_running() else None


def _start(pg_config: str) -> None:
    cluster = _kept(pg_config)
    if not cluster:
        _stop()
        cluster = Cluster(pg_config)
        cluster.start()
        kept = {
            "bindir": str(cluster.bindir),
            "settings": SETTINGS,
            "directory": str(cluster.directory),
            "port": cluster.port,
        }
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(kept))
    print(f"the tests use this server: psql -h {cluster.host} -p {cluster.port} -U postgres")


def _stop() -> None:
    if cluster := _kept():
        cluster.remove()
    KEPT.unlink(missing_ok=True)


def _as_server_user(command: list[str], entering: Sequence[str] = ()) -> list[str]:
    """Return what runs a command as the user of the server, who as root is not the current one.

    Another command may enter namespaces before that, which only root can do.
    """
    is_root = os.getuid() == 0
    if is_root or entering:
        user = SERVER_USER if is_root else getpass.getuser()
        command = [*entering, "runuser", "-u", user, "--", *command]
    return command if is_root or not entering else ["sudo", *command]


def _bindir(pg_config: str) -> Path:
    return Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())


def free_port() -> int:
    """Return a TCP port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main(arguments: Sequence[str]) -> int:
    """Run a command beside a server; return its exit status."""
    if arguments[:1] == ["--start"]:
        _start(*arguments[1:])
        return 0
    if arguments == ["--stop"]:
        _stop()
        return 0
    options, command = _split(arguments)
    (pg_config,) = [option for option in options if option[:2] != "--"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        if "--kept" in options:
            with server_for_tests(pg_config) as cluster:
                return _run_beside(cluster, pg_config, command)
        cluster = Cluster(pg_config)
        try:
            cluster.start()
            return _run_beside(cluster, pg_config, command)
        finally:
            _leave(cluster, keep="--keep" in options)
    except KeyboardInterrupt:
        return 130


def _run_beside(cluster: Cluster, pg_config: str, command: Sequence[str]) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    environment |= {**cluster.environment(), "PG_CONFIG": pg_config}
    return subprocess.run(command, env=environment, check=False).returncode


def _leave(cluster: Cluster, *, keep: bool) -> None:
    if not keep:
        cluster.remove()
        return
    print(f"the server keeps running: psql -h {cluster.host} -p {cluster.port} -U postgres")
    stop = shlex.join(_as_server_user([f"{cluster.bindir}/pg_ctl", "stop"]))
    print(f"to remove it: {stop} -D {cluster.data}; rm -rf {cluster.directory}")


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in arguments:
        sys.exit(__doc__)
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
