"""make install puts files where PostgreSQL finds them, and calls leave the files alone."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from cluster import SERVER_USER, Cluster
from helpers import eventually
from installation import Installation

# The flags of a .pyc file that Python uses without a look at the source.
UNCHECKED_HASH = 1


def test_destdir(installation: Installation, tree: Callable[..., Path], tmp_path: Path) -> None:
    """make install puts all files below DESTDIR, compiled for their final directory."""
    before = installation.files()
    source = tree("source")
    destdir = tmp_path / "destdir"
    installation.make("install", f"DESTDIR={destdir}", tree=source)
    assert installation.files() == before

    files = [path for path in destdir.rglob("*") if path.is_file()]
    places = [destdir / str(d)[1:] for d in (installation.pkglibdir, installation.sharedir)]
    assert all(any(path.is_relative_to(place) for place in places) for path in files)
    assert {"pmpp.control", "engine.py"} <= {path.name for path in files}
    assert [path for path in (destdir, *destdir.rglob("*")) if path.stat().st_mode & 0o022] == []

    for path in files:
        if path.suffix == ".py":
            (compiled,) = path.parent.glob(f"__pycache__/{path.stem}.*.pyc")
            assert int.from_bytes(compiled.read_bytes()[4:8], "little") == UNCHECKED_HASH
    (compiled,) = (path for path in files if path.match("scheduler/__pycache__/engine.*"))
    code = marshal.loads(compiled.read_bytes()[16:])
    assert Path(code.co_filename).parents[3] == installation.pkglibdir / "pmpp"

    installation.make("uninstall", f"DESTDIR={destdir}", tree=source)
    assert [path for path in destdir.rglob("*") if path.is_file()] == []


def test_umask(installation: Installation, tmp_path: Path) -> None:
    """The server's user can read the package, also if those who install keep their files private."""
    destdir = tmp_path / "destdir"
    usual = os.umask(0o077)
    try:
        installation.make("install", f"DESTDIR={destdir}")
    finally:
        os.umask(usual)
    package = destdir / str(installation.pkglibdir)[1:] / "pmpp"
    files = [package, *package.rglob("*")]
    assert len(files) > 100
    assert [path for path in files if path.stat().st_mode & 0o004 == 0] == []


def test_nothing_is_written_at_run_time(installation: Installation, server: Cluster) -> None:
    """Calls leave the files of the installation alone, even where the server could write."""
    installation.make("install")
    package = installation.pkglibdir / "pmpp"
    # If this is not root, the account of the server owns the files already.
    if os.getuid() == 0:
        for path in (package, *package.rglob("*")):
            shutil.chown(path, SERVER_USER)
    before = installation.files()
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("create extension pmpp cascade")
        run_query = "select * from pmpp.distribute(null::int, %s, array['select 1', %s])"
        assert len(conn.execute(run_query, [server.superuser(), "select 2"]).fetchall()) == 2
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute(run_query, [server.superuser(), "select 1/0"])
        conn.execute("select pmpp.detect_cpus()")
    assert installation.files() == before


def test_part_of_the_package_is_missing(server: Cluster, installation: Installation) -> None:
    """If the compiled part of psycopg is missing, the error names it, and pmpp runs nothing."""
    installation.make("install")
    (compiled,) = (installation.pkglibdir / "pmpp").glob("*/psycopg_[bc]*/pq.*.so")
    compiled.rename(compiled.with_name("moved"))
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("create extension if not exists pmpp cascade")
        with pytest.raises(psycopg.errors.UndefinedFile, match=r"no pq wrapper|compiled part"):
            conn.execute("select * from pmpp.distribute(null::int, '', array['select 1'])")
    compiled.with_name("moved").rename(compiled)


