"""lint: each hazard found, nothing else; what cannot be looked at is never clean; CI needs no server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.linting.report import LintReport
from orchestrator.databases.squawk import KNOWN, unknown_rule
from orchestrator.errors import ConfigurationError
from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.histories import ARGILLA, PLACEMENT, SAMPLE, History
from tests.projects import make_project
from tests.workspace import Workspace

#: A server that nobody listens at.
NOWHERE = "postgresql://nobody@127.0.0.1:1/app"


def revision(upgrade: str, downgrade: str = 'op.execute("SELECT 1")') -> str:
    """The functions of a revision with a way back."""
    return f"def upgrade():\n    {upgrade}\n\n\ndef downgrade():\n    {downgrade}"


#: For findings of our own alone.
QUIET = {"squawk": "off"}
CLEAN = revision('op.create_table("a", sa.Column("id", sa.BigInteger))', 'op.drop_table("a")')
INDEX = 'op.create_index("ix", "a", ["id"], postgresql_concurrently=True)'
BLOCK = "with op.get_context().autocommit_block():\n        "


async def lint(path: Path, revisions: Mapping[str, str], rules: Mapping[str, Any] = QUIET, **fleet: Any) -> LintReport:
    """``orchestrator lint --all-revisions``, by its Python API, of a fleet whose server is away."""
    document = {"servers": {"main": NOWHERE}, "tenants": ["acme"], "lint": {"rules": dict(rules)}, **fleet}
    project = make_project(path, revisions, json.dumps(document))
    return await orchestrator.lint(project.fleet, every_revision=True)


def told(report: LintReport) -> list[str]:
    """The rules of what was found, each once."""
    return list(dict.fromkeys(finding.rule for finding in (*report.findings, *report.not_linted)))


@pytest.mark.parametrize(
    ("rule", "severity", "source"),
    [
        ("no_downgrade", "error", 'def upgrade():\n    op.create_table("a")'),
        ("empty_downgrade", "error", revision('op.create_table("a")', "pass")),
        # Found only in what is rendered.
        ("empty_downgrade", "error", revision('op.create_table("a")', "for name in (): op.drop_table(name)")),
        ("irreversible", "warning", revision('op.create_table("a")', "raise NotImplementedError")),
        ("upgrade_loses_data", "error", revision('op.drop_table("a")')),
        # Found only in what is rendered.
        ("upgrade_loses_data", "error", revision('[op.execute(f"{verb} TABLE a") for verb in ["DROP"]]')),
        ("global_state", "warning", revision("global seen")),
        (
            "enum_leak",
            "error",
            revision('op.create_table("a", sa.Column("m", sa.Enum("x", name="mood")))', 'op.drop_table("a")'),
        ),
        ("unguarded_autocommit", "error", revision(INDEX)),
        ("unguarded_autocommit", "error", revision(f'op.create_table("a")\n    {BLOCK}{INDEX}')),
        (
            "unguarded_autocommit",
            "error",
            revision('op.execute("CREATE INDEX " + "CONCURRENTLY".lower() + " i ON a (b)")'),
        ),
        (
            "concurrent_if_not_exists",
            "error",
            revision(BLOCK + INDEX.replace("postgresql", "if_not_exists=True, postgresql")),
        ),
        ("public_name", "error", revision('op.execute("UPDATE public.plans SET code = 1")')),
        ("public_name", "error", revision('op.execute("UPDATE %s.plans SET code = 1" % "public")')),
    ],
)
async def test_each_hazard(rule: str, severity: str, source: str, tmp_path: Path) -> None:
    """It is found, where it stands, and nothing else is; a rule that is off does not look for it."""
    report = await lint(tmp_path / "on", {"a1": CLEAN, "b2": source})
    (finding,) = report.findings
    assert (finding.rule, finding.severity, finding.revision) == (rule, severity, "b2")
    assert finding.file == "alembic/versions/b2.py"
    text = (tmp_path / "on" / finding.file).read_text().splitlines()[finding.line - 1]
    assert finding.line == 1 or text.strip()
    assert finding.hint
    assert report.not_linted == ()
    assert report.passed == (severity == "warning")
    off = await lint(tmp_path / "off", {"a1": CLEAN, "b2": source}, {**QUIET, rule: "off"})
    assert (off.findings, off.passed) == ((), True)


async def test_clean(tmp_path: Path) -> None:
    """A revision as it should be: no finding, also of squawk's, and all was looked at."""
    report = await lint(tmp_path, {"a1": CLEAN, "b2": revision(BLOCK + INDEX, BLOCK + INDEX)}, {})
    assert (told(report), report.squawk.ran, report.passed) == ([], True, True)
    assert report.revisions == ("a1", "b2")


