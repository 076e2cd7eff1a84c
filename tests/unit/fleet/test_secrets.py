"""Templates: what ${...} reads, when, what it refuses, and what it never shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import secrets
from orchestrator.fleet.secrets import Template, mask
from orchestrator.fleet.urls import split


def test_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """${NAME} is the environment's value."""
    monkeypatch.setenv("DB_HOST", "db1")
    assert Template("postgresql://${DB_HOST}/app", tmp_path).resolve() == "postgresql://db1/app"


def test_unset_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unset variable is named, and the hint says what to type."""
    monkeypatch.delenv("DB_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="DB_HOST is not set") as caught:
        Template("${DB_HOST}", tmp_path).resolve()
    assert caught.value.hint is not None
    assert "export DB_HOST=" in caught.value.hint


@pytest.mark.parametrize("value", [None, ""])
def test_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None) -> None:
    """${NAME:-default} takes the default for an unset and for an empty variable, as a shell does."""
    monkeypatch.delenv("DB_HOST", raising=False)
    if value is not None:
        monkeypatch.setenv("DB_HOST", value)
    assert Template("${DB_HOST:-db2}", tmp_path).resolve() == "db2"
    assert Template("${DB_HOST:-}", tmp_path).resolve() == ""


def test_default_may_be_a_template(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A default is read like the rest."""
    monkeypatch.delenv("FIRST", raising=False)
    monkeypatch.setenv("SECOND", "two")
    assert Template("${FIRST:-${SECOND}}", tmp_path).resolve() == "two"


def test_file_is_relative_to_root(tmp_path: Path) -> None:
    """${file:path} is relative to the root and loses the line break at its end."""
    (tmp_path / "pw").write_text("s3cret\n")
    assert Template("${file:pw}", tmp_path).resolve() == "s3cret"
    assert Template(f"${{file:{tmp_path / 'pw'}}}", Path("/")).resolve() == "s3cret"


