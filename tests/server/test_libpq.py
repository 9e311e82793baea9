"""The libpq of pmpp in one process with that of dblink, postgres_fdw and the server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, assert_log_is_clean, create_pmpp, eventually
from installation import ask
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from server_files import certificates, shared_directory

# The network is for those who use TLS and SCRAM.
HBA = ["hostssl all all 127.0.0.1/32 scram-sha-256", "hostnossl all all 127.0.0.1/32 reject"]

# PL/Python functions: a TLS connection by the ssl module of Python, and the versions of the libpq
# that pmpp has loaded and of the one that dblink has loaded.
FUNCTIONS = r"""
    create function python_tls(port int, authority text) returns text language plpython3u as $$
        import hashlib, socket, ssl
        context = ssl.create_default_context(cafile=authority)
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest
            assert plain.recv(1) == b"S"
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted:
                return f"{encrypted.version()} {hashlib.sha256(b'pmpp').hexdigest()[:8]}"
    $$;
    create function libpq_of_pmpp() returns int language plpython3u as $$
        from psycopg import pq
        return pq.version()
    $$;
    create function libpq_of_dblink() returns int language plpython3u as $$
        import ctypes
        return ctypes.CDLL(None).PQlibVersion()
    $$;
"""

FORMS = {
    "distribute": "select * from pmpp.distribute(null::text, %(here)s, array['select 1'])",
    "record": """
        select * from pmpp.distribute(
            jsonb_build_array(jsonb_build_object('connection', %(here)s::text, 'query', 'select 1'))
        ) as t(n int)
    """,
    "meta": "select * from pmpp.meta(%(here)s, array['reset role'])",
    "broadcast": "select * from pmpp.broadcast(null::text, array[%(here)s], 'select 1')",
}


@dataclass
class Secure:
    """A server that wants TLS and SCRAM on the network, and uses its own libpq too.

    Attributes:
        cluster: the server.
        network: a connection string for it, by TLS.
        socket: the same by the socket.
        authority: the file with the certificate of the authority.
    """

    cluster: Cluster
    network: str
    socket: str
    authority: str


@pytest.fixture(scope="module")
def secure() -> Iterator[Secure]:
    with (
        shared_directory() as files,
        Cluster(PG_CONFIG, settings=certificates(files), hba=HBA) as cluster,
    ):
        authority = str(files / "authority.crt")
        tls: dict[str, Any] = {
            "sslmode": "verify-full",
            "sslrootcert": authority,
            "channel_binding": "require",
        }
        network: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": cluster.port,
            "dbname": "postgres",
        }
        with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
            _prepare(conn, {**network, **tls})
        yield Secure(
            cluster,
            make_conninfo(**network, **tls, user="postgres", password=PASSWORD),
            cluster.superuser(),
            authority,
        )
        assert_no_crash(cluster)
        assert_log_is_clean(cluster)


def _prepare(conn: psycopg.Connection, options: dict[str, object]) -> None:
    """Create extensions, a view that tells how it is reached, and a foreign table of it."""
    script = sql.SQL("""
        create extension pmpp cascade; create extension dblink; create extension postgres_fdw;
        alter role postgres password {password};
        create view numbers as
            select i, (select version from pg_stat_ssl where pid = pg_backend_pid()) as tls
              from generate_series(1, 1000) as i;
        create server there foreign data wrapper postgres_fdw options ({options});
        create user mapping for postgres server there options (user 'postgres', password {password});
        create foreign table numbers_there (i int, tls text)
            server there options (table_name 'numbers');
    """)
    options_sql = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(str(value)))
        for name, value in options.items()
    )
    conn.execute(script.format(password=sql.Literal(PASSWORD), options=options_sql))
    conn.execute(FUNCTIONS)


def assert_no_crash(cluster: Cluster) -> None:
    """Fail if a process of a server has ended by a signal."""
    assert "terminated by signal" not in cluster.read_log()


def has_libpq_of_its_own() -> bool:
    """Return True if the installed pmpp was built with LIBPQ=wheel."""
    (found,) = Path(ask(PG_CONFIG, "--pkglibdir")).glob("pmpp/*/pmpp")
    return (found.parent / "psycopg_binary").is_dir()


def use(conn: psycopg.Connection, client: str, secure: Secure) -> None:
    """Read rows over TLS in a session, by pmpp, dblink, postgres_fdw or Python's ssl."""
    rows = [(500500, 1000, "TLSv1.3", "TLSv1.3")]
    summary = "select sum(i), count(*), min(tls), max(tls)"
    if client == "pmpp":
        halves = ["select * from numbers where i <= 400", "select * from numbers where i > 400"]
        query = "from pmpp.distribute(null::numbers, %s, %s, num_workers => 2)"
        assert conn.execute(f"{summary} {query}", [secure.network, halves]).fetchall() == rows
    elif client == "dblink":
        query = "from dblink(%s, 'select * from numbers') as t(i int, tls text)"
        assert conn.execute(f"{summary} {query}", [secure.network]).fetchall() == rows
    elif client == "postgres_fdw":
        assert conn.execute(f"{summary} from numbers_there").fetchall() == rows
    else:
        query = "select python_tls(%s, %s)"
        parameters = [secure.cluster.port, secure.authority]
        assert conn.execute(query, parameters).fetchall() == [("TLSv1.3 1e01d4da",)]


