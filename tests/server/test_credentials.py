"""Who may connect where, and that no secret shows."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from helpers import PASSWORD, PG_CONFIG
from psycopg import sql

Connect = Callable[..., psycopg.Connection]
NewRole = Callable[..., str]

RUN = "select * from pmpp.distribute(null::text, %s, array['select session_user'])"


@pytest.fixture
def user(new_role: NewRole) -> str:
    """An ordinary role that is a member of pmpp."""
    return new_role()


@pytest.fixture
def session(connect: Connect, user: str) -> psycopg.Connection:
    """A session of that role."""
    return connect(user=user)


@pytest.fixture
def server(db: psycopg.Connection, cluster: object) -> str:
    """A foreign server that leads back by TCP, which nobody may use yet."""
    db.execute("create extension postgres_fdw")
    db.execute(
        sql.SQL("create server shop foreign data wrapper postgres_fdw "
                "options (host '127.0.0.1', port {}, dbname {})").format(
            str(cluster.port), db.info.dbname)  # type: ignore[attr-defined]
    )  # fmt: skip
    return "shop"


def outcome(conn: psycopg.Connection, connection: str) -> str | None:
    """Return as whom a call connects, or the SQLSTATE of its error."""
    try:
        ((name,),) = conn.execute(RUN, [connection]).fetchall()
    except psycopg.Error as ex:
        assert PASSWORD not in str(ex)
        assert "Traceback" not in str(ex.diag.context)
        return ex.sqlstate
    return str(name)


def test_superuser_needs_no_password(db: psycopg.Connection, here: str) -> None:
    """A superuser may connect in any way that works."""
    assert outcome(db, here) == "postgres"


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("{by_network} password={password}", "{user}"),
        ("{by_network} user='{user}' password={password}", "{user}"),
        ("postgresql://127.0.0.1:{port}/{dbname}?password={password}", "{user}"),
        # no password, and a wrong one
        ("{by_network}", "2F003"),
        ("{by_network} password=''", "2F003"),
        ("{by_network} password=wrong", "08001"),
        # a password that the server does not ask for
        ("{here} password={password}", "2F003"),
        ("{here} user='{user}' password={password}", "2F003"),
        # names of files
        ("{by_network} passfile=/tmp/pgpass", "42501"),
        ("{by_network} password={password} sslcert=/tmp/x", "42501"),
        ("service=x", "42501"),
        # what is no connection string
        ("{password}=", "22023"),
        ("host=localhost password={password} x", "22023"),
    ],
)
def test_string_of_an_ordinary_user(
    session: psycopg.Connection, here: str, by_network: str, user: str, string: str, expected: str
) -> None:
    """An ordinary user needs a password, and it must be asked for."""
    values = {
        "here": here,
        "by_network": by_network,
        "user": user,
        "password": PASSWORD,
        "port": session.info.port,
        "dbname": session.info.dbname,
    }
    assert outcome(session, string.format(**values)) == expected.format(**values)


def test_nothing_is_sent_before_the_password_is_checked(
    db: psycopg.Connection, session: psycopg.Connection, here: str
) -> None:
    """Neither setup commands nor queries run on a connection that is refused."""
    db.execute("create table trace (i int); grant all on trace to public")
    with pytest.raises(psycopg.Error) as raised:
        session.execute(
            "select * from pmpp.meta(%s, array['insert into trace values (1)'],"
            " setup_commands => array['insert into trace values (2)'])",
            [f"{here} password=x"],
        )
    assert raised.value.sqlstate == "2F003"
    assert "did not ask for the password" in str(raised.value)
    assert db.execute("select * from trace").fetchall() == []


def test_options_are_applied_after_the_check(
    session: psycopg.Connection, by_network: str, user: str
) -> None:
    """Settings in options hold, but are not sent on connecting."""
    there = f"{by_network} password={PASSWORD}"
    call = "select * from pmpp.distribute(null::text, %s, array[%s])"
    options = (
        r"-c search_path=one,two --work-mem=3MB -capp.path=a\\\\b\\ c -c client_encoding=latin1"
    )
    shown = """
        select current_setting('search_path') || current_setting('work_mem')
            || current_setting('app.path') || current_setting('client_encoding')
    """
    assert session.execute(call, [f"{there} options='{options}'", shown]).fetchall() == [
        (r"one,two3MBa\b cUTF8",)
    ]
    with pytest.raises(psycopg.Error) as raised:
        session.execute(call, [f"{there} options='-c log_connections=on'", shown])
    assert raised.value.sqlstate == "55P02"  # it can only be set on connecting
    assert str(raised.value.diag.message_detail).startswith("Options of item 1 on host=127.0.0.1")


def test_options_of_one_who_is_not_let_in(
    cluster: Cluster, session: psycopg.Connection, here: str
) -> None:
    """A server that trusts the caller's connection does not load a file for it."""
    text = f"{here} password=x options='-c session_preload_libraries=nosuch_library'"
    assert outcome(session, text) == "2F003"
    assert "nosuch_library" not in "".join(
        line for line in cluster.read_log().splitlines() if "FATAL" in line
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"R\0\0\0\x08\0\0\0\x07",  # asks for a Kerberos ticket
        # a server whose version does not report whether it is read-only
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x17server_version\x009.6\0Z\0\0\0\x05I",
    ],
    ids=["ticket", "trust"],
)
def test_server_that_asks_for_no_password(session: psycopg.Connection, answer: bytes) -> None:
    """It gets nothing: no ticket of the server's account, and no question of libpq."""
    got: list[bytes] = []

    def serve() -> None:
        wire = listener.accept()[0]
        with wire:
            wire.recv(8)  # the wish for TLS
            wire.sendall(b"N")
            wire.recv(4096)
            wire.sendall(answer)
            got.append(wire.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        running = pool.submit(serve)
        there = (
            f"host=localhost hostaddr=127.0.0.1 port={listener.getsockname()[1]} password=x "
            "target_session_attrs=read-write"
        )
        with pytest.raises(psycopg.Error) as raised:
            session.execute(RUN, [there])
        running.result()
    assert got == [b""]
    assert raised.value.sqlstate == "2F003"
    assert "did not ask for the password" in str(raised.value)


def test_current_user_counts(db: psycopg.Connection, here: str, user: str, by_network: str) -> None:
    """After SET ROLE and inside SECURITY DEFINER functions it is the current user who asks."""
    db.execute(
        """
        create function as_superuser(connection text) returns text language sql security definer
        as $$ select * from pmpp.distribute(null::text, connection, array['select session_user']) $$
        """
    )
    db.execute(sql.SQL("set role {}").format(sql.Identifier(user)))
    assert outcome(db, here) == "2F003"
    assert outcome(db, f"{by_network} password={PASSWORD}") == user
    assert db.execute("select as_superuser(%s)", [here]).fetchall() == [("postgres",)]


def test_definer_of_lower_rights(
    db: psycopg.Connection, connect: Connect, new_role: NewRole, here: str
) -> None:
    """A superuser who runs a function of an ordinary user lends it no rights."""
    owner = new_role()
    db.execute("grant create on schema public to public")
    connect(user=owner).execute(
        """
        create function trap(connection text) returns text language sql security definer
        as $$ select * from pmpp.distribute(null::text, connection, array['select session_user']) $$
        """
    )
    with pytest.raises(psycopg.Error) as raised:
        db.execute("select trap(%s)", [here])
    assert raised.value.sqlstate == "2F003"


def test_plain_users_may_not_call(connect: Connect, new_role: NewRole, by_network: str) -> None:
    """Who is no member of the role pmpp has no access to the functions."""
    outsider = connect(user=new_role(member=False))
    assert outcome(outsider, f"{by_network} password={PASSWORD}") == "42501"


@pytest.mark.parametrize(
    ("usage", "mapping", "expected"),
    [
        (True, "create user mapping for {user} server shop options (password {password})", "{user}"),
        (True, "create user mapping for public server shop options (user {user}, password {password})",
         "{user}"),
        (True, "create user mapping for {user} server shop options (password_required 'false')", "08001"),
        (True, "create user mapping for {user} server shop", "2F003"),
        (True, "create user mapping for {user} server shop options (password 'wrong')", "08001"),
        (True, "create user mapping for postgres server shop options (password {password})", "42704"),
        (False, "create user mapping for {user} server shop options (password {password})", "42501"),
        (False, "create user mapping for public server shop options (password {password})", "42501"),
    ],
)  # fmt: skip
def test_server(
    db: psycopg.Connection,
    session: psycopg.Connection,
    user: str,
    server: str,
    usage: bool,
    mapping: str,
    expected: str,
) -> None:
    """A foreign server needs USAGE and a mapping of one's own or of PUBLIC."""
    if usage:
        db.execute(sql.SQL("grant usage on foreign server shop to {}").format(sql.Identifier(user)))
    is_option = "(user {user}" in mapping
    db.execute(
        sql.SQL(mapping).format(
            user=sql.Literal(user) if is_option else sql.Identifier(user),
            password=sql.Literal(PASSWORD),
        )
    )
    assert outcome(session, server) == expected.format(user=user)


@pytest.mark.parametrize("text", ["port=1 dbname=shop", "postgres://:1/shop"])
def test_server_named_like_a_connection_string(
    db: psycopg.Connection, session: psycopg.Connection, text: str
) -> None:
    """A server that somebody has named like a connection string receives no queries for it."""
    db.execute("create foreign data wrapper lax; grant usage on foreign data wrapper lax to public")
    db.execute(
        sql.SQL("grant create on database {} to public").format(sql.Identifier(db.info.dbname))
    )
    session.execute(
        sql.SQL(
            "create server {0} foreign data wrapper lax options (host '127.0.0.1', port '2');"
            "create user mapping for public server {0} options (user 'thief', password 'x');"
            "grant usage on foreign server {0} to public"
        ).format(sql.Identifier(text))
    )
    assert outcome(db, text) == "08001"
    label = db.execute("select connection from pmpp.last_run()").fetchall()
    assert label == [("port=1 dbname=shop",)]
    assert outcome(session, text) == "2F003"  # no password


@pytest.fixture
def public_mapping(db: psycopg.Connection, user: str, server: str) -> None:
    """A mapping for PUBLIC with a password that only the superuser may see."""
    db.execute("grant usage on foreign server shop to public")
    db.execute(
        sql.SQL("create user mapping for public server shop options (user {}, password {})").format(
            user, PASSWORD
        )
    )


@pytest.mark.usefixtures("public_mapping")
def test_password_of_a_public_mapping_stays_hidden(session: psycopg.Connection) -> None:
    """Who connects through a PUBLIC mapping cannot see its password."""
    assert outcome(session, "shop") is not None
    ((options,),) = session.execute("select umoptions from pg_user_mappings").fetchall()
    assert options is None
    with pytest.raises(psycopg.Error) as raised:
        session.execute("select * from pmpp.distribute(null::int, 'shop', array['select nosuch'])")
    assert PASSWORD not in f"{raised.value} {raised.value.diag.context}"


@pytest.mark.usefixtures("public_mapping")
@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("select pmpp._read_user_mapping()", "42501"),
        ("select pmpp._failure(null, ('22012', 'm', '', '', '', '', '', '', ''))", None),
        ("select pmpp._load()", None),
        ("select pmpp.detect_cpus()", "42501"),
        ("select pmpp._raise(null, ('22012', 'm', 'd', 'h', '', '', '', '', ''))", "22012"),
        ("select pmpp._handed_json(0)", "42501"),
        ("select pmpp._read_json(0)", "42501"),
        ("select * from pmpp._rows(0, null, null) as (i int)", "42501"),
        ("select * from pmpp._columns(0, '{23}', false)", "42501"),
        ("select * from pmpp._tags(null)", "42501"),
    ],
)
def test_internal_functions_by_hand(
    session: psycopg.Connection, call: str, sqlstate: str | None
) -> None:
    """Internal functions give nothing away when they are called by hand."""
    assert outcome(session, "shop") is not None
    try:
        result = str(session.execute(call).fetchall())
    except psycopg.Error as ex:
        assert ex.sqlstate == sqlstate
        result = str(ex)
    else:
        assert sqlstate is None
    assert PASSWORD not in result


