"""onboard of who is there, and --undo of what was not done: nothing is changed, and that is said."""

from __future__ import annotations

import pytest

from tests.command_line import Project, statuses

SEEDS = """onboarding:
  seed: usual
  seeds:
    usual: {sql: usual.sql}
    other: {sql: other.sql}
"""


@pytest.fixture
def shop(project: Project) -> Project:
    """One tenant, onboarded with tags and the usual rows."""
    for seed in ("usual", "other"):
        project.workspace.write(f"{seed}.sql", f"INSERT INTO notes (body) VALUES ('{seed}');\n")
    project.fleet("acme", more=SEEDS)
    assert statuses(project.json("onboard", "hooli", "--tags", "eu,free")) == {"hooli": "succeeded"}
    return project


def said(project: Project, *words: str) -> str:
    """What stands on stderr, of a command that ends well."""
    result = project.run(*words)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_other_tags(shop: Project) -> None:
    """Tags that the fleet's entry has not are told, by name and from a list, with --json, too; the entry stays."""
    told = "hooli is in the fleet already, with tags eu, free, and was not given zzz; to change that, edit tenants.yaml"
    assert said(shop, "onboard", "hooli", "--tags", "zzz").count(told) == 1
    assert said(shop, "onboard", "hooli", "--tags", "zzz", "--json").count(told) == 1
    shop.workspace.write("up.csv", "id,tags\nhooli,zzz\n")
    assert told in said(shop, "onboard", "--from", "up.csv")
    assert shop.json("tenants", "show", "hooli")["tags"] == ["eu", "free"]
    assert "was not given" not in said(shop, "onboard", "hooli")
    assert "was not given" not in said(shop, "onboard", "hooli", "--tags", "free,eu")


def test_other_seed(shop: Project) -> None:
    """A seed that it was not given is told; the one that it has is not, so that the same command can be given again."""
    told = "hooli is in the fleet already, and was not given the rows of seed other"
    assert told in said(shop, "onboard", "hooli", "--seed", "other")
    shop.workspace.write("up.csv", "id,seed\nhooli,other\n")
    assert told in said(shop, "onboard", "--from", "up.csv")
    for seed in ("usual", ""):
        assert "was not given" not in said(shop, "onboard", "hooli", "--seed", seed)
    # One that was not onboarded at all.
    said(shop, "upgrade", "-t", "acme")
    assert "acme is in the fleet already, and was not given the rows" in said(
        shop, "onboard", "acme", "--seed", "usual"
    )


def test_nothing_to_undo(shop: Project) -> None:
    """--undo of an onboarding that never was, and of a tenant that is not set aside, says so; a real one does not."""
    told = "typo_name: there was nothing to undo: typo_name is not there, and the fleet does not list it"
    assert told in said(shop, "onboard", "typo_name", "--undo")
    told = "hooli: there was nothing to undo: nothing of it is set aside, and the fleet has it"
    assert told in said(shop, "offboard", "hooli", "--undo")
    said(shop, "offboard", "hooli", "--yes", "--allow-data-loss")
    assert "nothing to undo" not in said(shop, "offboard", "hooli", "--undo")
    assert told in said(shop, "offboard", "hooli", "--undo")