@pytest.mark.parametrize(
    "order",
    [
        order
        for order in permutations(["pmpp", "dblink", "postgres_fdw", "ssl"])
        if "ssl" in (order[0], order[-1])
    ],
    ids=",".join,
)
def test_beside_others(secure: Secure, order: tuple[str, ...]) -> None:
    """Each client gets its rows over TLS, in whichever order a session uses them."""
    with psycopg.connect(secure.network, autocommit=True) as conn:
        for client in order * 2:
            use(conn, client, secure)
        pid = conn.info.backend_pid
    eventually(secure.cluster, f"not exists (select from pg_stat_activity where pid = {pid})")
    assert_no_crash(secure.cluster)


@pytest.mark.parametrize("first", ["pmpp", "dblink"])
def test_libpq_of_each(secure: Secure, first: str) -> None:
    """pmpp has libpq 17 or later, and dblink the one that the system has."""
    with psycopg.connect(secure.socket, autocommit=True) as conn:
        for client in (first, "pmpp", "dblink"):
            use(conn, client, secure)
        ((of_pmpp, of_dblink),) = conn.execute("select libpq_of_pmpp(), libpq_of_dblink()")
        maps = Path(f"/proc/{conn.info.backend_pid}/maps").read_text()
    loaded = {line.split()[-1] for line in maps.splitlines() if "/libpq" in line}
    assert of_pmpp >= 170000
    if has_libpq_of_its_own():
        assert len(loaded) == 2
        # The tests have the same wheel. A system may have the same version of libpq.
        assert of_pmpp == psycopg.pq.version()
    else:
        assert len(loaded) == 1
        assert of_pmpp == of_dblink


@pytest.mark.slow
def test_many_sessions(secure: Secure) -> None:
    """Hundreds of sessions load pmpp and end, two of three by pg_terminate_backend."""

    def session(number: int) -> None:
        caller = secure.network if number % 2 else secure.socket
        with psycopg.connect(caller, autocommit=True, application_name="many") as conn:
            if number % 4 < 2:
                use(conn, "pmpp", secure)
            else:
                conn.execute(FORMS["meta"], {"here": secure.socket})
            end = f"select pg_sleep(60)::text from pg_terminate_backend({conn.info.backend_pid})"
            if number % 3 == 1:
                with pytest.raises(errors.AdminShutdown):
                    conn.execute(end)
            elif number % 3 == 2:
                # The worker ends its caller in the middle of the call.
                call = "select pmpp.distribute(null::text, %s, %s, num_workers => 1)"
                with pytest.raises(errors.AdminShutdown):
                    conn.execute(call, [secure.network, [end]])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(session, range(300)))
    eventually(
        secure.cluster, "not exists (select from pg_stat_activity where application_name = 'many')"
    )
    assert_no_crash(secure.cluster)


