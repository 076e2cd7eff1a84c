"""Addresses as operators have them, made into what asyncpg, aiosqlite and SQLAlchemy's dialects for them take.

An operator's address was written for libpq (psql, psycopg, the cloud's console): its parameters are those of
"Parameter Key Words" in PostgreSQL's manual. asyncpg takes some under other names and some not at all, and SQLAlchemy's
dialect passes all of them on as they stand, where they end in a TypeError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.databases.tls import tls_argument
from orchestrator.errors import ConfigurationError
from orchestrator.fleet import urls
from orchestrator.fleet.nearest import did_you_mean

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_DEFAULT_PORT = 5432
_DRIVERS = {
    "postgresql": frozenset({None, "asyncpg", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "pg8000"}),
    "sqlite": frozenset({None, "aiosqlite", "pysqlite"}),
}
#: Only SQLAlchemy's dialect knows these arguments, asyncpg.connect does not.
_DIALECT_ONLY = frozenset({"prepared_statement_cache_size"})

#: Parameters that tune the socket or say what asyncpg does anyway: nothing is lost when they are left out.
_WITHOUT_EFFECT: Mapping[str, frozenset[str] | None] = {
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "gssencmode": frozenset({"disable", "prefer"}),
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"utf8", "utf-8", "unicode", "auto"}),
    "sslnegotiation": frozenset({"postgres"}),
}
_SESSION_KINDS = frozenset({"any", "primary", "standby", "read-write", "read-only", "prefer-standby"})
_TLS = frozenset({"ssl", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"})
_OPTION = re.compile(r"(?:-c ?|--)([A-Za-z_][\w.\-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to log in; resolved, so only ever shown as :attr:`masked`."""

    #: SQLAlchemy's name of the dialect: ``postgresql`` or ``sqlite``.
    dialect: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    #: ``None`` where :attr:`connect_args` has several, or a socket's directory, and where none was given.
    host: str | None = None
    port: int | None = None
    #: Its name; for SQLite the path of a file.
    database: str | None = None
    #: What the parameters came to, for ``create_async_engine(connect_args=...)``.
    connect_args: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)
    #: The physical server: ``host:port``, several joined by commas; for SQLite the path.
    identity: str = ""

    @property
    def url(self) -> URL:
        """For SQLAlchemy's async dialects, without parameters."""
        # Here and not above: whoever only connects by the driver does without SQLAlchemy.
        from sqlalchemy.engine import URL

        driver = "sqlite+aiosqlite" if self.dialect == "sqlite" else "postgresql+asyncpg"
        return URL.create(driver, self.user, self.password, self.host, self.port, self.database)

    @property
    def masked(self) -> str:
        """The address for people: without password and parameters."""
        if self.dialect == "sqlite":
            return f"sqlite:///{self.database}"
        user = "" if self.user is None else f"{self.user}{':***' if self.password else ''}@"
        return f"postgresql://{user}{self.identity}/{self.database or ''}"

    def with_database(self, name: str) -> Address:
        """The same server with another database; of SQLite, another file."""
        identity = name if self.dialect == "sqlite" else self.identity
        return replace(self, database=name, identity=identity)

    def asyncpg_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``asyncpg.connect``."""
        given = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }
        arguments = {name: value for name, value in self.connect_args.items() if name not in _DIALECT_ONLY}
        return {name: value for name, value in given.items() if value is not None} | arguments


def parse(url: str) -> Address:
    """Read an address.

    Args:
        url: with its secrets put in: ``postgres://``, ``postgresql://`` or ``sqlite://``, maybe with a ``+driver``.

    Raises:
        ConfigurationError: it is no address, names another dialect, or has a parameter that cannot be honoured. The
            message never holds the address itself.
    """
    parts = urls.split(url)
    drivers = _DRIVERS.get(parts.scheme)
    if drivers is None:
        raise ConfigurationError(
            f"there is no adapter for `{parts.scheme}` databases", hint="write postgresql://... or sqlite:///..."
        )
    if parts.driver not in drivers:
        raise ConfigurationError(
            f"the driver `{parts.driver}` of the URL is not known", hint=f"write {parts.scheme}:// without a driver"
        )
    return _sqlite(parts) if parts.scheme == "sqlite" else _postgresql(parts)


def _sqlite(parts: urls.Parts) -> Address:
    if parts.hosts or parts.user:
        raise ConfigurationError("a SQLite URL names no host", hint="write three slashes: sqlite:///data/tenants.db")
    if parts.database is None or parts.database == ":memory:":
        raise ConfigurationError("a SQLite URL must name a file or directory", hint="write sqlite:///data/tenants")
    query = dict(parts.query)
    arguments = {"timeout": _seconds("timeout", query.pop("timeout"))} if "timeout" in query else {}
    _refuse_unknown(query, ["timeout"])
    return Address("sqlite", database=parts.database, connect_args=arguments, identity=parts.database)


def _postgresql(parts: urls.Parts) -> Address:
    query = dict(parts.query)
    tls = {name: query.pop(name) for name in sorted(_TLS & query.keys())}
    hosts = _hosts(parts, query, tls)
    user, password = query.pop("user", None) or parts.user, query.pop("password", None) or parts.password
    database = query.pop("dbname", None) or parts.database
    arguments: dict[str, Any] = {}
    settings = _options(query.pop("options", ""))
    fallback = query.pop("fallback_application_name", None)
    name = query.pop("application_name", None) or fallback
    if name:
        settings["application_name"] = name
    if settings:
        arguments["server_settings"] = settings
    for key, (argument, convert) in _ARGUMENTS.items():
        if key in query:
            arguments[argument] = convert(key, query.pop(key))
    _drop_without_effect(query)
    _refuse_unknown(
        query, [*_ARGUMENTS, *_WITHOUT_EFFECT, *sorted(_TLS), "application_name", "options", "host", "port"]
    )
    if tls:
        arguments["ssl"] = tls_argument(tls)
    host, port = hosts[0] if len(hosts) == 1 else (None, None)
    if len(hosts) > 1:
        arguments["host"] = [host for host, _ in hosts]
        arguments["port"] = [port or _DEFAULT_PORT for _, port in hosts]
    elif host is not None and host.startswith("/"):
        # A socket's directory: asyncpg takes it as host, a URL could not hold it there.
        arguments["host"], host = host, None
    identity = ",".join(_shown(host, port) for host, port in hosts)
    return Address("postgresql", user, password, host, port, database, arguments, identity)


def _shown(host: str | None, port: int | None) -> str:
    """One host as it is told from others."""
    host = (host or "localhost").lower()
    return f"{f'[{host}]' if ':' in host else host}:{port or _DEFAULT_PORT}"


def _hosts(parts: urls.Parts, query: dict[str, str], tls: Mapping[str, str]) -> list[tuple[str | None, int | None]]:
    """The hosts in the order they are tried, as libpq reads them; parameters win over what stands before the path.

    Without any, host is ``None``: asyncpg then tries the usual sockets and localhost, as libpq does.
    """
    names = query.pop("host", None)
    ports = query.pop("port", None)
    addresses = query.pop("hostaddr", None)
    if addresses is not None:
        if tls.get("sslmode") == "verify-full":
            raise ConfigurationError(
                "with `hostaddr` the certificate's name cannot be verified here",
                hint="use the host's name in its place",
            )
        names = addresses
    hosts: list[str | None] = [*names.split(",")] if names else [host for host, _ in parts.hosts] or [None]
    given = [urls.port(port) for port in ports.split(",")] if ports else [port for _, port in parts.hosts]
    if len(given) <= 1:
        given = (given or [None]) * len(hosts)
    if len(given) != len(hosts) or "" in hosts:
        raise ConfigurationError(
            "the URL's `host` and `port` do not fit each other", hint="give one port, or one per host"
        )
    return list(zip(hosts, given, strict=True))


def _options(text: str) -> dict[str, str]:
    """Settings out of libpq's ``options``: ``-c name=value --name=value``, a space in a value written as ``\\ ``."""
    settings: dict[str, str] = {}
    # A backslash keeps the next character; spaces split. `-c` may stand apart from its setting.
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", text, re.DOTALL)]
    pending = ""
    for word in words:
        if word == "-c" and not pending:
            pending = "-c "
            continue
        found = _OPTION.fullmatch(pending + word)
        if found is None:
            raise ConfigurationError(
                "the URL's `options` are not of the form -c name=value", hint="write options=-c%20name%3Dvalue"
            )
        settings[found[1].replace("-", "_")] = found[2]
        pending = ""
    if pending:
        raise ConfigurationError("the URL's `options` end in a `-c` without a setting", hint="write -c name=value")
    return settings


