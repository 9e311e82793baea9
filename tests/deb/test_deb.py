"""The Debian package, installed by dpkg below a directory that has nothing but PostgreSQL."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import tempfile
from pathlib import Path

from cluster import Cluster
from helpers import PG_CONFIG
from installation import TOP, Installation, ask, run


def test_package() -> None:
    """It installs, passes the regression tests, and is removed without a trace."""
    major = ask(PG_CONFIG, "--version").split()[1].partition(".")[0]
    (package,) = (TOP / "build").glob(f"postgresql-{major}-pmpp_*.deb")
    with tempfile.TemporaryDirectory(prefix="pmpp-deb-") as name:
        root = Path(name)
        # The account of the server is another one.
        root.chmod(0o755)
        installation = Installation(PG_CONFIG, root / "usr")
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/updates").mkdir()
        (root / "var/lib/dpkg/status").touch()

        def dpkg(*arguments: str | Path) -> None:
            # The packages that it depends on are in the system, and not in this directory.
            run("dpkg", "--force-depends", "--force-not-root", f"--root={root}", *arguments)

        before = installation.files().keys()
        dpkg("--install", package)
        assert installation.files().keys() > before
        depends = run("dpkg-deb", "--field", package, "Depends")
        records = list(installation.pkglibdir.glob("pmpp/*/psycopg_binary-*.dist-info/RECORD"))
        if records:
            assert "libpq5" not in depends
            assert changed_libraries(records[0]) == []
        else:
            (needed,) = re.findall(r"libpq5 \(>= (\d+)", depends)
            assert int(needed) >= 17
        (copyright_file,) = (root / "usr/share/doc").glob("*/copyright")
        assert 'HEREUNDER IS ON AN "AS IS" BASIS' in copyright_file.read_text()
        with Cluster(installation.pg_config) as server:
            run("make", "installcheck", f"PG_CONFIG={installation.pg_config}", environment=server.environment())  # fmt: skip
        dpkg("--purge", package.name.partition("_")[0])
        assert installation.files().keys() == before


def changed_libraries(record: Path) -> list[str]:
    """Return which libraries of a wheel are not as its RECORD says, or are missing."""
    changed = []
    libraries = 0
    for name, expected, _ in csv.reader(record.read_text().splitlines()):
        if ".so" in name:
            libraries += 1
            file = record.parents[1] / name
            digest = hashlib.sha256(file.read_bytes()).digest() if file.exists() else b""
            actual = "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if actual != expected:
                changed.append(name)
    assert libraries > 2
    return changed
