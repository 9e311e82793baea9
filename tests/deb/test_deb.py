"""The Debian package, installed by dpkg below a directory that has nothing but PostgreSQL."""

from __future__ import annotations

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
        root.chmod(0o755)  # the server is another user's
        installation = Installation(PG_CONFIG, root / "usr")
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/updates").mkdir()
        (root / "var/lib/dpkg/status").touch()

        def dpkg(*arguments: str | Path) -> None:
            # what it depends on is in the system, and not in this directory
            run("dpkg", "--force-depends", "--force-not-root", f"--root={root}", *arguments)

        before = installation.files().keys()
        dpkg("--install", package)
        assert installation.files().keys() > before
        (copyright_file,) = (root / "usr/share/doc").glob("*/copyright")
        assert 'HEREUNDER IS ON AN "AS IS" BASIS' in copyright_file.read_text()
        with Cluster(installation.pg_config) as server:
            run("make", "installcheck", f"PG_CONFIG={installation.pg_config}", environment=server.environment())  # fmt: skip
        dpkg("--purge", package.name.partition("_")[0])
        assert installation.files().keys() == before
