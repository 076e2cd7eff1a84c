"""Addresses as operators have them, and what they come to for the async drivers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import asyncpg as dialect_module
from sqlalchemy.engine import URL

from orchestrator.databases.address import parse
from orchestrator.errors import ConfigurationError

#: Self-signed, in nobody's use, good for a hundred years; its key was thrown away.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUN/qiz6ZdgKo774G4zm6FZyZgASYwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjIyMTQ4MDZaGA8yMTI2MTAyOTIxNDgw
NlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLhI
0FN99fdnsPS2unW19NSUKhLcPFxd9H6YjPJ2bnVTm6RDOG+Us1qJKasx205s8kvm
kWMMgGodvgvXlFDIAX+jUzBRMB0GA1UdDgQWBBTaSmvWUjREj0DnpnFf+ux9Z0CP
ADAfBgNVHSMEGDAWgBTaSmvWUjREj0DnpnFf+ux9Z0CPADAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDgenHWsVAVpR4rKVjh3F/Yd3nuvM9/zF21
Ms/NzA9RjAIhANgyyWvmONJ8Vp1hYMcpwokB5JXENbJIWLMaLUINts/a
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2", "POSTGRES"]
)
def test_schemes(scheme: str) -> None:
    """Whatever driver the address was written for, asyncpg's dialect is used."""
    address = parse(f"{scheme}://u:p%40ss%2Fw@db1:5433/app")
    assert address.dialect == "postgresql"
    assert address.url == URL.create("postgresql+asyncpg", "u", "p@ss/w", "db1", 5433, "app")
    assert address.connect_args == {}
    assert address.identity == "db1:5433"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sslmode=disable", {"ssl": "disable"}),
        ("sslmode=allow", {"ssl": "allow"}),
        ("sslmode=prefer", {"ssl": "prefer"}),
        ("sslmode=require", {"ssl": "require"}),
        ("ssl=require", {"ssl": "require"}),
        ("ssl=true", {"ssl": "require"}),
        ("application_name=my%20app", {"server_settings": {"application_name": "my app"}}),
        ("fallback_application_name=x", {"server_settings": {"application_name": "x"}}),
        ("application_name=a&fallback_application_name=x", {"server_settings": {"application_name": "a"}}),
        ("options=-c%20work_mem%3D8MB", {"server_settings": {"work_mem": "8MB"}}),
        ("options=-cwork_mem%3D8MB%20-c%20a.b%3Dc%3Dd", {"server_settings": {"work_mem": "8MB", "a.b": "c=d"}}),
        ("options=--work-mem%3D8MB", {"server_settings": {"work_mem": "8MB"}}),
        ("options=-csearch_path%3Da,%5C%20b", {"server_settings": {"search_path": "a, b"}}),
        ("options=-c%20a.b%3Dx%5C%5Cy", {"server_settings": {"a.b": "x\\y"}}),
        ("options=-c%20a.b%3D", {"server_settings": {"a.b": ""}}),
        ("options=", {}),
        ("connect_timeout=5", {"timeout": 5.0}),
        ("connect_timeout=0", {"timeout": None}),
        ("connect_timeout=-1", {"timeout": None}),
        ("timeout=2.5", {"timeout": 2.5}),
        ("command_timeout=30", {"command_timeout": 30.0}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("passfile=/home/x/.pgpass", {"passfile": "/home/x/.pgpass"}),
        (
            "prepared_statement_cache_size=0&statement_cache_size=0",
            {"prepared_statement_cache_size": 0, "statement_cache_size": 0},
        ),
        ("keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=1", {}),
        ("gssencmode=disable&channel_binding=prefer&client_encoding=UTF8&sslnegotiation=postgres", {}),
    ],
)
def test_parameters(query: str, expected: dict[str, Any]) -> None:
    """libpq's parameters, and asyncpg's own, as asyncpg takes them; none is left in the URL."""
    address = parse(f"postgresql://u@h/d?{query}")
    assert address.connect_args == expected
    assert address.url.query == {}


