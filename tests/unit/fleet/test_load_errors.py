"""load(): everything that can be wrong with tenants.yaml is told, with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.load import load

Refusal = Callable[[str], ConfigurationError]

#: One server of each kind, then room for tenants from line 6 on.
HEAD = """servers:
  main: {url: "postgresql://db1/app"}
  lite: {url: "sqlite:///data"}
defaults: {server: main}
tenants:
"""


@pytest.mark.parametrize(
    ("tenants", "line", "column", "message", "hint"),
    [
        ("- {id: a}\n- {id: b}\n- {id: a}", 8, 8, "the id `a` is taken already (line 6: `a`)", "id of its own"),
        (
            "- {id: a}\n- {id: b, schema: a}",
            7,
            8,
            "tenant `b` would be migrated in the place of another one",
            "of its own",
        ),
        ("- {id: a, isolation: database}\n- {id: b, database: a, schema: public}", 7, 8, "(line 6: `a`)", "of its own"),
        (
            "- {id: a, server: lite}\n- {id: b, server: lite, file: data/x/../a.db}",
            7,
            8,
            "in the place of another",
            "of its own",
        ),
        (
            "- {id: a, url: 'sqlite:///data/b.db'}\n- {id: b, server: lite}",
            7,
            8,
            "in the place of another",
            "of its own",
        ),
        (
            "- {id: a, url: 'postgres://u:x@h/d'}\n- {id: b, url: 'postgresql+asyncpg://w:y@H:5432/d'}",
            7,
            8,
            "in the place",
            "of its own",
        ),
        ("- {id: a, url: 'postgres://u@h'}\n- {id: b, url: 'postgres://h/u'}", 7, 8, "in the place", "of its own"),
        ("- {id: a, idd: 3}", 6, 11, "unknown key `idd`", "did you mean `id`?"),
        ("- {id: a, schemaa: b}", 6, 11, "unknown key `schemaa`", "did you mean `schema`?"),
        ("- {id: a, server: mian}", 6, 19, "unknown server `mian`", "did you mean `main`?"),
        ("- {schema: a}", 6, 3, "`id` is missing", "add `id:`"),
        ("- {id: no}", 6, 8, "id: `no` is read by YAML as a yes-or-no value", 'quote it: "no"'),
        ("- no", 6, 3, "must be a mapping of keys, not", "validate"),
        ("- {id: 12}", 6, 8, "id: `12` is read by YAML as a number", 'quote it: "12"'),
        ("- {id: 012}", 6, 8, "`012` is a number to some YAML readers", 'quote it if it is a name: "012"'),
        ("- {id: 1e3}", 6, 8, "`1e3` is a number to some YAML readers", 'quote it if it is a name: "1e3"'),
        ("- {id: 1.5}", 6, 8, "id: `1.5` is read by YAML as a number", 'quote it: "1.5"'),
        ("- {id: 2024-01-01}", 6, 8, "id: `2024-01-01` is read by YAML as a date", 'quote it: "2024-01-01"'),
        ("- {id: ~}", 6, 8, "id: `~` is read by YAML as null", 'quote it: "~"'),
        ("- {id: }", 6, 8, "id: has no value", "write one"),
        ("- {id: [a]}", 6, 8, "id: must be text, not a list", "validate"),
        ("- {id: ''}", 6, 8, "a name must not be empty", "validate"),
        ("- {id: a, schema: yes}", 6, 19, "schema: `yes` is read by YAML as a yes-or-no", 'quote it: "yes"'),
        ("- {id: a, schema: }", 6, 19, "schema: has no value", "take the key out"),
        ("- {id: a, database: 7}", 6, 21, "database: `7` is read by YAML as a number", "quote it"),
        ("- {id: a, tags: [eu, 2024]}", 6, 22, "tags: `2024` is read by YAML as a number", 'quote it: "2024"'),
        ("- {id: a, tags: {eu: x}}", 6, 17, "tags: must be a list of names", "write [one, two]"),
        ("- {id: a, pin: 123}", 6, 16, "pin: `123` is read by YAML as a number", 'quote it: "123"'),
        ("- {id: a, pin: abc, until: soon}", 6, 28, "until: `soon` is not a date", "2027-01-31"),
        ("- {id: a, pin: abc, until: 2027-02-30}", 6, 28, "until: `2027-02-30` is not a date", "2027-01-31"),
        ("- {id: a, pin: abc, until: 2027-01-01 10:00:00}", 6, 28, "is not a date", "2027-01-31"),
        ("- {id: a, until: 2027-01-31}", 6, 18, "`until` ends a pin, and there is none", "add `pin:"),
        ("- {id: a, target: one two}", 6, 19, "`one two` is not a target", "tenant@head"),
        ('- {id: "a\\0b"}', 6, 8, "control or invisible characters (here U+0000)", "validate"),
        ('- {id: "a\\nb"}', 6, 8, "control or invisible characters (here U+000A)", "validate"),
        ('- {id: "a\\u202Eb"}', 6, 8, "control or invisible characters (here U+202E)", "validate"),
        ('- {id: a, schema: "x\\ty"}', 6, 19, "control or invisible characters", "validate"),
        ('- {id: " a"}', 6, 8, "starts or ends with a space", "validate"),
        (f"- {{id: a, schema: {'ü' * 32}}}", 6, 19, "has 64 bytes; PostgreSQL keeps 63", "at most 63 bytes"),
        (f"- {{id: {'x' * 64}}}", 6, 8, "the schema, by default the id: ", "give it a `schema:`"),
        (
            f"- {{id: {'x' * 64}, isolation: database}}",
            6,
            8,
            "the database, by default the id: ",
            "give it a `database:`",
        ),
        (f"- {{id: {'x' * 63}, database: {'y' * 70}}}", 6, 83, "has 70 bytes", "at most 63 bytes"),
        ("- {id: pg_acme}", 6, 8, "`pg_acme` is one of PostgreSQL's own schemas", "give it a `schema:`"),
        ("- {id: a, schema: pg_toast}", 6, 19, "`pg_toast` is one of PostgreSQL's own schemas", "another name"),
        ("- {id: a, schema: information_schema}", 6, 19, "PostgreSQL's own schemas", "another name"),
        ("- {id: a, isolation: schemas}", 6, 22, "`schemas` is no isolation", "did you mean `schema`?"),
        ("- {id: a, isolation: table}", 6, 22, "`table` is no isolation", "did you mean `database`?"),
        ("- {id: a, isolation: file}", 6, 22, "on a PostgreSQL server cannot have isolation file", "isolation: schema"),
        ("- {id: a, file: x.db}", 6, 17, "on a PostgreSQL server cannot have isolation file", "isolation: schema"),
        (
            "- {id: a, server: lite, isolation: schema}",
            6,
            36,
            "on a SQLite server cannot have isolation schema",
            "isolation: file",
        ),
        ("- {id: a, server: lite, schema: s}", 6, 33, "`schema` has no meaning with isolation file", "take it out"),
        ("- {id: a, server: lite, database: d}", 6, 35, "`database` has no meaning with isolation file", "take it out"),
        ("- {id: a, isolation: schema, file: x}", 6, 36, "`file` has no meaning with isolation schema", "take it out"),
        ("- {id: ../a, server: lite}", 6, 8, "the id `../a` cannot be a file's name", "give it a `file:`"),
        ("- {id: .a, server: lite}", 6, 8, "the id `.a` cannot be a file's name", "give it a `file:`"),
        ("- {id: a, server: main, url: 'postgres://h/d'}", 6, 19, "on a server of its own", "keep one of"),
        ("- {id: main, url: 'postgres://h/d'}", 6, 19, "is named like a declared server", "rename"),
        ("- {id: a, url: 'sqlite:///x', file: y}", 6, 37, "the `url` names the file already", "keep one of"),
        ("- {id: a, url: 'sqlite://'}", 6, 16, "names no file or directory", "sqlite:///path"),
        ("- {id: a, url: '${vault:x}'}", 6, 16, "no kind of secret", "${file:path}"),
        ("- {id: a, url: }", 6, 16, "url: has no value", "take the key out"),
    ],
)
def test_tenant(refusal: Refusal, tenants: str, line: int, column: int, message: str, hint: str) -> None:
    """One thing wrong with a tenant: file, line, column, the key or value at fault, and what to write."""
    error = refusal(HEAD + "".join(f"{entry}\n" for entry in tenants.split("\n")))
    assert message in error.message
    assert (error.line, error.column) == (line, column)
    assert error.file is not None
    assert error.message.startswith(f"{error.file}:{line}:{column}: ")
    assert hint in str(error.hint)
    assert "\n" not in error.message


SMALL = "servers: {main: 'postgresql://db1/app'}\ntenants: [a]\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("server: {}\ntenants: [a]", 1, 1, "unknown key `server`", "did you mean `servers`?"),
        ("servers: [a]\ntenants: [a]", 1, 10, "servers: must be a mapping of names, not a list", "validate"),
        ("servers: {m: {}}\ntenants: [a]", 1, 14, "`url` is missing", "add `url:`"),
        (
            "servers: {m: {url: 'postgresql://h', max_conc: 4}}\ntenants: [a]",
            1,
            38,
            "unknown key `max_conc`",
            "max_concurrency",
        ),
        (
            "servers: {m: {url: 'postgresql://h', max_concurrency: 0}}\ntenants: [a]",
            1,
            55,
            "must be 1 or more, not `0`",
            "",
        ),
        (
            "servers: {m: {url: 'postgresql://h', max_concurrency: yes}}\ntenants: [a]",
            1,
            55,
            "must be a whole number",
            "",
        ),
        (
            "servers: {m: {url: 'postgresql://h', max_concurrency: '4'}}\ntenants: [a]",
            1,
            55,
            "must be a whole number",
            "",
        ),
        ("servers: {m: {url: 'postgresql://h', extensions_schema: pg_x}}\ntenants: [a]", 1, 57, "PostgreSQL's own", ""),
        (
            "servers: {m: {url: 'postgresql://h', lock_timeout: 3d}}\ntenants: [a]",
            1,
            52,
            "`3d` is not a length of time",
            "100ms",
        ),
        (
            "servers: {m: {url: 'postgresql://h', lock_timeout: 99h99}}\ntenants: [a]",
            1,
            52,
            "is not a length of time",
            "100ms",
        ),
        ("servers: {m: {url: 'postgresql://h', lock_timeout: 999h}}\ntenants: [a]", 1, 52, "out of range", "100ms"),
        ("servers: {m: {url: 'postgresql://h', lock_timeout: 0.1ms}}\ntenants: [a]", 1, 52, "out of range", "100ms"),
        ("servers: {m: {url: 'postgresql://h', lock_timeout: -1}}\ntenants: [a]", 1, 52, "out of range", "100ms"),
        ("servers: {m: {url: 'postgresql://h', lock_timeout: .nan}}\ntenants: [a]", 1, 52, "out of range", "100ms"),
        ("servers: {m: {url: 'postgresql://h', lock_timeout: .inf}}\ntenants: [a]", 1, 52, "out of range", "100ms"),
        (
            "servers: {m: 'mysql://h/d'}\ntenants: [a]",
            1,
            14,
            "there is no adapter for `mysql` databases",
            "postgresql://",
        ),
        ("servers: {m: '${X'}\ntenants: [a]", 1, 14, "a `${` is not closed", "${NAME}"),
        ("servers: {m: ''}\ntenants: [a]", 1, 14, "url: must not be empty", "validate"),
        (
            "servers:\n  one: postgresql://h/d\n  two: postgresql://h/d\ndefaults: {server: one}\ntenants: [a]",
            3,
            8,
            "server `two` has the address of server `one` in line 2",
            "declare each",
        ),
        (
            "servers: {no: 'postgresql://h/d'}\ntenants: [a]",
            1,
            11,
            "the key `no` is read by YAML as a yes-or-no value",
            "quote it",
        ),
        (
            "servers: {one: 'postgresql://h1', two: 'postgresql://h2'}\ntenants: [{id: a}]",
            2,
            11,
            "tenant `a` is on no server",
            "defaults: {server: NAME}",
        ),
        ("tenants: [a]", 1, 11, "tenant `a` is on no server", "defaults: {server: NAME}"),
        (SMALL + "defaults: {server: mian}", 3, 20, "unknown server `mian`", "did you mean `main`?"),
        (SMALL + "defaults: {isolation: scheme}", 3, 23, "`scheme` is no isolation", "did you mean `schema`?"),
        (SMALL + "defaults: {iso: schema}", 3, 12, "unknown key `iso`", "isolation"),
        (SMALL + "sources: [{sqll: x}]", 3, 11, "a source needs exactly one of sql, schemas", ""),
        (SMALL + "sources: [{sql: x, schemas: y}]", 3, 11, "a source needs exactly one of", ""),
        (SMALL + "sources: [{sql: x, servr: main}]", 3, 20, "unknown key `servr`", "did you mean `server`?"),
        (SMALL + "sources: [{sql: x, server: mian}]", 3, 28, "unknown server `mian`", "did you mean `main`?"),
        (SMALL + "sources: [{python: myapp.tenants}]", 3, 20, "does not name a Python callable", "module:function"),
        (SMALL + "sources: [{python: 'my app:x'}]", 3, 20, "does not name a Python callable", "module:function"),
        (SMALL + "sources: [{python: 'a:b', server: main}]", 3, 27, "unknown key `server`", "python"),
        (SMALL + "sources: [{entry_point: crm, option: {}}]", 3, 30, "unknown key `option`", "did you mean `options`?"),
        (SMALL + "sources: {sql: x}", 3, 10, "sources: must be a list, not a mapping", ""),
        (
            SMALL + "policy: {max_failures: 200%}",
            3,
            24,
            "neither a number of tenants nor a percentage",
            "write 0, 5 or 10%",
        ),
        (
            SMALL + "policy: {max_failures: -1}",
            3,
            24,
            "neither a number of tenants nor a percentage",
            "write 0, 5 or 10%",
        ),
        (
            SMALL + "policy: {max_failures: yes}",
            3,
            24,
            "neither a number of tenants nor a percentage",
            "write 0, 5 or 10%",
        ),
        (SMALL + "policy: {retries: -1}", 3, 19, "retries: must be 0 or more", ""),
        (SMALL + "policy: {retry: 1}", 3, 10, "unknown key `retry`", "did you mean `retries`?"),
        (SMALL + "waves: [{percent: 10}]", 3, 9, "`name` is missing", ""),
        (SMALL + "waves: [{name: a, percent: 0}]", 3, 28, "not a percentage over 0 and up to 100", "write 10 or 10%"),
        (
            SMALL + "waves: [{name: a, percent: 101%}]",
            3,
            28,
            "not a percentage over 0 and up to 100",
            "write 10 or 10%",
        ),
        (SMALL + "waves: [{name: a, count: 0}]", 3, 26, "must be 1 or more", ""),
        (SMALL + "waves: [{name: a, count: 1, percent: 1}]", 3, 26, "`percent` or a `count`, not both", "keep one"),
        (SMALL + "waves: [{name: a}, {name: a}]", 3, 27, "there is a wave `a` already", "another name"),
        (SMALL + "waves: [{name: a, select: {tag: x}}]", 3, 28, "unknown key `tag`", "did you mean `tags`?"),
        (
            SMALL + "waves: [{name: a, select: {servers: [main, mian]}}]",
            3,
            44,
            "unknown server `mian`",
            "did you mean `main`?",
        ),
        (SMALL + "waves: [{name: a, bake: soon}]", 3, 25, "`soon` is not a length of time", ""),
        (SMALL + "waves: [{name: a, approve: yes}]", 3, 28, "`True` is no approve", "one of: manual"),
        (SMALL + "waves: [{name: a, order: longst}]", 3, 26, "`longst` is no order", "did you mean `longest`?"),
        (
            SMALL + "waves: [{name: a, on_failure: explode}]",
            3,
            31,
            "`explode` is no on_failure",
            "stop, continue, rollback",
        ),
        (SMALL + "waves: [{name: a, jobs: 0}]", 3, 25, "must be 1 or more, not `0`", ""),
        (SMALL + "waves: [{name: a, verify: [{}]}]", 3, 28, "one of `sql`, `command` and `python`", "keep one"),
        (SMALL + "waves: [{name: a, verify: {sqll: SELECT 1}}]", 3, 28, "unknown key `sqll`", "did you mean `sql`?"),
        (SMALL + "waves: [{name: a, verify: {python: x}}]", 3, 36, "`x` does not name a Python callable", "module:"),
        (SMALL + "hooks: {before_run: [{}]}", 3, 22, "one of `command`, `python` and `webhook`", "keep one of them"),
        (SMALL + "hooks: {before_run: {webhok: x}}", 3, 22, "unknown key `webhok`", "did you mean `webhook`?"),
        (SMALL + "hooks: {before_runs: x}", 3, 9, "unknown key `before_runs`", "did you mean `before_run`?"),
        (SMALL + "hooks: {after_run: {webhook: 'http://${X'}}", 3, 30, "a `${` is not closed", "${NAME}"),
        (SMALL + "journal: '${X'", 3, 10, "a `${` is not closed", "${NAME}"),
        (SMALL + "tenants: [b]", 3, 1, "`tenants` stands here twice, first in line 2", "keep one"),
        (SMALL + "policy: &p {retries: 1}", 3, 9, "`p` is an anchor", "write the value out"),
        ("servers: {m: 'postgresql://h'}\n", 1, 1, "the fleet is empty", "name a source under `sources:`"),
        ("servers: {m: 'postgresql://h'}\ntenants: []\n", 2, 1, "the fleet is empty", "list them under `tenants:`"),
        ("[a, b]", 1, 1, "the file must be a mapping", "orchestrator init"),
        ("acme", 1, 1, "the file must be a mapping", "orchestrator init"),
    ],
)
def test_file(refusal: Refusal, text: str, line: int, column: int, message: str, hint: str) -> None:
    """One thing wrong outside tenants."""
    error = refusal(text)
    assert message in error.message
    assert (error.line, error.column) == (line, column)
    assert hint in str(error.hint)
    assert "\n" not in error.message


def test_servers_same_by_variable(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers whose addresses come out the same are told, without the address."""
    monkeypatch.setenv("ONE", "postgresql://u:geheim@h/d")
    monkeypatch.setenv("TWO", "postgresql://u:geheim@h/d")
    error = refusal("servers: {one: '${ONE}', two: '${TWO}'}\ndefaults: {server: one}\ntenants: [a]")
    assert "has the address of server `one`" in error.message
    assert "geheim" not in error.message