def test_internal_functions_are_closed_to_plain_users(
    db: psycopg.Connection, connect: Connect, new_role: NewRole
) -> None:
    """Who is no member of pmpp can call none of its functions."""
    outsider = connect(user=new_role(member=False))
    functions = db.execute(
        "select oid from pg_proc where pronamespace = 'pmpp'::regnamespace"
    ).fetchall()
    assert functions
    may = (
        "select has_schema_privilege('pmpp', 'usage') or has_function_privilege(%s::oid, 'execute')"
    )
    for (function,) in functions:
        assert outsider.execute(may, [function]).fetchall() == [(False,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        outsider.execute("select pmpp._read_user_mapping()")


def test_password_required_of_another_wrapper(
    db: psycopg.Connection, session: psycopg.Connection, user: str, cluster: object
) -> None:
    """A mapping that the user wrote for a wrapper without a validator frees from nothing."""
    db.execute("create foreign data wrapper lax")
    db.execute(
        sql.SQL("create server lax foreign data wrapper lax options (host {}, port {}, dbname {})").format(
            cluster.host, str(cluster.port), db.info.dbname)  # type: ignore[attr-defined]
    )  # fmt: skip
    db.execute("grant usage on foreign server lax to public")
    session.execute(
        "create user mapping for current_user server lax "
        "options (user 'postgres', password 'x', password_required 'false')"
    )
    assert outcome(session, "lax") == "2F003"


def test_password_file_is_for_superusers(tmp_path: Path) -> None:
    """What libpq finds in the environment of the server lends passwords to superusers alone."""
    password_file = tmp_path / "pgpass"
    password_file.write_text(f"*:*:*:*:{PASSWORD}\n")
    tmp_path.chmod(0o755)
    password_file.chmod(0o600)
    if os.getuid() == 0:
        shutil.chown(password_file, "postgres")
        for parent in tmp_path.parents[:2]:
            parent.chmod(0o755)
    environment = {"PGPASSFILE": str(password_file)}
    with (
        Cluster(PG_CONFIG, environment=environment) as cluster,
        psycopg.connect(
            host=cluster.host, port=cluster.port, user="postgres", autocommit=True
        ) as db,
    ):
        db.execute("create extension pmpp cascade")
        db.execute(f"create role bob login password '{PASSWORD}' in role pmpp")
        by_network = f"host=127.0.0.1 port={cluster.port} dbname=postgres user=bob"
        assert outcome(db, by_network) == "bob"
        db.execute("set role bob")
        assert outcome(db, by_network) == "2F003"
        assert outcome(db, f"{by_network} password=wrong") == "08001"
        assert outcome(db, f"{by_network} password={PASSWORD}") == "bob"


@pytest.mark.usefixtures("public_mapping")
def test_log_and_activity_show_no_password(
    cluster: object, db: psycopg.Connection, session: psycopg.Connection
) -> None:
    """Neither the server's log nor pg_stat_activity tells the password of a mapping."""
    query = "select string_agg(query || application_name, ' ') from pg_stat_activity"
    ((seen,),) = session.execute(
        "select * from pmpp.distribute(null::text, 'shop', array[%s])", [query]
    ).fetchall()
    with pytest.raises(psycopg.Error):
        session.execute("select * from pmpp.distribute(null::text, 'shop', array['select 1/0'])")
    assert PASSWORD not in str(seen)
    log = cluster.read_log()  # type: ignore[attr-defined]
    assert PASSWORD not in log.replace(f"password '{PASSWORD}'", "")