@pytest.mark.parametrize(
    ("url", "host", "port", "identity"),
    [
        ("postgresql://[2001:db8::1]:5433/d", "2001:db8::1", 5433, "[2001:db8::1]:5433"),
        ("postgresql://[::1]/d", "::1", None, "[::1]:5432"),
        ("postgresql://DB1/d", "DB1", None, "db1:5432"),
        ("postgresql:///d", None, None, "localhost:5432"),
        ("postgresql:///d?host=db1&port=5433", "db1", 5433, "db1:5433"),
        ("postgresql://db1/d?port=5433", "db1", 5433, "db1:5433"),
        ("postgresql://db0:1/d?host=db1", "db1", 1, "db1:1"),
        ("postgresql://db1/d?hostaddr=10.0.0.1", "10.0.0.1", None, "10.0.0.1:5432"),
        ("postgresql:///d?host=/var/run/postgresql", "/var/run/postgresql", None, "/var/run/postgresql:5432"),
        ("postgresql:///d?host=%2Ftmp&port=5433", "/tmp", 5433, "/tmp:5433"),
        ("postgresql://%2Fvar%2Frun/d", "/var/run", None, "/var/run:5432"),
        ("postgresql://h1:1,h2:2/d", ["h1", "h2"], [1, 2], "h1:1,h2:2"),
        ("postgresql://h1,h2/d?port=7", ["h1", "h2"], [7, 7], "h1:7,h2:7"),
        ("postgresql:///d?host=h1,h2&port=1,2", ["h1", "h2"], [1, 2], "h1:1,h2:2"),
        ("postgresql://h1,h2:2/d?target_session_attrs=primary", ["h1", "h2"], [5432, 2], "h1:5432,h2:2"),
    ],
)
def test_hosts(url: str, host: Any, port: Any, identity: str) -> None:
    """Hosts, sockets and several hosts, in the address or as parameters; and which physical server that is."""
    address = parse(url)
    arguments = address.asyncpg_arguments()
    assert (arguments.get("host"), arguments.get("port")) == (host, port)
    assert address.identity == identity
    assert through_sqlalchemy(url) == arguments


def through_sqlalchemy(url: str) -> dict[str, Any]:
    """What SQLAlchemy's dialect would pass to asyncpg for an engine made with url and connect_args."""
    address = parse(url)
    _, arguments = dialect_module.dialect().create_connect_args(address.url)
    return {**arguments, **address.connect_args}


def test_user_and_database_as_parameters() -> None:
    """What stands in the parameters wins, as in libpq."""
    address = parse("postgresql://a:b@h/c?user=u&password=p%2Bw%20x&dbname=d")
    assert (address.url.username, address.url.password, address.url.database) == ("u", "p+w x", "d")


def test_asyncpg_arguments() -> None:
    """Everything asyncpg.connect needs, and nothing that only SQLAlchemy's dialect knows."""
    url = "postgresql://u:p%40@h:1/d?application_name=a&prepared_statement_cache_size=0&statement_cache_size=0"
    assert parse(url).asyncpg_arguments() == {
        "host": "h",
        "port": 1,
        "user": "u",
        "password": "p@",
        "database": "d",
        "server_settings": {"application_name": "a"},
        "statement_cache_size": 0,
    }


def test_with_database() -> None:
    """Another database on the same server; its name needs no encoding."""
    address = parse("postgresql://u:p@h/d?sslmode=require").with_database("ten/ant?x")
    assert (address.url.database, address.url.password, address.identity) == ("ten/ant?x", "p", "h:5432")
    assert address.connect_args == {"ssl": "require"}