async def test_reads(tmp_path: Path) -> None:
    """What cannot be rendered without a database is not linted, in so many words and at its line; and it is no pass."""
    source = revision('if op.get_bind().execute(sa.text("SELECT 1")).scalar():\n        op.drop_table("a")')
    report = await lint(tmp_path, {"a1": CLEAN, "b2": source})
    assert told(report) == ["reads_with_ddl", "upgrade_loses_data", "not_linted"]
    (unseen,) = report.not_linted
    assert (unseen.revision, unseen.line) == ("b2", 13)
    assert unseen.message.startswith("upgrade() cannot be rendered without a database: AttributeError")
    assert not report.passed
    assert report.summary["not_linted"] == 1


async def test_goes_another_way_offline(tmp_path: Path) -> None:
    """A revision that renders, but would do something else with a database, is not linted either."""
    source = revision('if not op.get_context().as_sql:\n        op.drop_table("a")')
    report = await lint(tmp_path, {"b2": source}, {**QUIET, "upgrade_loses_data": "off"})
    assert told(report) == ["not_linted"]
    assert "as_sql" in report.not_linted[0].message
    assert not report.passed


async def test_goes_another_way_elsewhere(tmp_path: Path) -> None:
    """A revision that goes by its environment is not linted, at the line where it does; a value from there is fine."""
    source = revision('if __import__("os").environ.get("PROD"):\n        op.drop_table("a")')
    other = revision(
        'import datetime, os\n    if os.environ.get("PROD"):\n        op.add_column("a", sa.Column("x", sa.Text))'
    )
    value = revision('import datetime\n    op.add_column("a", sa.Column("x", sa.Date, default=datetime.date.today))')
    report = await lint(
        tmp_path, {"a1": CLEAN, "b2": value, "c3": source, "d4": other}, {**QUIET, "upgrade_loses_data": "off"}
    )
    assert [(each.revision, each.line) for each in report.not_linted] == [("c3", 13), ("d4", 14)]
    message = "upgrade() goes by os.environ.get (the environment): what it sends elsewhere is not seen"
    assert report.not_linted[1].message == message
    assert not report.passed


async def test_connects_by_itself(tmp_path: Path) -> None:
    """A revision that makes a connection of its own is not run: it would reach its database."""
    trace = tmp_path / "ran"
    source = revision(f'open({str(trace)!r}, "w")\n    sa.create_engine("sqlite://").connect()')
    report = await lint(tmp_path, {"b2": source})
    assert told(report) == ["not_linted"]
    assert not trace.exists()


@pytest.mark.parametrize("upgrade", ["raise SystemExit(1)", "raise KeyboardInterrupt", "1 / 0"])
async def test_raises(upgrade: str, tmp_path: Path) -> None:
    """Whatever a revision raises, it alone is not linted, and the others are."""
    lossy = revision('op.drop_table("a")')
    report = await lint(tmp_path, {"a1": revision(upgrade), "b2": lossy})
    assert [(finding.revision, finding.rule) for finding in report.findings] == [("b2", "upgrade_loses_data")]
    assert [finding.revision for finding in report.not_linted] == ["a1"]


async def test_ignored_with_a_reason(tmp_path: Path) -> None:
    """A comment with a reason puts the finding aside, and says so; it does not reach other rules or files."""
    lossy = revision('op.drop_table("a")  # orchestrator: ignore upgrade_loses_data: nobody reads it since 2.1')
    report = await lint(tmp_path, {"a1": lossy, "b2": revision('op.drop_table("b")\n    global seen')})
    assert [(finding.revision, finding.rule) for finding in report.findings] == [
        ("b2", "upgrade_loses_data"),
        ("b2", "global_state"),
    ]
    (excused,) = report.ignored
    assert (excused.finding.revision, excused.reason) == ("a1", "nobody reads it since 2.1")


