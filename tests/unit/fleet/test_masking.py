"""mask(): which values it hides, in which forms, and which it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from orchestrator.fleet import masking
from orchestrator.fleet.masking import mask, remember
from orchestrator.fleet.secrets import Template


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no connection to postgres://u:pw@h/db now", "no connection to postgres://u:***@h/db now"),
        ("postgres://:pw@h and postgres://u@h", "postgres://:***@h and postgres://u@h"),
        ("postgres://u:p@ss:w@h/db", "postgres://u:***@h/db"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        ("password='p w' user=u", "password=*** user=u"),
        (r"password='p\'w' user=u", "password=*** user=u"),
        ("?user=u&password=p,w&x=1", "?user=u&password=***&x=1"),
        ("PGPASSWORD=pw psql, sslpassword = x", "PGPASSWORD=*** psql, sslpassword = ***"),
        ("{'password': 'pw', 'port': 1}", "{'password': ***, 'port': 1}"),
        ("sslPwd=pw", "sslPwd=***"),
        ("PA\u017f\u017fWORD=pw", "PA\u017f\u017fWORD=***"),
        ("CREATE ROLE a PASSWORD 'it''s' LOGIN", "CREATE ROLE a PASSWORD '***' LOGIN"),
    ],
)
def test_places(text: str, expected: str) -> None:
    """Where a password stands, whatever stands there is hidden, known or not."""
    assert mask(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "app"',
        "https://docs.example/path?x=1",
        "tenant eu@acme: wrong password: retry",
        "",
    ],
)
def test_nothing_to_hide(text: str) -> None:
    """Text without a secret comes back as it is."""
    assert mask(text) == text


@given(secret=st.text(st.characters(codec="utf-8"), min_size=8))
def test_every_form_of_a_value(secret: str) -> None:
    """A value is hidden as it is, in a URL, in SQLAlchemy's URL, in JSON and as a Python literal."""
    assume(unquote(secret).lower() not in masking._COMMON)
    remember(secret)
    url = URL.create("postgresql", "u", secret, "h", database="d").render_as_string(hide_password=False)
    quoted = [json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)]
    for form in (secret, quote(secret), quote(secret, safe=""), *(form[1:-1] for form in quoted)):
        assert mask(form) == "***"
    assert mask(url) == "postgresql://u:***@h/d"


def test_decoded_form() -> None:
    """A value that was read percent-encoded is hidden decoded too, since servers repeat it so."""
    remember("p%40ssword")
    assert mask("p@ssword p%40ssword P@SSWORD") == "*** *** P@SSWORD"


@pytest.mark.parametrize("value", ["", "a", "app", "123"])
def test_short_values_stay(value: str) -> None:
    """A value under 4 characters is hidden only where a password stands, or every message would be unreadable."""
    remember(value)
    assert mask("an app with 123 tenants") == "an app with 123 tenants"
    assert mask("postgres://u:app@h") == "postgres://u:***@h"


def test_middling_values_only_as_words() -> None:
    """From 4 to 7 characters a value is hidden where it stands alone, not within longer words."""
    remember("acme")
    assert mask("acme, acme_prod and 'acme'") == "***, acme_prod and '***'"


def test_no_rest_of_a_longer_value() -> None:
    """One secret within another, or something like password= within a secret, leaves nothing of it in sight."""
    remember("correcthorse")
    remember("correcthorse-battery")
    remember("x password=one'two")
    assert mask("correcthorse-battery, x password=one'two") == "***, ***"


def test_long_values_everywhere() -> None:
    """From 8 characters on a value is hidden within longer words too."""
    remember("correcthorse")
    assert mask("xcorrecthorsey") == "x***y"


@pytest.mark.parametrize("word", ["postgres", "Password", "localhost", "public"])
def test_common_words_stay(word: str) -> None:
    """A password that is a word this program prints all the time protects nothing and would garble every message."""
    remember(word)
    text = f"postgresql://{word}:x@h: no schema {word}"
    assert mask(text) == f"postgresql://{word}:***@h: no schema {word}"


def test_user_name_from_the_environment_and_other_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable in the user part is hidden; one elsewhere in the address (a host) is no secret."""
    monkeypatch.setenv("DB_USER", "migrator-7781")
    monkeypatch.setenv("DB_HOST", "db1.example.internal")
    Template("postgresql://${DB_USER}@${DB_HOST}/app", tmp_path).resolve()
    assert mask("migrator-7781 at db1.example.internal") == "*** at db1.example.internal"


def test_file_and_command_values_anywhere(tmp_path: Path) -> None:
    """What came from a file or a command is a secret wherever in the text it was put."""
    (tmp_path / "token").write_text("file-token-1")
    Template("x ${file:token} ${cmd:echo cmd-token-2}", tmp_path).resolve()
    assert mask("file-token-1 cmd-token-2") == "*** ***"


def test_old_tokens_are_forgotten_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; what was used last is kept, also when it was read long ago."""
    monkeypatch.setattr(masking, "_REMEMBERED", 2)
    for token in ("token-aaaa", "token-bbbb", "token-aaaa", "token-cccc"):
        remember(token)
    assert mask("token-aaaa token-bbbb token-cccc") == "*** token-bbbb ***"
