"""Tenants whose ids are globs, lists or comments: those that are there are meant alone, new ones are refused."""

from __future__ import annotations

import pytest

from tests.command_line import THIRD, Project, assert_error, statuses
from tests.servers import fetch

AGREED = ("--yes", "--allow-data-loss")
ALL = ["*", "ac*e", "acme", "globex", "a#b", "a"]


@pytest.fixture
def odd(project: Project) -> Project:
    """A fleet that has such ids from elsewhere."""
    project.execute("".join(f"CREATE SCHEMA {name};" for name in ("star", "ace", "acme", "globex", "hash", "a")))
    project.fleet(
        '{id: "*", schema: star}', '{id: "ac*e", schema: ace}', "acme", "globex", '{id: "a#b", schema: hash}', "a",
        schemas=False,
    )  # fmt: skip
    project.json("upgrade")
    return project


def listed(project: Project, *flags: str) -> list[str]:
    """Whom a selection means."""
    return [each["tenant"] for each in project.json("tenants", "list", *flags)["tenants"]]


def test_exact_id_wins(odd: Project) -> None:
    """What is some tenant's id means that tenant and nobody else; other globs mean what they match."""
    assert listed(odd) == ALL
    assert listed(odd, "-t", "*") == ["*"]
    assert listed(odd, "-t", "ac*e") == ["ac*e"]
    assert listed(odd, "-t", "ac*") == ["ac*e", "acme"]
    assert listed(odd, "--exclude", "*") == ALL[1:]
    odd.workspace.write("list.txt", "a#b\n*  # a comment\n# another\n")
    assert listed(odd, "--tenants-from", "list.txt") == ["*", "a#b"]


def test_offboard_takes_that_one(odd: Project) -> None:
    """`offboard '*'` sets the tenant of that name aside, given again ends that alone, and brings it back."""
    assert statuses(odd.json("offboard", "*", *AGREED)) == {"*": "succeeded"}
    assert statuses(odd.json("offboard", "*", *AGREED)) == {"*": "succeeded"}
    assert listed(odd) == ALL[1:]
    assert statuses(odd.json("offboard", "*", "--undo")) == {"*": "succeeded"}
    assert sorted(listed(odd)) == sorted(ALL)
    assert odd.heads("star") == [THIRD]


def test_restore_takes_that_one(odd: Project) -> None:
    """`restore -t '*' --register` restores the tenant of that name, also where the fleet does not have it any more."""
    run = odd.json("backup", "--to", "saved")["run"]
    assert statuses(odd.json("offboard", "*", "--drop", *AGREED)) == {"*": "succeeded"}
    assert statuses(odd.json("restore", run, "-t", "*", "--register", *AGREED)) == {"*": "succeeded"}


@pytest.mark.parametrize("id", ["*", "ac*me", "a?", "a[1]", "a]", "a,b", "#a", "a #b"])
def test_new_ones_are_refused(project: Project, id: str) -> None:
    """Nothing is made of one that comes, by its name or in a list."""
    project.fleet("acme")
    assert_error(project.run("onboard", id, "--schema", "made"), f"cannot be called {id!r}", "choose an id without")
    project.workspace.write("new.json", f'["plain", "{id}"]')
    assert_error(project.run("onboard", "--from", "new.json"), f"cannot be called {id!r}", "nothing was touched")
    assert listed(project) == ["acme"]
    assert fetch(project.url, "SELECT 1 FROM pg_namespace WHERE nspname IN ('made', 'plain')") == []


def test_old_ones_can_be_finished(odd: Project) -> None:
    """`onboard` of one that the fleet has is what it was."""
    assert statuses(odd.json("onboard", "ac*e", "--schema", "ace")) == {"ac*e": "already_current"}
