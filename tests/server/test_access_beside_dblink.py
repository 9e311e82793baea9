"""Who connects as whom: pmpp beside dblink and postgres_fdw, in tables."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG, SESSION_USER, answer, assert_log_is_clean
from psycopg import sql
from server_files import certificates, password_file, shared_directory

# Who comes with a client certificate is "admin"; who comes by the socket is trusted.
HBA = [
    "hostssl all admin 127.0.0.1/32 cert",
    "host all trusting 127.0.0.1/32 trust",
    "host all all 127.0.0.1/32 scram-sha-256",
]


@pytest.fixture(scope="module")
def tempting() -> Iterator[Cluster]:
    """A server in whose environment lie a password, a password file, a service and a certificate."""
    with shared_directory() as files:
        services = files / "services"
        services.write_text("[wait]\nuser=postgres\n")
        settings = {**certificates(files), "ssl_ca_file": str(files / "authority.crt")}
        environment = {
            "PGPASSWORD": PASSWORD,
            "PGPASSFILE": str(password_file(files)),
            "PGSERVICEFILE": str(services),
            "PGSSLCERT": str(files / "client.crt"),
            "PGSSLKEY": str(files / "client.key"),
        }
        with Cluster(PG_CONFIG, settings=settings, hba=HBA, environment=environment) as cluster:
            with psycopg.connect(cluster.superuser(), autocommit=True) as conn:
                _prepare(conn, cluster)
            yield cluster
            assert_log_is_clean(cluster)


def _prepare(conn: psycopg.Connection, cluster: Cluster) -> None:
    """Create roles, servers and what dblink and postgres_fdw need to answer too."""
    script = sql.SQL("""
        create extension pmpp cascade; create extension dblink; create extension postgres_fdw;
        alter role postgres password {password};
        create role admin superuser login password {password};
        create role member login password {password} in role pmpp;
        create role outside login password {password} in role pmpp;
        create role plain login password {password};
        create role trusting login password {password};
        create view whoami as select session_user::text as name;
        grant select on whoami to public;
        create server net foreign data wrapper postgres_fdw
            options (host '127.0.0.1', port {port}, dbname 'postgres');
        create server socket foreign data wrapper postgres_fdw
            options (host {host}, port {port}, dbname 'postgres');
        create server public_mapping foreign data wrapper postgres_fdw
            options (host '127.0.0.1', port {port}, dbname 'postgres');
        create server no_mapping foreign data wrapper postgres_fdw
            options (host '127.0.0.1', port {port}, dbname 'postgres');
        create server free foreign data wrapper postgres_fdw
            options (host {host}, port {port}, dbname 'postgres');
        create user mapping for public server public_mapping
            options (user 'member', password {password});
        create user mapping for member server free
            options (user 'trusting', password_required 'false');
    """)
    values = {"password": PASSWORD, "host": cluster.host, "port": str(cluster.port)}
    conn.execute(script.format(**values))
    for server in ("net", "socket", "public_mapping", "no_mapping", "free"):
        conn.execute(f"grant usage on foreign server {server} to member, plain")
        conn.execute(
            f"create foreign table at_{server} (name text) server {server} options (schema_name 'public', table_name 'whoami')"
        )
        conn.execute(f"grant select on at_{server} to public")
        if server in ("net", "socket"):
            for role in ("postgres", "member", "outside", "plain"):
                options = sql.SQL(
                    "create user mapping for {} server {} options (user {}, password {})"
                )
                conn.execute(
                    options.format(sql.Identifier(role), sql.Identifier(server), role, PASSWORD)
                )


# A role, a connection string, as whom pmpp connects or its SQLSTATE, whether dblink connects.
STRINGS = [
    # A superuser may use the credentials in the environment of the server.
    ("postgres", "{socket}", "postgres", True),
    ("postgres", "{net} user=member password={password}", "member", True),
    ("postgres", "{net} user=member", "member", True),
    ("postgres", "{net} user=admin sslmode=require", "admin", True),
    ("postgres", "{net} service=wait user=trusting", "trusting", True),
    # A member must supply a password, and the server must require it.
    ("member", "{net} user=member password={password}", "member", True),
    ("member", "{net} user=plain password={password}", "plain", True),
    # dblink connects as the user of the operating system.
    ("member", "{net} password={password}", "member", True),
    # An empty user is to dblink the system's user.
    ("member", "{net} user='' password={password}", "member", True),
    ("member", "{uri}", "member", True),
    ("postgres", "{net} user=''", "postgres", True),
    ("member", "{net} user=member password=wrong", "08001", False),
    # Members may not use the credentials in the environment of the server.
    ("member", "{net} user=member", "2F003", False),
    ("member", "{net} user=member password=''", "2F003", False),
    ("member", "{socket} user=member", "2F003", False),
    ("member", "{socket} user=member password={password}", "2F003", False),
    ("member", "{socket} user=postgres password=x", "2F003", False),
    ("member", "{net} user=trusting password={password}", "2F003", False),
    ("member", "{net} user=admin sslmode=require", "2F003", False),
    ("member", "{net} user=admin password=x sslmode=require", "08001", False),
    ("member", "{net} user=member passfile={passfile}", "42501", False),
    ("member", "{net} user=member password=wrong passfile={passfile}", "42501", False),
    ("member", "service=wait password={password}", "42501", False),
    ("member", "{net} user=admin password=x sslcert={cert} sslkey={key}", "42501", False),
    # Only members may call pmpp, and everybody may call dblink.
    ("plain", "{net} user=plain password={password}", "42501", True),
    ("plain", "{socket} user=plain password=x", "42501", False),
]

# A role, a foreign server, as whom pmpp connects or its SQLSTATE, and whether dblink and
# postgres_fdw connect.
SERVERS = [
    ("postgres", "net", "postgres", True, True),
    ("postgres", "no_mapping", "42704", False, False),
    ("postgres", "socket", "postgres", True, True),
    ("member", "net", "member", True, True),
    ("member", "socket", "2F003", False, False),
    ("member", "public_mapping", "member", True, True),
    ("member", "no_mapping", "42704", False, False),
    # dblink does not know password_required.
    ("member", "free", "trusting", False, True),
    # postgres_fdw requires USAGE only when a foreign table is created.
    ("outside", "net", "42501", False, True),
    ("outside", "public_mapping", "42501", False, True),
    ("plain", "net", "42501", True, True),
]


DBLINK = "select * from dblink(%s, 'select session_user') as (name text)"


@pytest.fixture(params=["login", "set role"])
def log_in(request: pytest.FixtureRequest, tempting: Cluster) -> Iterator[object]:
    """Become a role, by logging in as it or by SET ROLE from a superuser."""
    opened = []

    def log_in(role: str) -> psycopg.Connection:
        user = role if request.param == "login" else "postgres"
        conn = psycopg.connect(tempting.superuser(), user=user, autocommit=True)
        opened.append(conn)
        if request.param != "login":
            conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        return conn

    yield log_in
    for conn in opened:
        conn.close()


@pytest.mark.parametrize(("role", "string", "expected", "dblink"), STRINGS)
def test_strings(
    tempting: Cluster, log_in: object, role: str, string: str, expected: str, dblink: bool
) -> None:
    """What a role gets by a connection string, beside what dblink gives it."""
    values = {
        "net": f"host=127.0.0.1 port={tempting.port} dbname=postgres",
        "socket": f"host={tempting.host} port={tempting.port} dbname=postgres",
        "uri": f"postgresql://:{PASSWORD}@127.0.0.1:{tempting.port}/postgres?user=",
        "password": PASSWORD,
        "passfile": "/tmp/pgpass",
        "cert": "/tmp/client.crt",
        "key": "/tmp/client.key",
    }
    conn = log_in(role)  # type: ignore[operator]
    assert answer(conn, SESSION_USER, string.format(**values)) == expected
    assert (answer(conn, DBLINK, string.format(**values)) in ROLES) is dblink


ROLES = {"postgres", "admin", "member", "outside", "plain", "trusting"}


@pytest.mark.parametrize(("role", "server", "expected", "dblink", "postgres_fdw"), SERVERS)
def test_servers(
    log_in: object, role: str, server: str, expected: str, dblink: bool, postgres_fdw: bool
) -> None:
    """What a role gets by a foreign server, beside what dblink and postgres_fdw give it."""
    conn = log_in(role)  # type: ignore[operator]
    assert answer(conn, SESSION_USER, server) == expected
    assert (answer(conn, DBLINK, server) in ROLES) is dblink
    assert (answer(conn, f"select name from at_{server}") in ROLES) is postgres_fdw


def test_view_and_index_of_another_owner(tempting: Cluster) -> None:
    """A call in a view has the caller's rights, and one in an index expression the table owner's."""
    with psycopg.connect(tempting.superuser(), autocommit=True) as conn:
        socket = tempting.superuser()
        query = SESSION_USER.replace("%s", sql.quote(socket))
        conn.execute(f"create view lent as {query}")
        conn.execute("grant select on lent to public; grant create on schema public to member")
        assert answer(conn, "select * from lent") == "postgres"
        conn.execute("set role member")
        assert answer(conn, "select * from lent") == "2F003"
        conn.execute("create table owned (i int)")
        conn.execute(f"""
            create function public.sneak(int) returns text language plpgsql immutable as $$
            begin
                if $1 = 1 then return (select d from ({query}) d(d)); end if;
                return '';
            end $$
        """)
        conn.execute("insert into owned values (1)")
        assert answer(conn, "create index on owned (public.sneak(i))") == "2F003"
        conn.execute("reset role")
        assert answer(conn, "create index on owned (public.sneak(i))") == "2F003"
        conn.execute("drop table owned; drop function sneak; drop view lent")