def test_drop_extension(server: Cluster, installation: Installation) -> None:
    """DROP EXTENSION leaves only the role, and the comment of the role says how to drop it."""
    installation.make("install")
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("drop extension if exists pmpp; drop role if exists pmpp")
        conn.execute("create extension if not exists plpython3u")
        before = catalogs(conn)
        conn.execute("create extension pmpp")
        conn.execute("insert into pmpp.connection_limit values ('*', 4)")
        conn.execute("drop extension pmpp")
        expected = {
            "pg_authid": before["pg_authid"] + 1,
            "pg_shdescription": before["pg_shdescription"] + 1,
        }
        assert catalogs(conn) == before | expected
        ((comment,),) = conn.execute(
            "select shobj_description('pmpp'::regrole, 'pg_authid')"
        ).fetchall()
        how = "DROP ROLE pmpp"
        assert str(comment).endswith(how)
        conn.execute(how)
        assert catalogs(conn) == before


def test_schema_is_there(server: Cluster, installation: Installation) -> None:
    """An empty schema pmpp, which pmpp 1 leaves, is no obstacle; objects of others in it are."""
    installation.make("install")
    with psycopg.connect(server.superuser(), autocommit=True) as conn:
        conn.execute("drop extension if exists pmpp")
        conn.execute("create extension if not exists plpython3u; create schema pmpp")
        conn.execute("create table pmpp.mine ()")
        with pytest.raises(psycopg.errors.DuplicateSchema, match="is not empty"):
            conn.execute("create extension pmpp")
        conn.execute("drop table pmpp.mine")
        conn.execute("create extension pmpp")


def test_two_at_once(server: Cluster, installation: Installation) -> None:
    """Two databases can create the extension, and the role with it, at the same time."""
    installation.make("install")
    with ExitStack() as stack:

        def connect(dbname: str) -> psycopg.Connection:
            return stack.enter_context(psycopg.connect(server.superuser(dbname), autocommit=True))

        administrator = connect("postgres")
        administrator.execute("drop extension if exists pmpp; drop role if exists pmpp")
        administrator.execute("create database one")
        administrator.execute("create database other")
        one, other = connect("one"), connect("other")
        one.execute("begin; create extension pmpp cascade")
        waiting = threading.Thread(target=other.execute, args=["create extension pmpp cascade"])
        waiting.start()
        eventually(
            server,
            "exists (select from pg_stat_activity where datname = 'other' and wait_event_type = 'Lock')",
        )
        one.execute("commit")
        waiting.join()
        assert other.execute("select pmpp.num_cpus() > 0").fetchall() == [(True,)]


def catalogs(conn: psycopg.Connection) -> dict[str, int]:
    """Return how many rows each system catalog has, but for those of statistics."""
    names = conn.execute(
        "select relname from pg_class where relnamespace = 'pg_catalog'::regnamespace "
        "and relkind = 'r' and relname not like 'pg_statistic%'"
    ).fetchall()
    counts = " union all ".join(f"select '{name}', count(*) from {name}" for (name,) in names)
    return dict(conn.execute(counts).fetchall())


@pytest.mark.slow
def test_choice_of_libpq(installation: Installation, tree: Callable[..., Path]) -> None:
    """LIBPQ=system replaces the wheel or says why it cannot, and later runs of make keep the choice."""
    source = tree("choice")
    package = source / "build/package"

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", f"PG_CONFIG={installation.pg_config}", *arguments]
        return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)

    installation.make("all", "LIBPQ=wheel", tree=source)
    refused = make("LIBPQ=nonsense")
    assert refused.returncode == 2
    assert refused.stderr.startswith("LIBPQ must be wheel or system, not nonsense\n")
    is_system = make("LIBPQ=system")
    if is_system.returncode:
        assert is_system.stderr.startswith("LIBPQ=system needs ")
    assert (package / "psycopg_c").is_dir() == (is_system.returncode == 0)
    assert (package / "psycopg_binary").is_dir() == (is_system.returncode != 0)
    assert "Nothing to be done" in make().stdout