def _drop_without_effect(query: dict[str, str]) -> None:
    for name, harmless in _WITHOUT_EFFECT.items():
        value = query.get(name)
        if value is None:
            continue
        if harmless is not None and value.lower() not in harmless:
            raise ConfigurationError(
                f"asyncpg cannot honour {name}={value} of the URL", hint=f"take `{name}` out of the URL"
            )
        del query[name]


def _refuse_unknown(query: Mapping[str, str], known: list[str]) -> None:
    if query:
        names = ", ".join(f"`{name}`" for name in query)
        near = did_you_mean(next(iter(query)), known)
        hint = f"did you mean `{near}`?" if near else "take it out, or set it by options=-c%20name%3Dvalue"
        raise ConfigurationError(f"unknown in the URL: {names}", hint=hint)


def _connect_timeout(name: str, value: str) -> float | None:
    # libpq: zero, negative or empty means to wait for ever.
    return None if value.startswith("-") or _seconds(name, value or "0") == 0 else _seconds(name, value)


def _seconds(name: str, value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise ConfigurationError(f"the URL's `{name}` is not a number of seconds", hint=f"write {name}=10")
    return float(value)


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ConfigurationError(f"the URL's `{name}` is not a whole number", hint=f"write {name}=0")
    return int(value)


def _session_kind(name: str, value: str) -> str:
    if value not in _SESSION_KINDS:
        raise ConfigurationError(f"the URL's `{name}` is unknown", hint=f"one of: {', '.join(sorted(_SESSION_KINDS))}")
    return value


def _as_it_is(_: str, value: str) -> str:
    return value


#: Parameter to asyncpg's argument and what makes its value: libpq's names first, then those of asyncpg's own URLs.
_ARGUMENTS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "connect_timeout": ("timeout", _connect_timeout),
    "target_session_attrs": ("target_session_attrs", _session_kind),
    "passfile": ("passfile", _as_it_is),
    "krbsrvname": ("krbsrvname", _as_it_is),
    "timeout": ("timeout", _connect_timeout),
    "command_timeout": ("command_timeout", _seconds),
    "statement_cache_size": ("statement_cache_size", _count),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", _count),
}
