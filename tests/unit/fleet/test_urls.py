"""Addresses taken apart as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.urls import dialect_of, has_password, split


def test_split() -> None:
    """Every part, percent-decoded."""
    parts = split("postgres+psycopg2://u%40x:p%2Fw%3A:x@[::1]:5433,h2,h3:1/d%20b?sslmode=require&options=-c%20a%3Db")
    assert (parts.scheme, parts.driver, parts.user, parts.password) == ("postgresql", "psycopg2", "u@x", "p/w::x")
    assert parts.hosts == (("::1", 5433), ("h2", None), ("h3", 1))
    assert parts.database == "d b"
    assert parts.query == {"sslmode": "require", "options": "-c a=b"}


def test_least() -> None:
    """Nothing but a scheme is an address to libpq."""
    parts = split("postgresql://")
    assert (parts.user, parts.password, parts.hosts, parts.database, parts.query) == (None, None, (), None, {})


def test_raw_at_sign_in_a_password() -> None:
    """An @ that should have been encoded still parts where it must: at the last one before the path."""
    parts = split("postgresql://u:p@ss@h/db?application_name=me@here")
    assert (parts.password, parts.hosts, parts.query["application_name"]) == ("p@ss", (("h", None),), "me@here")


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("postgres://x", "postgresql"),
        ("PostgreSQL+asyncpg://x", "postgresql"),
        ("sqlite:///x", "sqlite"),
        ("mysql+aiomysql://x", "mysql"),
        ("${URL}", None),
        ("", None),
        ("C:\\data", None),
    ],
)
def test_dialect_of(text: str, dialect: str | None) -> None:
    """The dialect is known by the scheme alone, or not at all."""
    assert dialect_of(text) == dialect


@pytest.mark.parametrize(
    "text",
    [
        "geheim",
        "postgresql://u:geheim/x@h/db",
        "postgresql://u:geheim#x@h/db",
        "postgresql://u:geheim@h:99999/db",
        "postgresql://u:geheim@h:0/db",
        "postgresql://u:geheim@h:x/db",
        "postgresql://u:geheim@[::1/db",
        "postgresql://u:geheim@[::1]5432/db",
        "postgresql://u:geheim@:5432/db",
        "postgresql://u:geheim@h/db?x",
        "postgresql://u:geheim@h/db?=1",
        "postgresql://u:geheim@h/db?a=1&a=2",
    ],
)
def test_refusals_show_nothing(text: str) -> None:
    """What is no address is refused with a hint and without a word of it."""
    with pytest.raises(ConfigurationError) as caught:
        split(text)
    assert "geheim" not in str(caught.value)
    assert caught.value.hint


@given(st.text())
def test_anything(text: str) -> None:
    """Any text is an address or a ConfigurationError."""
    for candidate in (text, f"postgresql://{text}", f"postgresql://u:{text}@h/d"):
        try:
            split(candidate)
        except ConfigurationError:
            continue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me@db/a", False),
        ("postgresql://me:${PW}@db/a", False),
        ("postgresql://me:${file:/run/pg}@db/a", False),
        ("postgresql://${WHO}@db/a", False),
        ("postgresql://me:pw@db/a", True),
        ("postgresql://me:a${PW}@db/a", True),
        ("postgresql://me@db/a?password=pw", True),
    ],
)
def test_passwords_that_stand_in_an_address(text: str, expected: bool) -> None:
    """A reference to a secret is none."""
    assert has_password(text) is expected
