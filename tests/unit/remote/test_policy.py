"""The rules for connection strings and foreign servers: who may connect with which parameters."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pmpp.core.target import Address, Target
from pmpp.errors import PmppError
from pmpp.remote.policy import (
    NO_FILE,
    NO_KERBEROS,
    ORDINARY_KEYWORDS,
    Caller,
    ForeignServer,
    from_server,
    from_string,
)
from psycopg.pq import Conninfo

SERVER = Address("/run/postgresql", "5433")
SUPERUSER = Caller("admin", True, 42, SERVER)
USER = Caller("bob", False, 42, SERVER)
FDW = ForeignServer(
    "shop",
    {"host": "db", "dbname": "shop", "fetch_size": "100"},
    has_usage=True,
    is_postgres_fdw=True,
)


def test_parameters_of_a_superuser_are_taken_as_they_are() -> None:
    """A superuser may use any parameter; libpq's defaults apply to the rest."""
    target = from_string("item 1", "dbname=shop sslcert=/x service=y", SUPERUSER)
    assert target.params["sslcert"] == "/x"
    assert "user" not in target.params
    assert target.params["application_name"] == "pmpp 42 item 1"
    assert not target.must_use_password


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("dbname=shop password=secret", "dbname=shop"),
        ("postgresql://me:secret@db:5433/shop", "host=db port=5433 dbname=shop"),
        ("host=a,b dbname=shop", "host=a,b dbname=shop"),
        ("user=me password=secret", "this server"),
        ("host='x a=b'", "a host"),
        ("service=x dbname=shop", "service=x dbname=shop"),
        ("host=@db,::1,@socket port=5433", "port=5433"),
    ],
)
def test_label_shows_no_secret(text: str, label: str) -> None:
    """A connection is shown by its host, port and database alone."""
    assert from_string("item 1", text, SUPERUSER).display_name == label


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:1/secret@db/shop",
        "postgresql://me:1@secret@db/shop",
        "postgres://me:1@secret/2@db/shop",
    ],
)
def test_part_of_a_password_is_not_taken_for_a_host(text: str) -> None:
    """A URI whose password is not written as it must be is refused, without showing it."""
    with pytest.raises(
        PmppError, match="connection is a URI with an @ where none can be"
    ) as raised:
        from_string("item 1", text, SUPERUSER)
    assert "write @ as %40 and / as %2F" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("host=db;dbname=shop;password=secret", "host"),
        ("port=5432,Password=secret", "port"),
        ("connect_timeout=5;sslpassword=secret", "connect_timeout"),
        ("user='me password=secret'", "user"),
        ("options='-c statement_timeout=5;password=secret'", "options"),
        ("host=a,me:secret@db", "host"),
        ("dbname=shop?password=secret", "dbname"),
        ("port=5432/pw=secret", "port"),
        ("user=u|pass=secret", "user"),
        ("sslmode=prefer,passwd=secret", "sslmode"),
        ("host=localhost;pwd=secret", "host"),
        ("dbname='postgresql://me:secret@db/shop'", "dbname"),
    ],
)
def test_password_in_another_parameter_is_not_shown(text: str, keyword: str) -> None:
    """pmpp refuses a parameter that seems to contain a password, and does not show it."""
    with pytest.raises(
        PmppError, match=f"^item 1: connection parameter {keyword} seems to contain a password$"
    ) as raised:
        from_string("item 1", text, SUPERUSER)
    assert raised.value.detail is None
    assert "separated by spaces" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("dbname", "password_store"),
        ("options", "-c app.password=x -c app.url=me:you@there"),
        ("application_name", "celery:w1@node2"),
        ("user", r"DOM:alice@corp"),
        ("sslcert", "/etc/a:b@c.pem"),
        ("host", "::1,@socket"),
        ("host", "/tmp/a:b@c"),
        # pmpp reads these in linear time.
        ("options", ":" * 1_000_000),
        ("host", "x" * 1_000_000),
    ],
)
def test_what_only_looks_like_a_password(keyword: str, value: str) -> None:
    """pmpp takes values that only look like a password."""
    target = from_string("item 1", f"{keyword}='{value}'", SUPERUSER)
    assert target.params[keyword] == value