async def test_ignored_without_a_reason(tmp_path: Path) -> None:
    """Such a comment is a finding itself, and excuses from nothing."""
    lossy = revision('op.drop_table("a")  # orchestrator: ignore upgrade_loses_data')
    report = await lint(tmp_path, {"a1": lossy})
    assert sorted(told(report)) == ["bad_ignore", "upgrade_loses_data"]
    assert not report.passed


async def test_not_linted_can_be_answered_for(tmp_path: Path) -> None:
    """Who has read the revision says so in its file."""
    source = revision("op.get_bind().scalar()  # orchestrator: ignore not_linted: reads one row of plans")
    report = await lint(tmp_path, {"a1": source})
    assert (told(report), report.passed, len(report.ignored)) == ([], True, 1)


async def test_squawk(tmp_path: Path) -> None:
    """What squawk finds stands at the line that wrote the statement, on the second line of a longer one, too."""
    body = 'op.execute("""\n    SELECT 1;\n    ALTER TABLE a ADD COLUMN n bigint NOT NULL;\n    """)\n    '
    body += 'op.add_column("a", sa.Column("x", sa.BigInteger, nullable=False))'
    report = await lint(tmp_path, {"a1": CLEAN, "b2": revision(body)}, {})
    found = [(one.rule, one.line) for one in report.findings]
    assert found == [("squawk/adding-required-field", 13), ("squawk/adding-required-field", 17)]
    assert {finding.severity for finding in report.findings} == {"error"}


async def test_values(tmp_path: Path) -> None:
    """An expression with values in it is looked at as the SQL that it is."""
    table = 'sa.table("a", sa.column("x", sa.Text), sa.column("n"))'
    body = f'a = {table}\n    op.execute(a.update().where(a.c.n > 5).values(x="y"))'
    report = await lint(tmp_path, {"a1": CLEAN, "b2": revision(body)}, {})
    assert (told(report), report.squawk.ran) == ([], True)
    lossy = await lint(
        tmp_path / "lossy", {"b2": revision(f"a = {table}\n    op.execute(sa.delete(a).where(a.c.n > 5))")}
    )
    assert told(lossy) == ["upgrade_loses_data"]


async def test_squawk_rules(tmp_path: Path) -> None:
    """Its rules are turned down, off and on by name; those that something else sees to are off until then."""
    source = revision('op.add_column("a", sa.Column("x", sa.Integer, nullable=False))')
    rules = {
        "squawk/adding-required-field": False,
        "squawk/prefer-bigint-over-int": "error",
        "squawk/require-lock-timeout": "warning",
        # One that squawk itself leaves out unless asked.
        "squawk/require-table-schema": "warning",
    }
    report = await lint(tmp_path, {"a1": source}, rules)
    assert {finding.rule: finding.severity.value for finding in report.findings} == {
        rule: severity for rule, severity in rules.items() if severity
    }


async def test_squawk_is_not_silenced_by_its_own_comments(tmp_path: Path) -> None:
    """They would excuse without anybody seeing it."""
    body = 'op.execute("-- squawk-ignore adding-required-field\\nALTER TABLE a ADD COLUMN n bigint NOT NULL")'
    report = await lint(tmp_path, {"a1": revision(body)}, {})
    assert told(report) == ["squawk/adding-required-field"]


@pytest.mark.parametrize("severity", ["error", "warning", "off"])
async def test_squawk_missing(severity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rules are looked at, how to install it is said, and it is no pass unless tenants.yaml says so."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/nonexistent")
    source = revision('global seen\n    op.execute("SELECT 1")')
    report = await lint(tmp_path, {"a1": source}, {"squawk": severity})
    assert told(report) == ["global_state"]
    assert not report.squawk.ran
    if severity != "off":
        assert report.squawk.reason == "it is not installed"
        assert report.squawk.hint == "pip install 'alembic-orchestrator[lint]'"
    assert report.passed == (severity != "error")