def test_file_is_read_anew(tmp_path: Path) -> None:
    """Tokens expire: each resolve reads the file again."""
    (tmp_path / "pw").write_text("first-token")
    template = Template("${file:pw}", tmp_path)
    assert template.resolve() == "first-token"
    (tmp_path / "pw").write_text("second-token")
    assert template.resolve() == "second-token"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_bad_file(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or binary secret file is an error that names the file."""
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
    with pytest.raises(ConfigurationError, match="pw") as caught:
        Template("${file:pw}", tmp_path).resolve()
    assert caught.value.hint is not None


def test_directory_as_file(tmp_path: Path) -> None:
    """A directory is no secret file."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Template("${file:.}", tmp_path).resolve()


def test_command(tmp_path: Path) -> None:
    """${cmd:} is a shell command line, run in the root; braces in it may nest."""
    (tmp_path / "pw").write_text("s3cret\n")
    assert Template("${cmd:cat pw | tr s S}", tmp_path).resolve() == "S3cret"
    assert Template("${cmd:echo '{\"a\": {}}'}", tmp_path).resolve() == '{"a": {}}'


def test_command_runs_anew(tmp_path: Path) -> None:
    """Each resolve runs the command again."""
    template = Template("${cmd:echo x >> runs; wc -l < runs}", tmp_path)
    assert [template.resolve().strip() for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "line", ["echo geheim >&2; exit 3", "echo geheim; exit 3", "true geheim", "printf '\\377geheim'"]
)
def test_failing_command_tells_nothing(tmp_path: Path, line: str) -> None:
    """What a failing command printed, and its arguments, may be secrets: neither is shown."""
    with pytest.raises(ConfigurationError) as caught:
        Template(f"${{cmd:{line}}}", tmp_path).resolve()
    assert "geheim" not in str(caught.value) + str(caught.value.hint)
    assert caught.value.__cause__ is None


def test_command_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that does not end is an error; one that asks on stdin gets none."""
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(ConfigurationError, match="took over"):
        Template("${cmd:sleep 20}", tmp_path).resolve()
    with pytest.raises(ConfigurationError, match="failed"):
        Template("${cmd:read answer}", tmp_path).resolve()


def test_dollar(tmp_path: Path) -> None:
    """$$ is a dollar sign, and so is one that opens nothing."""
    assert Template("a$$b$c$${HOME}$", tmp_path).resolve() == "a$b$c${HOME}$"


@pytest.mark.parametrize(
    "text", ["${", "${}", "${A", "${vault:x}", "${1A}", "${file:}", "${cmd: }", "${A:-${}", "${A:x}"]
)
def test_bad_syntax(tmp_path: Path, text: str) -> None:
    """What is no kind of secret is refused when the template is made, not when it is used."""
    with pytest.raises(ConfigurationError) as caught:
        Template(text, tmp_path)
    assert "$$" in str(caught.value.hint)


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1))
def test_password_reaches_the_server_as_it_is(tmp_path_factory: pytest.TempPathFactory, password: str) -> None:
    """A password file holds the password as it is, whatever characters it has (cloud tokens hold / and ?)."""
    if "%" in password:  # may be percent-encoded already, see the next test
        password += "/"
    root = tmp_path_factory.mktemp("secrets")
    (root / "pw").write_text(password, encoding="utf-8")
    parts = split(Template("postgresql://app:${file:pw}@db1:5432/app?sslmode=require", root).resolve())
    assert (parts.user, parts.password, parts.hosts) == ("app", password, (("db1", 5432),))


def test_encoded_password_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value that is percent-encoded already is not encoded twice."""
    monkeypatch.setenv("PW", "p%40ss")
    assert split(Template("postgresql://u:${PW}@h/d", tmp_path).resolve()).password == "p@ss"


def test_user_and_password_in_one_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """user:password in one variable keeps its colon."""
    monkeypatch.setenv("CREDENTIALS", "app:p/ss")
    parts = split(Template("postgresql://${CREDENTIALS}@h/d", tmp_path).resolve())
    assert (parts.user, parts.password) == ("app", "p/ss")


def test_password_parameter_is_encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password given as ?password= is encoded too."""
    monkeypatch.setenv("PW", "a&b=c#d+e%")
    parts = split(Template("postgresql://h/d?user=u&password=${PW}&connect_timeout=1", tmp_path).resolve())
    assert parts.query == {"user": "u", "password": "a&b=c#d+e%", "connect_timeout": "1"}


def test_whole_address_is_put_in_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable that is a whole address is not encoded, and its password is masked from then on."""
    monkeypatch.setenv("URL", "postgres://u:p%40ssword@h/db")
    assert Template("${URL}", tmp_path).resolve() == "postgres://u:p%40ssword@h/db"
    assert mask("p@ssword and p%40ssword") == "*** and ***"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:geheim@h/db",
        "postgresql://u:ge%68eim-geheim@h/db",
        "postgresql://u:a/geheim b@h/db",
        "postgresql://u:${PW:-geheim}@h/db",
        "${URL:-postgresql://u:geheim@h/db}",
        "postgresql://h/db?user=u&password=geheim&x=1",
        "postgresql://h/db?password=${PW:-geheim}",
        "postgresql://u:${cmd:curl -H geheim https://vault}@h/db",
        "${cmd:vault read geheim}",
        "${PW}",
    ],
)
def test_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Neither str nor repr shows a literal password, a default, a command's arguments or what was read."""
    template = Template(text, tmp_path)
    assert "geheim" not in f"{template} {template!r}"
    monkeypatch.setenv("PW", "geheim")
    monkeypatch.setenv("URL", "postgresql://u:geheim@h/db")
    if "cmd" not in text:
        template.resolve()
    assert "geheim" not in f"{template} {template!r}"


def test_shown_otherwise(tmp_path: Path) -> None:
    """What is no secret is shown, so that people see which server is meant."""
    template = Template("postgresql://app:${file:pw}@db1:5432/app?sslmode=require", tmp_path)
    assert str(template) == "postgresql://app:***@db1:5432/app?sslmode=require"
    assert str(Template("${INITECH_URL}", tmp_path)) == "${INITECH_URL}"


def test_from_environment_reads_no_file_and_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The address's kind is known without its secrets."""
    monkeypatch.setenv("DB_HOST", "db1")
    text = "postgresql://u:${file:missing}@${DB_HOST}/${cmd:touch ran}${UNSET_VARIABLE}"
    expected = "postgresql://u:${file:missing}@db1/${cmd:touch ran}${UNSET_VARIABLE}"
    assert Template(text, tmp_path).from_environment() == expected
    assert not (tmp_path / "ran").exists()
