"""Sources and waves that find nobody: a mistyped word opens no gate in silence."""

from __future__ import annotations

import json

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.workspace import Workspace

EMPTY = 'sources: [{schemas: "nomatch_*", server: main}]\n'
SAID = "the source schemas 'nomatch_*' on server main finds no tenant"
COMMANDS = (("tenants", "validate"), ("check",), ("plan",), ("upgrade", "--dry-run"), ("upgrade",))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("tenants", [(), ("acme",)], ids=["nobody", "others"])
def test_empty_source(project: Project, words: tuple[str, ...], tenants: tuple[str, ...]) -> None:
    """It is named once on stderr, also with --json, and the exit code is what it was."""
    project.fleet(*tenants, more=EMPTY)
    project.run("upgrade")
    for flags in ((), ("--json",)):
        result = project.run(*words, *flags)
        assert (result.returncode, result.stderr.count(SAID)) == (0, 1), (flags, result.stderr)
    document = json.loads(result.stdout)
    if words != ("upgrade",):
        assert [said.startswith(SAID) for said in document["warnings"]] == [True]


def test_nothing_is_said_of_what_finds_somebody(project: Project) -> None:
    """A source with a tenant, and waves with one each, are passed over; so are the waves where others are given."""
    project.execute("CREATE SCHEMA t1")
    waves = 'waves: [{name: canary, select: {tenants: ["acme"]}}, {name: rest}]\n'
    project.fleet("acme", more='sources: [{schemas: "t*", server: main}]\n' + waves)
    project.json("upgrade")
    for words in COMMANDS:
        result = project.run(*words)
        assert (result.returncode, "finds no tenant" in result.stderr, "selects nobody" in result.stderr) == (
            0, False, False,
        ), result.stderr  # fmt: skip
    assert project.json("check")["warnings"] == []


@pytest.mark.parametrize("words", [each for each in COMMANDS if each != ("check",)], ids=" ".join)
def test_wave_of_nobody(project: Project, words: tuple[str, ...]) -> None:
    """A wave whose tag nobody has is told with the tag that was most likely meant, and that nobody is held back."""
    wave = "waves: [{name: canary, select: {tags: [canry]}, approve: manual, bake: 10m}]\n"
    project.fleet("{id: acme, tags: [canary]}", "globex", more=wave)
    result = project.run(*words)
    assert result.returncode == 0
    said = "wave canary selects nobody; nobody waits for its approval, bake: no tag matches 'canry' (did you mean"
    assert result.stderr.count(said + " 'canary'?)") == 1, result.stderr
    if words in (("plan",), ("tenants", "validate")):
        (warning,) = project.json(*words)["warnings"]
        assert warning.startswith(said)
    if words == ("plan",):
        assert "selects nobody" not in project.run("plan", "--waves", "1").stderr


def test_lint_without_tenants(project: Project) -> None:
    """Where nobody is, every revision is pending for the first to come; an empty shard has nothing pending."""
    project.fleet(more=EMPTY)
    document = project.json("lint")
    assert document["revisions"] == [FIRST, SECOND, THIRD]
    assert "the fleet has no tenant: every revision is looked at" in project.run("lint").stderr
    assert [each["rule"] for each in document["findings"]] == [
        each["rule"] for each in project.json("lint", "--all-revisions")["findings"]
    ]
    assert_error(project.run("lint", "-t", "acme"), "no tenant matches 'acme'")
    project.fleet("acme")
    shards = [project.json("lint", "--shard", f"{number}/2")["revisions"] for number in (1, 2)]
    assert sorted(shards) == [[], [FIRST, SECOND, THIRD]]


def test_lint_without_servers(workspace: Workspace) -> None:
    """Where nothing says for which database, that is said."""
    workspace.write("nobody.py", "def all_tenants():\n    return []\n")
    workspace.write("tenants.yaml", "sources: [{python: 'nobody:all_tenants'}]\n")
    for flags in ((), ("--all-revisions",)):
        result = workspace.run("lint", *flags)
        assert_error(result, "no server to say for which database", "servers:")