async def test_databases_have_a_public_of_their_own(tmp_path: Path) -> None:
    """Where no tenant is a schema, naming public means the tenant's own."""
    source = revision('op.execute("UPDATE public.plans SET code = 1")')
    alone = [{"id": "acme", "isolation": "database"}]
    assert told(await lint(tmp_path / "databases", {"a1": source}, tenants=alone)) == []
    mixed = [*alone, {"id": "globex"}]
    assert told(await lint(tmp_path / "mixed", {"a1": source}, tenants=mixed)) == ["public_name"]


@pytest.mark.parametrize(
    ("rules", "hint"),
    [
        ({"no_downgrad": "off"}, "no_downgrade"),
        ({"nonsense": "off"}, "docs/cli.md"),
        ({"squawk/ban-drop-column": "off", "squawk/ban-drop-tabel": "off"}, "squawk/ban-drop-table"),
        ({"squawk/nope": "error"}, "squawkhq.com"),
        ({"squawk/ban-drop-table,x": "error"}, "squawk/ban-drop-table"),
    ],
)
async def test_no_such_rule(rules: dict[str, str], hint: str, tmp_path: Path) -> None:
    """A rule that does not exist is an error, not silence."""
    with pytest.raises(ConfigurationError) as caught:
        await lint(tmp_path, {"a1": CLEAN}, rules)
    assert hint in (caught.value.hint or "")


async def test_squawk_rule_that_nobody_can_choose(tmp_path: Path) -> None:
    """squawk tells of syntax under a name that it does not take; how much that weighs is said all the same."""
    source = revision('op.execute("SELECT FROM WHERE")')
    report = await lint(tmp_path, {"a1": source}, {"squawk/syntax-error": "warning"})
    assert {(each.rule, each.severity.value) for each in report.findings} == {("squawk/syntax-error", "warning")}


async def test_squawk_rules_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where squawk is not installed, any name may be one of its rules."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/nonexistent")
    report = await lint(tmp_path, {"a1": CLEAN}, {"squawk": "warning", "squawk/nope": "off"})
    assert report.passed


def test_rules_to_guess_from() -> None:
    """All of them are squawk's; and one that is not is found among them."""
    assert unknown_rule(sorted(KNOWN)) is None
    assert unknown_rule([*sorted(KNOWN), "nope"]) == "nope"


def test_validated_without_lint(project: Project) -> None:
    """`tenants validate` refuses what lint would."""
    for rule, meant in (("no_downgrad", "no_downgrade"), ("squawk/ban-drop-tabel", "squawk/ban-drop-table")):
        project.fleet("acme", schemas=False, more=f"lint: {{rules: {{{rule}: off}}}}\n")
        assert_error(project.run("tenants", "validate"), rule, f"did you mean `{meant}`?")


async def test_addresses_that_are_not_there(tmp_path: Path) -> None:
    """CI has no secrets: an address from a variable that is not set, and tenants that only a source knows."""
    source = {"sql": "SELECT slug AS id FROM tenants", "server": "main"}
    servers = {"main": "${NO_SUCH_VARIABLE}"}
    report = await lint(tmp_path, {"a1": CLEAN}, servers=servers, tenants=[], sources=[source])
    assert (report.revisions, report.passed) == (("a1",), True)


async def test_sqlite(tmp_path: Path) -> None:
    """Tenants in SQLite files: squawk has nothing to say, the other rules have."""
    servers = {"main": f"sqlite:///{tmp_path}"}
    report = await lint(tmp_path / "project", {"a1": CLEAN, "b2": revision('op.drop_table("a")')}, {}, servers=servers)
    assert (told(report), report.squawk.ran) == (["upgrade_loses_data"], False)
    assert "PostgreSQL" in (report.squawk.reason or "")


async def test_several_heads(tmp_path: Path) -> None:
    """Two heads by accident are an error of the directory; two that labels tell apart are not."""
    away = "down_revision = None\n\n\n"
    report = await lint(tmp_path / "plain", {"a1": CLEAN, "b2": away + CLEAN})
    (finding,) = report.findings
    assert (finding.rule, finding.revision, finding.file) == ("several_heads", None, None)
    labelled = {name: f"{away}branch_labels = ({name!r} + '_branch',)\n\n\n{CLEAN}" for name in ("a1", "b2")}
    assert told(await lint(tmp_path / "labelled", labelled)) == []


