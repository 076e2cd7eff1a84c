"""Masking: no secret that this process has read is ever shown again.

Two nets, because each has holes. The first knows the *place* of a password (``://user:password@``, ``password=...``)
and hides whatever stands there. The second knows the *values* that were read and hides them wherever they turn up: in a
server's message, a statement, a traceback of the user's own code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from threading import Lock
from urllib.parse import quote, quote_plus, unquote

#: What is shown in a secret's place.
MASK = "***"

#: A value shorter than this is hidden only where a password stands: masking each "app" or "1" would make every message
#: unreadable and would show, by what is missing, what the password is.
_SHORTEST = 4
#: From this length on a value is hidden inside longer words too; a shorter one only where it stands alone.
_ANYWHERE = 8
#: Words this program prints all the time. As passwords they protect nothing, and hiding them would garble each message.
_COMMON = frozenset(
    {
        *("postgres", "postgresql", "asyncpg", "sqlite", "localhost", "public", "password", "admin", "root", "user"),
        *("tenant", "tenants", "schema", "schemas", "database", "databases", "server", "servers", "default", "main"),
        *("head", "heads", "base", "upgrade", "downgrade", "revision", "true", "false", "none", "null", "test"),
    }
)
#: Values remembered, the latest used last: cloud tokens differ at every connection and a worker lives for weeks.
_REMEMBERED = 2000

#: What was read, to the forms it may be met in; and all those forms, put together when they are next needed.
_values: dict[str, tuple[str, ...]] = {}
_sorted: list[str] = []
_lock = Lock()

_USERINFO = re.compile(r"(://[^\s:/?#@'\"]*:)[^\s'\"]*@")
_ASSIGNED = re.compile(
    r"(?i)(\b\w*(?:password|passwd|pwd)(?:\s*=\s*|['\"]\s*:\s*))"
    r"('(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|[^\s&;'\"]+)"
)
_SQL_PASSWORD = re.compile(r"(?i)(\bpassword\s+)'(?:[^']|'')*'")
#: One of these is in whatever the two expressions before find, once case is folded.
_WORDS = ("password", "passwd", "pwd")


def remember(value: str) -> None:
    """Hide ``value``, and every form of it that an address or a log line may hold, from now on."""
    plain = unquote(value)
    if len(plain) < _SHORTEST or plain.lower() in _COMMON:
        return
    with _lock:
        if value in _values:
            _values[value] = _values.pop(value)
            return
        _values[value] = tuple(_forms(value))
        _sorted.clear()
        while len(_values) > _REMEMBERED:
            del _values[next(iter(_values))]


def mask(text: str) -> str:
    """Return ``text`` without any secret.

    Hidden are the values that :meth:`Template.resolve <orchestrator.fleet.secrets.Template.resolve>` has read in this
    process, also percent-encoded, percent-decoded or escaped as JSON, and whatever stands in an address's password
    or after ``password=``. Values under 4 characters, and words such as ``postgres``, are hidden only in such a place;
    values of 4 to 7 characters only where they are a word of their own.
    """
    # Values first, the longest first: a place or a shorter value, once hidden, leaves the rest of a longer one.
    for form in _longest_first():
        if form in text:
            text = _hide(form, text)
    if "://" in text:
        text = _USERINFO.sub(rf"\1{MASK}@", text)
    # Looked for first: most texts have none of these words, and thousands of them are masked at once.
    folded = text.casefold()
    if any(word in folded for word in _WORDS):
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
        text = _SQL_PASSWORD.sub(rf"\1'{MASK}'", text)
    return text


def _longest_first() -> list[str]:
    with _lock:
        if not _sorted and _values:
            _sorted.extend(sorted({form for forms in _values.values() for form in forms}, key=len, reverse=True))
        return list(_sorted)


def _hide(form: str, text: str) -> str:
    if len(form) >= _ANYWHERE:
        return text.replace(form, MASK)
    return re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK, text)


def _forms(value: str) -> Iterator[str]:
    seen = set()
    for plain in (value, unquote(value)):
        candidates = (
            plain,
            quote(plain, safe=""),
            quote(plain, safe="/"),
            quote(plain, safe=" +"),  # SQLAlchemy's own way to write a password into a URL
            quote_plus(plain),
            json.dumps(plain)[1:-1],
            json.dumps(plain, ensure_ascii=False)[1:-1],
            repr(plain)[1:-1],
            plain.replace("'", "''"),
            plain.replace("%", "%%"),  # in a format string, RAISE's among them
            plain.replace("'", "''").replace("%", "%%"),
        )
        for form in candidates:
            for cased in (form, re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form)):
                if cased not in seen and len(cased) >= _SHORTEST:
                    seen.add(cased)
                    yield cased