def test_own_address_by_variable(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant's own address in a variable is compared as what it comes out to."""
    monkeypatch.setenv("URL", "postgres://db1:5432/app")
    error = refusal(HEAD + "- {id: a, url: '${URL}'}\n- {id: b, schema: public}\n")
    assert "in the place of another one" in error.message


def test_sqlite_by_variable(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite server's directory is needed at once: an unset variable in it is told."""
    monkeypatch.delenv("NOWHERE", raising=False)
    error = refusal("servers: {m: 'sqlite:///${NOWHERE}'}\ntenants: [a]")
    assert "NOWHERE is not set" in error.message
    assert error.line is not None


def test_names_that_postgresql_would_make_one(refusal: Refusal) -> None:
    """Two names alike in their first 63 bytes would be one schema: each is refused for its length, with the reason."""
    error = refusal(f"{HEAD}- {'x' * 63}a\n- {'x' * 63}b\n")
    assert error.message.count("names alike in those become one") == 2


def test_all_at_once(refusal: Refusal) -> None:
    """Everything that is wrong is told in one message, a line each, in the file's order, with nothing told twice."""
    text = """servers:
  main: {url: postgresql://h/app, max_conc: 3}
  two: postgresql://h2/app
tenants:
  - {id: no, server: main}
  - {id: a, server: main}
  - {id: b, server: tow}
  - {id: c, server: two, tagz: []}
  - {id: d, server: two}
  - {id: d, server: two}
sources:
  - {python: x}
  - {schemas: x, server: tow}
waves:
  - {name: x, bakes: 1m}
  - {name: y, select: {servers: [main, tow]}}
"""
    error = refusal(text)
    lines = error.message.split("\n")
    told = [line.removeprefix(f"{error.file}:") for line in lines]
    assert [line.split(" (")[0] for line in told] == [
        "2:35: unknown key `max_conc`",
        "5:10: id: `no` is read by YAML as a yes-or-no value",
        "7:21: unknown server `tow`",
        "8:26: unknown key `tagz`",
        "10:10: the id `d` is taken already",
        "12:14: python: `x` does not name a Python callable",
        "13:26: unknown server `tow`",
        "15:15: unknown key `bakes`",
        "16:40: unknown server `tow`",
    ]
    assert "did you mean `two`?" in lines[2]
    assert error.line == 2
    assert "tenants validate" in str(error.hint)


def test_too_many(refusal: Refusal) -> None:
    """After 20 lines the rest is counted."""
    error = refusal(HEAD + "".join(f"- {{id: t{number}, server: x}}\n" for number in range(50)))
    lines = error.message.split("\n")
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


def test_no_follow_up_complaints(refusal: Refusal) -> None:
    """A server that is wrong itself is told once, not again by each tenant on it; nor is the fleet then empty."""
    error = refusal(
        "servers: {main: {url: 'mysql://h'}}\ndefaults: {server: main}\ntenants: [a, {id: b, server: main}]"
    )
    assert "\n" not in error.message
    error = refusal("servers: {main: {}}\ntenants: [a, b]")
    assert "\n" not in error.message


def test_secrets_in_wrong_places(refusal: Refusal) -> None:
    """A password that stands where it does not belong is not repeated by the complaint."""
    error = refusal(SMALL + "policy: {lock_timeout: 'postgresql://u:geheim@h/d'}")
    assert "geheim" not in error.message
    assert "geheim" not in str(error.hint)


def test_missing_file(tmp_path: Path) -> None:
    """No file: says how to name or make one."""
    with pytest.raises(ConfigurationError, match="there is no such file") as caught:
        load(tmp_path / "tenants.yaml")
    assert "orchestrator init" in str(caught.value.hint)


def test_directory(tmp_path: Path) -> None:
    """A directory: names the file that is likely meant."""
    with pytest.raises(ConfigurationError, match="this is a directory") as caught:
        load(tmp_path)
    assert "tenants.yaml" in str(caught.value.hint)


def test_not_a_path(tmp_path: Path) -> None:
    """A file as a directory, or a NUL in the path, is no traceback either."""
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "x" / "tenants.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load("a\0b")


def test_not_utf8(tmp_path: Path) -> None:
    """Another encoding is told with the line."""
    (tmp_path / "t.yaml").write_bytes(b"tenants:\n- caf\xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        load(tmp_path / "t.yaml")
    assert caught.value.line == 2


@pytest.mark.parametrize("text", ["", "# all commented out\n", "---\n", "~"])
def test_empty_file(refusal: Refusal, text: str) -> None:
    """An empty file is an error with a hint."""
    error = refusal(text)
    assert "the file is empty" in error.message
    assert "orchestrator init" in str(error.hint)
