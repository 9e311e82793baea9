"""Files that a server reads: directories that its account may enter, certificates, passwords."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import SERVER_USER
from helpers import PASSWORD


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A temporary directory that belongs to the user of the servers."""
    directory = Path(tempfile.mkdtemp(prefix="pmpp-"))
    try:
        directory.chmod(0o755)
        _give_to_server(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def certificates(directory: Path) -> dict[str, str]:
    """Make two authorities, and certificates that one of them has signed.

    The files are authority.crt, stranger.crt, server.crt with server.key, which is for localhost,
    127.0.0.1 and ::1, and client.crt with client.key, which is for the role admin.

    Returns:
        The settings with which a server uses its certificate.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("authority", "stranger"):
        # Python 3.13 and later demand that a certificate says what its key is for.
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "9",
                "-addext", "keyUsage=critical,keyCertSign",
                "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    for name, subject in (
        ("server", ["/CN=localhost", "-addext", names]),
        ("client", ["/CN=admin"]),
    ):
        openssl("req", *key, "-subj", *subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "authority.crt", "-CAkey", "authority.key",
                "-days", "9", "-copy_extensions", "copy", "-out", f"{name}.crt")  # fmt: skip
    for file in directory.iterdir():
        _give_to_server(file)
    return {
        "ssl": "on",
        "ssl_cert_file": str(directory / "server.crt"),
        "ssl_key_file": str(directory / "server.key"),
    }


def password_file(directory: Path) -> Path:
    """Write a password file of a server's account that has PASSWORD for every role."""
    file = directory / "pgpass"
    file.write_text(f"*:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    _give_to_server(file)
    return file


def _give_to_server(path: Path) -> None:
    if os.getuid() == 0:
        shutil.chown(path, SERVER_USER)