@pytest.mark.parametrize(
    "text", ["connect_timeout=" + "9" * 400, "postgresql://localhost/%ff", "connect_timeout=soon"]
)
def test_what_cannot_be_read(text: str) -> None:
    """pmpp refuses text that is not a connection string, and says why."""
    with pytest.raises(PmppError, match=r"^item 1: conne") as raised:
        from_string("item 1", text, SUPERUSER)
    assert raised.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("database=shop", "database"),
        ("host=db databank = 'shop' password=secret", "databank"),
        (r"dbname='a b=\' c' Host=x", "Host"),
        ("USERNAME=me password=secret", "USERNAME"),
        ("passwort=secret word=secret", "passwort"),
        ("options=-c work_mem=3MB", "work_mem"),
    ],
)
def test_misspelt_keyword_is_named(text: str, keyword: str) -> None:
    """The error says which parameter libpq does not know."""
    with pytest.raises(
        PmppError, match=f'^item 1: unknown connection parameter "{keyword}"$'
    ) as raised:
        from_string("item 1", text, USER)
    assert raised.value.sqlstate == "22023"
    assert "dbname" in str(raised.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "secret=",
        "secret==",
        "S3cret=x",
        "seCret=x",
        "se-cret=x",
        "secretsecretsecretsecretsecret=x",
        "password=my secret=x",
        "password = my secret=x",
        "password='my' secret=x",
        "sslpassword=my secret=x",
        "host=me:my secret=x@db",
        "dbname=shop;my secret=x",
        "user=me secret dbname=x",
        "host='my secret=x",
        "host= 'my secret=x",
        "secret'=x",
        "postgresql://me:secret=x secret=y",
        "postgres://h/d?secret=x",
    ],
)
def test_part_of_a_password_is_not_named(text: str) -> None:
    """The error does not show text before = that may belong to a password."""
    with pytest.raises(PmppError) as raised:
        from_string("item 1", text, SUPERUSER)
    error = raised.value
    assert "secret" not in f"{error.message} {error.detail} {error.hint}".lower()


def test_port_that_is_none() -> None:
    """pmpp refuses a port that is not a number without showing it: it may be part of a password."""
    with pytest.raises(PmppError, match=r"^item 1: port must be a number, or one for each host$"):
        from_string("item 1", "postgresql://localhost:5432:secret/db", SUPERUSER)
    assert from_string("item 1", "host=a,b port=1,2", SUPERUSER).display_name == "host=a,b port=1,2"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("dbname=shop", [SERVER.host]),
        ("host=a,b", ["a", "b"]),
        ("host=,b", [SERVER.host, "b"]),
        ("hostaddr=1.2.3.4", ["1.2.3.4"]),
        ("host=a hostaddr=1.2.3.4", ["a", "1.2.3.4"]),
        ("postgresql://me:1%2Fsecret%40x@db/shop?application_name=a/b@c", ["db"]),
    ],
)
def test_hosts_that_limits_know(text: str, hosts: list[str]) -> None:
    """A limit applies to every host that a connection string names, as a name or an address."""
    assert from_string("item 1", text, SUPERUSER).hosts == hosts


@pytest.mark.parametrize(
    "keyword",
    [
        "passfile",
        "service",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "krbsrvname",
        "replication",
    ],
)
def test_ordinary_users_name_no_files(keyword: str) -> None:
    """An ordinary user cannot have libpq read files of the server's operating system user."""
    with pytest.raises(PmppError, match=f"{keyword} may only be used by superusers") as raised:
        from_string("item 3", f"dbname=x password=p {keyword}=1", USER)
    assert raised.value.sqlstate == "42501"