def jemalloc() -> str:
    """Return the path of the library."""
    known = subprocess.check_output(["/sbin/ldconfig", "-p"], text=True)
    paths = [line.split()[-1] for line in known.splitlines() if "libjemalloc.so" in line]
    assert paths, "this test needs jemalloc (Debian: libjemalloc2)"
    return paths[0]


@pytest.fixture(scope="module")
def other_malloc() -> Iterator[Cluster]:
    """A server whose processes use jemalloc."""
    with Cluster(PG_CONFIG, environment={"LD_PRELOAD": jemalloc()}) as cluster:
        create_pmpp(cluster, "dblink")
        yield cluster
        assert_no_crash(cluster)


@pytest.mark.parametrize("form", FORMS)
def test_other_malloc(other_malloc: Cluster, form: str) -> None:
    """pmpp refuses to load a libpq of its own beside another malloc; dblink goes on."""
    here = other_malloc.superuser()
    with psycopg.connect(here, autocommit=True) as conn:
        assert "jemalloc" in Path(f"/proc/{conn.info.backend_pid}/maps").read_text()

        def by_dblink() -> list[tuple[int]]:
            return conn.execute(
                "select * from dblink(%s, 'select 1') as t(n int)", [here]
            ).fetchall()

        assert by_dblink() == [(1,)]
        for _ in range(2):
            if has_libpq_of_its_own():
                with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised:
                    conn.execute(FORMS[form], {"here": here})
                diag = raised.value.diag
                assert "does not use malloc of the C library" in (diag.message_primary or "")
                assert "LIBPQ=system" in (diag.message_hint or "")
            else:
                assert len(conn.execute(FORMS[form], {"here": here}).fetchall()) == 1
            assert by_dblink() == [(1,)]


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_ARENA_MAX": "1", "MALLOC_PERTURB_": "85"},
        {"MALLOC_MMAP_MAX_": "0", "MALLOC_TOP_PAD_": "67108864", "PYTHONMALLOC": "malloc"},
        {"GLIBC_TUNABLES": "glibc.malloc.tcache_max=4194304", "PYTHONMALLOC": "debug"},
    ],
    ids=str,
)
def test_settings_of_malloc(environment: dict[str, str]) -> None:
    """pmpp does not mistake the C library's malloc for another one, however it is set up."""
    # Python frees blocks of many sizes here, from which the next ones may be served.
    fragments = """
        create function fragments() returns int language plpython3u as $$
            blocks = [bytes(size) for size in (*range(100_000, 2_000_000, 50_001), 40_000_000)]
            del blocks[::2]
            GD["blocks"] = blocks
            return len(blocks)
        $$
    """
    with Cluster(PG_CONFIG, environment=environment) as cluster:
        with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
            conn.execute("create extension pmpp cascade")
            conn.execute(fragments)
            assert conn.execute("select fragments()").fetchall() == [(19,)]
            parameters = {"here": cluster.superuser()}
            assert conn.execute(FORMS["record"], parameters).fetchall() == [(1,)]
        assert_no_crash(cluster)


def test_libpq_of_the_system(db: psycopg.Connection, here: str) -> None:
    """The server process has one library called libpq.so, that of the system."""
    db.execute(FORMS["distribute"], {"here": here})
    db.execute("create extension dblink")
    db.execute("select * from dblink(%s, 'select 1') as (i int)", [here])
    ((pid,),) = db.execute("select pg_backend_pid()").fetchall()
    maps = Path(f"/proc/{pid}/maps").read_text()
    libraries = {line.split()[-1] for line in maps.splitlines() if "libpq" in line.split("/")[-1]}
    assert len({Path(library).name for library in libraries if "libpq.so" in library}) == 1