def test_masked() -> None:
    """People see where it goes; nobody sees the password."""
    address = parse("postgresql://u:geheim@h/d?sslmode=require&password=geheim2")
    assert address.masked == "postgresql://u:***@h:5432/d"
    assert parse("postgresql://u@h1,h2/d").masked == "postgresql://u@h1:5432,h2:5432/d"
    assert "geheim" not in f"{address!r} {address}"


@pytest.mark.parametrize(
    "url", ["sqlite:///data/t.db", "sqlite+aiosqlite:///data/t.db", "sqlite+pysqlite:///data/t.db"]
)
def test_sqlite(url: str) -> None:
    """A file or directory, for aiosqlite."""
    address = parse(url)
    assert (address.dialect, address.url) == ("sqlite", URL.create("sqlite+aiosqlite", database="data/t.db"))
    assert (address.identity, address.masked) == ("data/t.db", "sqlite:///data/t.db")
    assert address.with_database("/x/y.db").url.database == "/x/y.db"
    assert parse(f"{url}?timeout=3").connect_args == {"timeout": 3.0}


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("postgresql://u:geheim@h/d?sslmod=require", "`sslmod`", "did you mean `sslmode`?"),
        ("postgresql://u:geheim@h/d?foo=geheim&bar=1", "`foo`, `bar`", "options="),
        ("postgresql://u:geheim@h/d?search_path=x", "`search_path`", "options="),
        ("postgresql://u:geheim@h/d?sslmode=on", "`sslmode` is unknown", "verify-full"),
        ("postgresql://u:geheim@h/d?connect_timeout=soon", "`connect_timeout` is not a number of seconds", "=10"),
        ("postgresql://u:geheim@h/d?statement_cache_size=-1", "`statement_cache_size` is not a whole number", "=0"),
        ("postgresql://u:geheim@h/d?target_session_attrs=master", "`target_session_attrs` is unknown", "primary"),
        ("postgresql://u:geheim@h/d?options=-x", "not of the form -c name=value", "options="),
        ("postgresql://u:geheim@h/d?options=-c", "end in a `-c`", "-c name=value"),
        ("postgresql://u:geheim@h/d?options=-c%20-c%20a%3Db", "not of the form -c name=value", "options="),
        ("postgresql://u:geheim@h/d?channel_binding=require", "asyncpg cannot honour channel_binding=require", "take"),
        ("postgresql://u:geheim@h/d?gssencmode=require", "asyncpg cannot honour gssencmode=require", "take"),
        ("postgresql://u:geheim@h/d?client_encoding=latin1", "asyncpg cannot honour client_encoding=latin1", "take"),
        ("postgresql://u:geheim@h1,h2/d?port=1,2,3", "`host` and `port` do not fit", "one per host"),
        ("postgresql://u:geheim@/d?host=h1,,h2", "`host` and `port` do not fit", "one per host"),
        ("postgresql://u:geheim@h:port/d", "port is not a number", "percent-encode"),
        ("postgresql://u:geheim@h/d?hostaddr=1.2.3.4&sslmode=verify-full", "`hostaddr`", "host's name"),
        ("postgresql+oracle://u:geheim@h/d", "the driver `oracle`", "without a driver"),
        ("mysql://u:geheim@h/d", "no adapter for `mysql`", "postgresql://"),
        ("geheim", "not a database URL", "postgresql://"),
        ("", "not a database URL", "postgresql://"),
        ("sqlite://", "must name a file or directory", "sqlite:///"),
        ("sqlite:///:memory:", "must name a file or directory", "sqlite:///"),
        ("sqlite://data/t.db", "names no host", "three slashes"),
        ("sqlite:///t.db?mode=ro", "`mode`", "take it out"),
    ],
)
def test_refusals(url: str, message: str, hint: str) -> None:
    """What cannot be honoured is refused by name, with what to write instead and without the address."""
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert "geheim" not in f"{caught.value} {caught.value.hint}"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a certificate, and a home without any."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "text.pem").write_text("no certificate")
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "verify", "check_hostname"),
    [
        ("verify-full", ssl.CERT_REQUIRED, True),
        ("verify-ca", ssl.CERT_REQUIRED, False),
        ("require", ssl.CERT_REQUIRED, False),
    ],
)
def test_root_certificate(files: Path, mode: str, verify: ssl.VerifyMode, check_hostname: bool) -> None:
    """With a root certificate the server's is verified, with `require` too, as libpq does."""
    context = parse(f"postgresql://h/d?sslmode={mode}&sslrootcert={files}/ca.pem").connect_args["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (verify, check_hostname)
    assert context.cert_store_stats()["x509"] == 1


def test_require_alone_verifies_nothing(files: Path) -> None:
    """Without a root certificate `require` encrypts and does not verify, whatever other files there are."""
    context = parse(f"postgresql://h/d?sslmode=require&sslcrl={files}/ca.pem").connect_args["ssl"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_CHAIN


def test_system_roots(files: Path) -> None:
    """sslrootcert=system is the machine's own store, and only with verify-full."""
    context = parse("postgresql://h/d?sslmode=verify-full&sslrootcert=system").connect_args["ssl"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(ConfigurationError, match="only safe with verify-full"):
        parse("postgresql://h/d?sslmode=require&sslrootcert=system")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_where_the_root_certificate_is_looked_for(files: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Without sslrootcert: PGSSLROOTCERT, then the home directory; with none, it is told now and not at connect."""
    url = f"postgresql://h/d?sslmode={mode}"
    with pytest.raises(ConfigurationError, match="needs a root certificate") as caught:
        parse(url)
    assert "sslrootcert=" in str(caught.value.hint)
    monkeypatch.setenv("PGSSLROOTCERT", str(files / "ca.pem"))
    assert parse(url).connect_args == {"ssl": mode}
    monkeypatch.delenv("PGSSLROOTCERT")
    (files / ".postgresql").mkdir()
    (files / ".postgresql" / "root.crt").write_text(CERTIFICATE)
    assert parse(url).connect_args == {"ssl": mode}
    with_list = parse(f"{url}&sslcrl={files}/ca.pem").connect_args["ssl"]
    assert with_list.verify_mode == ssl.CERT_REQUIRED
    assert with_list.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=verify-full&sslrootcert={files}/missing.pem",
        "sslmode=verify-full&sslrootcert={files}/text.pem",
        "sslmode=require&sslcert={files}/ca.pem",
        "sslmode=require&sslcert={files}/ca.pem&sslkey={files}/text.pem",
        "sslmode=verify-ca&sslrootcert={files}/ca.pem&sslcrl={files}/missing.pem",
    ],
)
def test_bad_files(files: Path, query: str) -> None:
    """A file that is missing or holds something else is told when the address is read."""
    with pytest.raises(ConfigurationError, match="cannot be used"):
        parse(f"postgresql://h/d?{query.format(files=files)}")


@pytest.mark.parametrize("query", ["sslrootcert={files}/ca.pem", "sslmode=prefer&sslcert={files}/ca.pem"])
def test_files_with_a_mode_that_may_fall_back(files: Path, query: str) -> None:
    """Certificates beside a mode that may end in plain text promise what is not kept: refused."""
    with pytest.raises(ConfigurationError, match="may fall back to plain text") as caught:
        parse(f"postgresql://h/d?{query.format(files=files)}")
    assert "verify-full" in str(caught.value.hint)


def test_certificates_of_no_use(files: Path) -> None:
    """With sslmode=disable files are not even read, as in libpq."""
    assert parse("postgresql://h/d?sslmode=disable&sslrootcert=/nowhere").connect_args == {"ssl": "disable"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_password(password: str) -> None:
    """A password that SQLAlchemy wrote into a URL is read back as it was."""
    url = URL.create("postgresql", "u", password, "h", database="d").render_as_string(hide_password=False)
    assert parse(url).asyncpg_arguments()["password"] == password