def test_ordinary_users_may_name_the_authorities_of_the_system() -> None:
    """An ordinary user may write sslrootcert=system, which names no file."""
    text = "dbname=x password=p sslrootcert=system ssl_min_protocol_version=TLSv1.3"
    params = from_string("item 1", text, USER).params
    assert params["sslrootcert"] == "system"
    assert params["ssl_min_protocol_version"] == "TLSv1.3"
    assert {"min_protocol_version", "max_protocol_version"} <= ORDINARY_KEYWORDS


def test_empty_values_are_none() -> None:
    """pmpp does not replace an empty value by the server's account or its certificate."""
    assert from_string("item 1", "dbname=x password=p user=''", USER).params["user"] == "bob"
    params = resolve(
        {"user": "", "password": "p", "sslcert": "", "sslkey": ""}, options={"sslcert": ""}
    ).params
    assert (params["user"], params["sslcert"], params["sslkey"]) == ("bob", *[NO_FILE] * 2)
    assert resolve({"user": "", "password_required": "false"}).params["user"] == "bob"


@pytest.mark.parametrize("of", ["server", "mapping"])
def test_scram_passthrough(of: str) -> None:
    """Only postgres_fdw can log in with the keys of the client's login."""
    option = {"use_scram_passthrough": "true"}
    server, mapping = (option, {}) if of == "server" else ({}, option)
    with pytest.raises(
        PmppError, match=r'^item 1: server "shop" has use_scram_passthrough, which'
    ) as raised:
        resolve({"user": "u", **mapping}, options=server)
    assert raised.value.sqlstate == "0A000"
    assert resolve({"user": "u", "password": "p", **mapping}, options=server)
    overridden = {"user": "u", "use_scram_passthrough": "off", "password_required": "no"}
    assert resolve(overridden, options=option)


@pytest.mark.parametrize("text", ["dbname=x", "dbname=x password=''", "postgresql:///x"])
def test_ordinary_users_need_a_password(text: str) -> None:
    """pmpp does not connect an ordinary user whose connection string has no password."""
    with pytest.raises(PmppError, match="item 1: a password is required") as raised:
        from_string("item 1", text, USER)
    assert raised.value.sqlstate == "2F003"


def test_ordinary_users_are_kept_from_the_credentials_of_the_server() -> None:
    """An ordinary user connects under its own name, and without the server's certificate."""
    target = from_string("item 1", "dbname=x password=p", USER)
    assert target.must_use_password
    assert target.params["user"] == "bob"
    assert target.params["sslcert"] == target.params["sslkey"] == "/dev/null/none"


@pytest.mark.parametrize(
    "text",
    [
        "dbname=x password=p",
        "dbname=x password=p gssencmode=prefer",
        "dbname=x password=p gssencmode=''",
    ],
)
def test_ordinary_users_have_no_kerberos(text: str) -> None:
    """pmpp turns Kerberos off for an ordinary user, whatever the caller writes."""
    params = from_string("item 1", text, USER).params
    assert params["gssencmode"] == "disable"
    assert params["gssdelegation"] == "0"
    assert params["krbsrvname"] == "pmpp-has-no-ticket"
    assert params["require_auth"] == "scram-sha-256,md5,password"
    options = {"gssdelegation": "1", "krbsrvname": "postgres", "gssencmode": "prefer"}
    mapping = {"user": "u", "password": "p"}
    assert NO_KERBEROS.items() <= resolve(mapping, options=options).params.items()
    assert "require_auth" not in from_string("item 1", text, SUPERUSER).params


def test_encryption_by_kerberos_is_refused() -> None:
    """pmpp refuses encryption by Kerberos, and does not silently connect without it."""
    with pytest.raises(PmppError, match="gssencmode=require may not be used"):
        from_string("item 1", "dbname=x password=p gssencmode=require", USER)