def test_pending(project: Project) -> None:
    """Without a range, what any selected tenant has still to come by; with everybody at the head, nothing."""
    project.fleet("acme", "globex", more="lint: {rules: {squawk: off}}\n")
    project.json("upgrade", SECOND, "-t", "acme")
    project.json("upgrade", "-t", "globex")
    document = project.json("lint")
    assert (document["taken"], document["revisions"], document["passed"]) == ("pending", [THIRD], True)
    assert project.json("lint", "-t", "globex")["revisions"] == []
    project.revision("d4d4d4d4d4d4", THIRD, "op.drop_table('extras')", "op.create_table('extras')")
    document = project.json("lint", exit_code=3)
    assert document["revisions"] == [THIRD, "d4d4d4d4d4d4"]
    assert [finding["rule"] for finding in document["findings"]] == ["upgrade_loses_data"]
    assert document["summary"] == {"errors": 1, "warnings": 0, "not_linted": 0, "ignored": 0}
    assert project.json("lint", THIRD)["revisions"] == [THIRD]
    assert project.heads("acme") == [SECOND]


def test_ranges(project: Project) -> None:
    """A range and --all-revisions say which revisions they took, and ask nobody: the server is away."""
    project.workspace.write("tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n')
    for arguments, taken, revisions in (
        (("--all-revisions",), "all", [FIRST, SECOND, THIRD]),
        (("--all-revisions", SECOND), "all", [FIRST, SECOND]),
        ((f"{FIRST}:heads",), "range", [SECOND, THIRD]),
        ((f"{FIRST[:4]}:{SECOND[:4]}",), "range", [SECOND]),
        ((f":{FIRST}",), "range", [FIRST]),
        ((f"{THIRD}:",), "range", []),
    ):
        document = project.json("lint", *arguments)
        assert (document["taken"], document["revisions"]) == (taken, revisions), arguments
    for neither in (":", " : "):
        refused = project.run("lint", neither)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"the range {neither!r} names no revision" in refused.stderr
    text = project.run("lint", f"{FIRST}:").stdout
    assert text.startswith(f"2 revisions in the range: {SECOND}, {THIRD}\n")


def test_blocked_tenants(project: Project) -> None:
    """Who cannot be migrated does not count, and that is said; what a revision prints is no part of the document."""
    project.fleet("acme", "globex", more="lint: {rules: {squawk: off}}\n")
    project.json("upgrade", "-t", "acme")
    project.execute("UPDATE acme.alembic_version SET version_num = 'ffffffffffff'")
    project.revision("d4d4d4d4d4d4", THIRD, "print('hello')", "print('hello')")
    result = project.run("lint", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["revisions"] == [FIRST, SECOND, THIRD, "d4d4d4d4d4d4"]
    assert "do not count: 1 of 2" in result.stderr


def test_versions_beside_the_fleet(project: Project) -> None:
    """A file above the directory with tenants.yaml is named so that it is found from there, and from the checkout."""
    lines = (project.workspace.path / "alembic.ini").read_text().replace("%(here)s/alembic", "%(here)s/../alembic")
    project.workspace.write("deploy/alembic.ini", lines)
    project.workspace.write("deploy/tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n')
    project.revision("d4d4d4d4d4d4", THIRD, "op.drop_table('extras')", "op.create_table('extras')")
    arguments = ("--config", "deploy/tenants.yaml", "lint", f"{THIRD}:")
    (finding,) = project.json(*arguments, exit_code=3)["findings"]
    assert finding["file"] == "../alembic/versions/d4d4d4d4d4d4.py"
    result = project.run(*arguments, "--format", "github")
    assert result.stdout.startswith("::error file=alembic/versions/d4d4d4d4d4d4.py,line=13,")


def test_bad_input(project: Project) -> None:
    """Each says what to type instead."""
    project.workspace.write("tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n')
    assert_error(project.run("lint"), "acme", "--all-revisions")
    assert_error(project.run("lint", "nonsense:heads"), "nonsense", "alembic history")
    assert_error(project.run("lint", "--all-revisions", "-t", "acme"), "selection")
    assert_error(project.run("lint", "--all-revisions", "a:b"), "leave one of them out")
    result = project.run("lint", "--all-revisions", "--format", "github", "--json")
    assert (result.returncode, "--format" in result.stderr) == (2, True)


def test_edited(project: Project) -> None:
    """A revision that was edited after a tenant got it is an error, with servers and without."""
    project.fleet("acme", more="lint: {rules: {squawk: off}}\n")
    project.json("upgrade")
    file = project.versions / f"{SECOND}.py"
    file.write_text(file.read_text() + "\n# orchestrator: ignore edited: only this comment\n")
    for arguments in ((), (f"{THIRD}:heads",)):
        document = project.json("lint", *arguments, exit_code=3)
        (finding,) = document["findings"]
        assert (finding["rule"], finding["revision"]) == ("edited", SECOND)
        assert finding["file"] == f"alembic/versions/{SECOND}.py"
        # It is no repository, so that no commit is known.
        assert f"git log -p -- alembic/versions/{SECOND}.py;" in finding["hint"]
    project.json("upgrade", "--accept-edited", SECOND)
    assert project.json("lint")["findings"] == []


def test_github(project: Project) -> None:
    """Annotations at file and line from the checkout's root, nothing else on stdout; special characters are escaped."""
    more = "lint: {rules: {squawk: off, irreversible: error}}\n"
    project.workspace.write("tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n{more}')
    project.revision("d4d4d4d4d4d4", THIRD, "op.execute('DELETE FROM notes WHERE x LIKE \"50%\"')", "raise ValueError")
    checkout = {"GITHUB_WORKSPACE": str(project.workspace.path.parent)}
    result = project.run("lint", f"{THIRD}:", "--format", "github", env=checkout)
    file = f"{project.workspace.path.name}/alembic/versions/d4d4d4d4d4d4.py"
    lines = result.stdout.splitlines()
    assert [line.partition("::")[2].partition("::")[0] for line in lines] == [
        f"error file={file},line=13,title=upgrade_loses_data",
        f"error file={file},line=16,title=irreversible",
    ]
    assert "50%25" in lines[0]
    assert "%0Ahint: " in lines[0]
    assert result.returncode == 3
    assert "1 revision in the range: d4d4d4d4d4d4" in result.stderr


def test_text(project: Project) -> None:
    """For people: what was taken, each finding with its place, what was ignored, what was not run."""
    project.workspace.write("tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n')
    drop = "op.drop_table('extras')  # orchestrator: ignore upgrade_loses_data: empty since 2.1"
    project.revision("d4d4d4d4d4d4", THIRD, drop, "op.get_bind().scalar()")
    result = project.run("lint", f"{THIRD}:", env={"PATH": "/nonexistent"})
    assert result.returncode == 3, result.stderr
    assert result.stdout.splitlines() == [
        "1 revision in the range: d4d4d4d4d4d4",
        "alembic/versions/d4d4d4d4d4d4.py:17: error: not_linted: downgrade() cannot be rendered without a database:"
        " AttributeError: 'MockConnection' object has no attribute 'scalar'",
        "  hint: read it yourself, then say so in the file: # orchestrator: ignore not_linted: reason",
        "alembic/versions/d4d4d4d4d4d4.py:13: ignored: upgrade_loses_data: empty since 2.1",
        "0 errors, 0 warnings, 1 not linted, 1 ignored",
    ]


@pytest.mark.parametrize("history", [SAMPLE, ARGILLA, PLACEMENT], ids=lambda history: history.name)
def test_histories(history: History, tmp_path: Path) -> None:
    """Real histories, and the sample: each revision is linted, or is said not to be."""
    workspace = history.project(tmp_path)
    workspace.write("tenants.yaml", f'servers: {{main: "{NOWHERE}"}}\ntenants: [acme]\n')
    assert_linted(workspace, history)


def assert_linted(workspace: Workspace, history: History) -> Any:
    """``lint --all-revisions`` looks at all revisions up to the history's heads; its document."""
    result = workspace.run("lint", "--all-revisions", "--json", timeout=300)
    assert result.returncode in (0, 3), result.stderr
    assert "Traceback" not in result.stderr
    document = json.loads(result.stdout)
    assert set(history.heads) <= set(document["revisions"])
    assert document["squawk"]["ran"] or workspace.interpreter != sys.executable
    return document
