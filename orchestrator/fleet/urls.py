"""Database addresses as text: taken apart without SQLAlchemy, which ``orchestrator --help`` must not wait for.

The rules are those of RFC 3986 and libpq ("Connection URIs" in PostgreSQL's manual): the user part ends at the last
``@`` before the first ``/``, ``?`` or ``#``, and every part may be percent-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from orchestrator.errors import ConfigurationError

#: Schemes of PostgreSQL, with any driver after a ``+``.
POSTGRESQL = frozenset({"postgres", "postgresql"})
#: Scheme of SQLite, with any driver after a ``+``.
SQLITE = "sqlite"

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9.\-]*)(?:\+([A-Za-z0-9_.\-]+))?://")
#: Stands for a secret: ``${NAME}``, ``${file:...}``, ``${command:...}``; see :mod:`orchestrator.fleet.secrets`.
_REFERENCE = re.compile(r"\$\{[^}]*\}")
_ENCODE_HINT = "percent-encode what is special in a user name or password: @ as %40, / as %2F, # as %23, % as %25"


@dataclass(frozen=True, slots=True)
class Parts:
    """A database address taken apart, every part percent-decoded."""

    #: Lower case, without the driver: ``postgresql``.
    scheme: str
    #: What follows the ``+``; ``None`` without one.
    driver: str | None
    user: str | None
    password: str | None = field(repr=False)
    #: Hosts with their ports; a host is never empty.
    hosts: tuple[tuple[str, int | None], ...]
    #: What follows the ``/``; ``None`` when empty.
    database: str | None
    #: Parameters in their order; one that stands twice is an error.
    query: dict[str, str] = field(repr=False)


def dialect_of(text: str) -> str | None:
    """``postgresql``, ``sqlite``, another scheme as it stands, or ``None`` for a text that does not start with one."""
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme = found[1].lower()
    return "postgresql" if scheme in POSTGRESQL else scheme


def split(text: str) -> Parts:
    """Take an address apart.

    Raises:
        ConfigurationError: it is no address. The message never holds the text, which may be one big secret.
    """
    found = _SCHEME.match(text)
    if found is None:
        raise ConfigurationError("not a database URL", hint="write it as postgresql://user@host:5432/database")
    rest = text[found.end() :].strip()
    end = min((at for at in (rest.find(mark) for mark in "/?#") if at >= 0), default=len(rest))
    userinfo, at, hosts = rest[:end].rpartition("@")
    path, _, query = rest[end:].partition("?")
    if "#" in path or "#" in query:
        raise ConfigurationError("a database URL has no `#` part", hint=_ENCODE_HINT)
    user, colon, password = userinfo.partition(":")
    return Parts(
        scheme="postgresql" if found[1].lower() in POSTGRESQL else found[1].lower(),
        driver=found[2],
        user=unquote(user) or None if at else None,
        password=unquote(password) if colon else None,
        hosts=tuple(_host(part) for part in hosts.split(",")) if hosts else (),
        database=unquote(path[1:]) or None,
        query=_query(query),
    )


def has_password(text: str) -> bool:
    """Whether a password stands in an address itself, and not as a reference: ``${NAME}`` is none.

    Raises:
        ConfigurationError: it is no address.
    """
    parts = split(_REFERENCE.sub("", text))
    return bool(parts.password or parts.query.get("password"))


def port(text: str) -> int | None:
    """A port number; ``None`` for an empty text.

    Raises:
        ConfigurationError: it is not a number from 1 to 65535.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise ConfigurationError("the URL's port is not a number from 1 to 65535", hint=_ENCODE_HINT)
    return int(text)


def _host(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ConfigurationError("the URL's IPv6 host lacks its `]`", hint="write it as [2001:db8::1]:5432")
        return unquote(host), port(after[1:])
    host, _, number = text.partition(":")
    if not host:
        raise ConfigurationError("the URL names a port without a host", hint="write host:port")
    return unquote(host), port(number)


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for part in text.split("&") if text else ():
        key, equals, value = part.partition("=")
        key = unquote(key)
        if not key or not equals:
            hint = "write ?name=value&name=value"
            raise ConfigurationError("a parameter of the URL is not of the form name=value", hint=hint)
        if key in query:
            raise ConfigurationError(f"the URL's parameter `{key}` stands there twice", hint="keep one of them")
        query[key] = unquote(value)
    return query