@pytest.mark.parametrize(
    ("require_auth", "left"),
    [
        ("scram-sha-256", "scram-sha-256"),
        ("md5,scram-sha-256", "scram-sha-256,md5"),
        ("password,gss,none", "password"),
        ("!password,!gss", "scram-sha-256,md5"),
        ("!gss", "scram-sha-256,md5,password"),
        ("", "scram-sha-256,md5,password"),
    ],
)
def test_require_auth_of_an_ordinary_user(require_auth: str, left: str) -> None:
    """require_auth of an ordinary user permits only methods that require the password."""
    target = from_string("item 1", f"dbname=x password=p require_auth='{require_auth}'", USER)
    assert target.params["require_auth"] == left


@pytest.mark.parametrize(
    "require_auth",
    ["gss", "none", "!scram-sha-256,!md5,!password", "md5,!gss", "!gss,md5", "md5,x", "md5,", ","],
)
def test_require_auth_that_permits_no_password(require_auth: str) -> None:
    """pmpp refuses an ordinary user whose require_auth permits no method with a password."""
    with pytest.raises(PmppError, match="must permit a method that asks for the password"):
        from_string("item 1", f"dbname=x password=p require_auth='{require_auth}'", USER)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", []),
        ("-c a=1", [("a", "1")]),
        ("-ca.b-c=1=2 --d-e=", [("a.b_c", "1=2"), ("d_e", "")]),
        (r"-c a=x\\ y -c b=\\\\", [("a", "x y"), ("b", "\\")]),
        ("-c Client-Encoding=latin1", []),
        ("-c a", None),
        ("-c", None),
        ("-c =1", None),
        ("a=1", None),
        ("-- a=1", None),
        ("-d 5", None),
        ("-c a=1 -e", None),
        ("-ec a=1", None),
        ("-W5", None),
    ],
)
def test_options_of_an_ordinary_user(options: str, settings: list[tuple[str, str]] | None) -> None:
    """pmpp applies settings in options after connecting, and refuses everything else in them."""
    text = f"dbname=x password=p options='{options}'"
    assert from_string("item 1", text, SUPERUSER).settings == ()
    if settings is None:
        with pytest.raises(PmppError, match="may only contain -c name=value") as raised:
            from_string("item 1", text, USER)
        assert raised.value.sqlstate == "42501"
    else:
        target = from_string("item 1", text, USER)
        assert (target.settings, target.params["options"]) == (settings, "")


def test_options_of_a_server_wait_for_the_password_too() -> None:
    """pmpp applies the options of a foreign server after the password check too."""
    mapping = {"user": "u", "password": "p"}
    assert resolve(mapping, options={"options": "-c a=1"}).settings == [("a", "1")]
    mapping = {"user": "u", "password_required": "false"}
    target = resolve(mapping, options={"options": "-d 5"})
    assert (target.settings, target.params["options"]) == ((), "-d 5")


def resolve(mapping: dict[str, str] | None, **fields: Any) -> Target:
    return from_server("item 1", FDW._replace(**fields), mapping, USER)


def test_server_options_that_libpq_does_not_know_are_left_out() -> None:
    """pmpp leaves out options of the wrapper, such as fetch_size, that libpq does not know."""
    target = resolve({"user": "u", "password": "p"})
    assert target.display_name == 'server "shop"'
    assert target.params["host"] == "db"
    assert "fetch_size" not in target.params
    assert target.must_use_password


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("host", ",".join("h" * 101), "connection has more than 100 hosts"),
        ("port", "5432:secret", "port must be a number"),
        ("dbname", "shop;password=secret", "connection parameter dbname seems to contain"),
    ],
)
def test_values_of_server_options_are_checked(keyword: str, value: str, message: str) -> None:
    """pmpp refuses a server option in the words in which it refuses one of a connection string."""
    with pytest.raises(PmppError, match=message):
        resolve({"user": "u", "password": "p"}, options={keyword: value})


