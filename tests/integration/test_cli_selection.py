"""Which tenants a command means: the same flags on every command that takes tenants."""

from __future__ import annotations

from typing import Any

import pytest

from tests.command_line import FIRST, THIRD, Project, assert_error

FLEET = (
    "{id: acme, tags: [free]}",
    "{id: eu-one, tags: [eu, free]}",
    "{id: eu-two, tags: [eu]}",
    "{id: eu-three, tags: [eu]}",
    "zeta",
)
ALL = ["acme", "eu-one", "eu-two", "eu-three", "zeta"]


def chosen(document: dict[str, Any]) -> list[str]:
    """The tenants in a command's document, whichever command it was."""
    if "tenants" in document:
        return [tenant["tenant"] for tenant in document["tenants"]]
    return [tenant for wave in document["waves"] for tenant in wave["tenants"]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ALL),
        (("-t", "acme"), ["acme"]),
        (("--tenant", "eu-*", "-t", "zeta"), ["eu-one", "eu-two", "eu-three", "zeta"]),
        (("--tag", "eu", "--tag", "free"), ["acme", "eu-one", "eu-two", "eu-three"]),
        (("--tag", "eu", "--exclude", "*-t*"), ["eu-one"]),
        (("--server", "main", "--exclude", "eu-*"), ["acme", "zeta"]),
        (("--tenants-from", "list.txt"), ["acme", "zeta"]),
        (("--sample", "9"), ALL),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags(project: Project, flags: tuple[str, ...], expected: list[str]) -> None:
    """Each flag and their combinations select what they say, in the fleet's order."""
    project.fleet(*FLEET, schemas=False)
    project.workspace.write("list.txt", "zeta\n# a comment\n\nacme  # another\n")
    assert chosen(project.json("tenants", "list", *flags)) == expected


def test_list_from_stdin(project: Project) -> None:
    """--tenants-from - reads the list from stdin."""
    project.fleet(*FLEET, schemas=False)
    with project.start("tenants", "list", "--tenants-from", "-", stdin=True) as process:
        told, _ = process.communicate("eu-two\nacme\n", timeout=60)
    assert process.returncode == 0
    assert "eu-two" in told
    assert "acme" in told
    assert "zeta" not in told


def test_shards_and_samples(project: Project) -> None:
    """The shards of a fleet have every tenant exactly once; a sample is the same each time."""
    project.fleet(*FLEET, schemas=False)
    shards = [chosen(project.json("tenants", "list", "--shard", f"{number}/3")) for number in (1, 2, 3)]
    assert sorted(tenant for shard in shards for tenant in shard) == sorted(ALL)
    samples = [chosen(project.json("tenants", "list", "--sample", "2")) for _ in range(2)]
    assert len(samples[0]) == 2
    assert samples[0] == samples[1]


def test_every_command(project: Project) -> None:
    """Every command that takes tenants takes all flags, and touches those tenants only."""
    project.fleet(*FLEET)
    flags = ("-t", "eu-*", "--tag", "eu", "--server", "main", "--exclude", "eu-two", "--shard", "1/1", "--sample", "5")
    for command in (
        ("status",),
        ("plan",),
        ("upgrade", "--dry-run"),
        ("upgrade",),
        ("rollback", "last", "--dry-run"),
        ("downgrade", "base", "--dry-run"),
        ("downgrade", FIRST, "--yes", "--allow-data-loss"),
        ("stamp", THIRD),
        ("tenants", "list"),
    ):
        assert chosen(project.json(*command, *flags)) == ["eu-one", "eu-three"], command
    assert [tenant for tenant in ALL if project.heads(tenant)] == ["eu-one", "eu-three"]


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("-t", "acne"), "did you mean 'acme'?"),
        (("--tag", "fre"), "did you mean 'free'?"),
        (("--server", "mian"), "did you mean 'main'?"),
        (("--exclude", "eu-tree"), "did you mean 'eu-three'?"),
        (("-t", "acme", "--tag", "eu"), "orchestrator tenants list"),
        (("--tenants-from", "nosuch.txt"), "a text file"),
        (("--shard", "4/3"), "--shard I/N"),
        (("--sample", "0"), "--help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_no_match(project: Project, flags: tuple[str, ...], hint: str) -> None:
    """A selection that means nobody is an error with what may have been meant; nobody is migrated."""
    project.fleet(*FLEET)
    assert_error(project.run("upgrade", *flags), hint)
    assert not any(project.heads(tenant) for tenant in ALL)


def test_everyone_on_purpose(project: Project) -> None:
    """downgrade and stamp never mean the whole fleet by accident: without a selection they need --all."""
    project.fleet("acme", "globex")
    project.json("upgrade")
    agreed = ("--yes", "--allow-data-loss")
    assert_error(project.run("stamp", FIRST), "-t TENANT", "--all")
    assert_error(project.run("downgrade", "base", *agreed), "-t TENANT", "--all")
    assert project.heads("acme") == project.heads("globex") == [THIRD]
    assert project.json("downgrade", FIRST, "--all", *agreed)["summary"] == {"succeeded": 2}
    assert project.json("stamp", THIRD, "--all")["summary"] == {"succeeded": 2}
    assert project.heads("acme") == project.heads("globex") == [THIRD]