@pytest.mark.parametrize("caller", [USER, SUPERUSER])
def test_server_options_that_are_dangerous_are_left_out(caller: Caller) -> None:
    """pmpp leaves out server options that anybody could write without a validator."""
    mapping = {"user": "u", "password": "p"}
    options = {option.keyword.decode(): "1" for option in Conninfo.get_defaults()}
    server = FDW._replace(
        options={**options, "servicefile": "1", "require_auth": "md5", "options": ""},
        is_postgres_fdw=False,
    )
    params = from_server("item 1", server, mapping, caller).params
    assert params["user"] == "u"
    assert params["password"] == "p"
    assert params["host"] == params["sslrootcert"] == "1"
    assert not [
        keyword
        for keyword in params
        if keyword.startswith(("oauth_", "scram_"))
        or keyword in ("replication", "authtype", "sslkeylogfile", "servicefile", "sslpassword")
    ]


@pytest.mark.parametrize("no", ["false", "off", "no", "0", "F", "of"])
def test_password_required_false_counts_for_postgres_fdw(no: str) -> None:
    """pmpp believes password_required=false of postgres_fdw, which only superusers can write."""
    assert not resolve({"user": "u", "password_required": no}).must_use_password


@pytest.mark.parametrize("yes", ["true", "on", "1", "", "o"])
def test_password_required_otherwise(yes: str) -> None:
    """The password stays required if PostgreSQL does not read password_required as false."""
    with pytest.raises(PmppError, match="a password is required"):
        resolve({"user": "u", "password_required": yes})


def test_password_required_false_counts_for_no_other_wrapper() -> None:
    """pmpp ignores password_required=false of any other wrapper, where anybody could write it."""
    with pytest.raises(PmppError, match="a password is required"):
        resolve({"user": "u", "password_required": "false"}, is_postgres_fdw=False)


def test_mapping_of_another_wrapper_sets_user_and_password_only() -> None:
    """A mapping that its user wrote cannot redirect the connection or name files."""
    mapping = {"user": "u", "password": "p", "host": "evil", "sslcert": "/x", "passfile": "/y"}
    target = resolve(mapping, is_postgres_fdw=False)
    assert target.params["host"] == "db"
    assert target.params["sslcert"] == "/dev/null/none"
    assert "passfile" not in target.params


def test_usage_and_mapping_are_needed() -> None:
    """A server without USAGE or without a mapping is an error that names it."""
    with pytest.raises(PmppError, match="permission denied for foreign server shop") as raised:
        resolve({}, has_usage=False)
    assert raised.value.sqlstate == "42501"
    with pytest.raises(PmppError, match='no user mapping of server "shop" applies to "bob"'):
        resolve(None)


def test_passwords_are_not_in_representations() -> None:
    """A debugger or a log that prints these objects shows no password."""
    assert "secret" not in repr(from_string("item 1", "dbname=x password=secret", USER))
    assert "secret" not in repr(ForeignServer("s", {"password": "secret"}, True, True))


@pytest.mark.parametrize(
    "text",
    [
        "postgres://{}",
        "postgres://x{}",
        "postgresql://h/{}",
        "host={}",
        "port={}",
        "dbname='{}'",
        "options='-c a={}'",
        "connect_timeout='{}'",
        "require_auth='{}'",
        "{}",
    ],
)
@pytest.mark.parametrize(
    "part", ["/", "@", ":", "a", "pw", " ", "pw ", "=", "'", "1", "\\", "-c", "a.", ","]
)
def test_long_text_is_read_in_linear_time(text: str, part: str) -> None:
    """A long text is read or refused at once. In quadratic time, it takes minutes."""
    before = signal.signal(signal.SIGVTALRM, lambda *_: pytest.fail("it takes too long"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        with suppress(PmppError):
            from_string("item 1", text.format(part * (300_000 // len(part))), SUPERUSER)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("dbname=shop", ["/run/postgresql::5433"]),
        ("dbname=shop host=", ["/run/postgresql::5433"]),
        ("host='' hostaddr='' port=''", ["/run/postgresql::5433"]),
        ("port=6000", ["/run/postgresql::6000"]),
        ("options='-c a=b'", ["/run/postgresql::5433"]),
        ("postgres:///shop", ["/run/postgresql::5433"]),
        ("postgresql://", ["/run/postgresql::5433"]),
        ("postgresql://me@:6000/shop", ["/run/postgresql::6000"]),
        ("host=a", ["a::5432"]),
        ("host=/tmp", ["/tmp::5432"]),
        ("hostaddr=192.0.2.1", [":192.0.2.1:5432"]),
        ("host=a hostaddr=192.0.2.1 port=7", ["a:192.0.2.1:7"]),
        ("host=a,b port=1,2", ["a::1", "b::2"]),
        ("host=a,b port=' 1 '", ["a::1", "b::1"]),
        ("host=a,b port=,2", ["a::5432", "b::2"]),
        ("host=,a", ["/run/postgresql::5433", "a::5432"]),
        ("host=a, port=1,", ["a::1", "/run/postgresql::5433"]),
        ("hostaddr=,192.0.2.1", ["/run/postgresql::5433", ":192.0.2.1:5432"]),
        ("host=a,b hostaddr=,192.0.2.1", ["a::5432", "b:192.0.2.1:5432"]),
    ],
)
def test_servers_to_try(monkeypatch: pytest.MonkeyPatch, text: str, servers: list[str]) -> None:
    """Where no host is named it is the local server, whatever its environment says."""
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.setenv(variable, "10.0.0.1")
    params = from_string("item 1", text, SUPERUSER).params
    entries = zip(*(params[k].split(",") for k in ("host", "hostaddr", "port")), strict=True)
    assert [":".join(entry) for entry in entries] == servers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host=a,b port=1,2,3", "port must be a number, or one for each host"),
        ("port=1,2", "port must be a number, or one for each host"),
        ("hostaddr=::1,::1 port=1,2,3", "port must be a number, or one for each host"),
        ("host=a,b hostaddr=::1", "host and hostaddr must have the same number of entries"),
        ("host=a hostaddr=::1,::1", "host and hostaddr must have the same number of entries"),
    ],
)
def test_numbers_that_differ(text: str, message: str) -> None:
    """Each host has its address and its port."""
    with pytest.raises(PmppError, match=f"^item 1: {message}$") as raised:
        from_string("item 1", text, SUPERUSER)
    assert raised.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("service=both", ("db1", "", "6000")),
        ("service=both host=db2", ("db2", "", "6000")),
        ("service=both host=''", ("/run/postgresql", "", "6000")),
        ("service=both port=7", ("db1", "", "7")),
        ("service=neither", ("/run/postgresql", "", "5433")),
        ("service=neither host=db2", ("db2", "", "5432")),
        ("service=list", ("db1,db2", "192.0.2.1,192.0.2.2", "5432,5432")),
        ("service=unknown", ("/run/postgresql", "", "5433")),
        ("dbname=shop", ("/run/postgresql", "", "5433")),
    ],
)
def test_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, servers: tuple[str, str, str]
) -> None:
    """The service that a connection names says where it leads, and not one of the environment."""
    file = tmp_path / "services"
    file.write_text(
        "[both]\nhost=db1\nport=6000\n[neither]\ndbname=x\n"
        "[list]\nhost=db1,db2\nhostaddr=192.0.2.1,192.0.2.2\ntarget_session_attrs=standby\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    if "service" not in text:
        monkeypatch.setenv("PGSERVICE", "both")
    params = from_string("item 1", text, SUPERUSER).params
    assert (params["host"], params["hostaddr"], params["port"]) == servers
    if text == "service=list":
        assert params["target_session_attrs"] == "standby"


@pytest.mark.parametrize("keyword", ["host", "hostaddr"])
def test_number_of_hosts(keyword: str) -> None:
    """A connection string has at most a hundred hosts."""
    assert from_string("item 1", f"{keyword}=" + ",".join(["::1"] * 100), SUPERUSER)
    with pytest.raises(PmppError, match=r"^item 1: connection has more than 100 hosts$") as raised:
        from_string("item 1", f"{keyword}=" + ",".join(["::1"] * 101), SUPERUSER)
    assert raised.value.sqlstate == "54000"
