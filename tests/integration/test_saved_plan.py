"""plan --out and upgrade --plan: what was looked at is what is run, or nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of

WAVES = "waves:\n  - {name: canary, select: {tags: [canary]}}\n  - {name: rest}\n"


def three(project: Project, waves: str = WAVES, more: str = "") -> None:
    """A fleet of a canary and two others; ``more`` is another tenant."""
    tenants = ["{id: acme, tags: [canary]}", "globex", "initech"]
    project.fleet(*tenants, *([more] if more else []), more=waves)


def test_a_saved_plan_is_run(project: Project) -> None:
    """Its tenants, waves and targets, and nobody who came to the fleet since."""
    three(project)
    shown = project.json("plan", SECOND, "--exclude", "initech", "--out", "plan.json")
    kept = json.loads((project.workspace.path / "plan.json").read_text())
    assert kept.pop("saved")["directory_digest"]
    assert kept == shown
    assert project.heads("acme") == []

    three(project, more="hooli")
    run = project.json("upgrade", "--plan", "plan.json")
    assert statuses(run) == {"acme": "succeeded", "globex": "succeeded"}
    assert [tenant_of(run, name)["wave"] for name in ("acme", "globex")] == ["canary", "rest"]
    assert run["target"] == [SECOND]
    assert [project.heads(name) for name in ("acme", "globex", "initech", "hooli")] == [[SECOND], [SECOND], [], []]


def test_one_wave_of_a_plan(project: Project) -> None:
    """A plan of one wave is of that wave when it is run, though the others decided who is in it."""
    project.fleet("acme", "globex", "initech", more="waves:\n  - {name: first, percent: 34}\n  - {name: rest}\n")
    project.json("plan", "--wave", "first", "--out", "plan.json")
    run = project.json("upgrade", "--plan", "plan.json")
    assert statuses(run) == {"acme": "succeeded", "globex": "succeeded"}
    assert project.heads("initech") == []


def new_revision(project: Project) -> None:
    """The directory grows."""
    project.revision("d4d4d4d4d4d4", THIRD)


def edited_revision(project: Project) -> None:
    """A file is changed that nobody has yet."""
    file = project.versions / f"{THIRD}.py"
    file.write_text(file.read_text() + "# changed\n")


def moved_tenant(project: Project) -> None:
    """Somebody migrates a tenant."""
    project.json("upgrade", FIRST, "-t", "globex")


def gone_tenant(project: Project) -> None:
    """A tenant leaves the fleet."""
    project.fleet("{id: acme, tags: [canary]}", "initech", more=WAVES)


def another_place(project: Project) -> None:
    """A tenant's name means another schema."""
    project.execute('CREATE SCHEMA "other"')
    project.fleet("{id: acme, tags: [canary]}", "{id: globex, schema: other}", "initech", schemas=False, more=WAVES)


def another_pin(project: Project) -> None:
    """A tenant is pinned."""
    project.fleet("{id: acme, tags: [canary]}", f"{{id: globex, pin: {FIRST}, reason: frozen}}", "initech", more=WAVES)


def other_waves(project: Project) -> None:
    """Waves are cut otherwise."""
    three(project, "waves:\n  - {name: canary, count: 2}\n  - {name: rest}\n")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (new_revision, ["the directory has moved", f"its heads were {THIRD}, are d4d4d4d4d4d4"]),
        (edited_revision, ["the directory has moved", "a revision file was edited"]),
        (moved_tenant, [f"globex was at base, is at {FIRST}", "1 of 3 tenants", "orchestrator status"]),
        (gone_tenant, ["globex is no longer in the fleet"]),
        (another_place, ["globex was globex on main, is other on main"]),
        (another_pin, [f"globex was to go to {THIRD}, would go to {FIRST}"]),
        (other_waves, ["its waves were canary (1), rest (2), tenants.yaml now makes canary (2), rest (1)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_has_moved_is_refused(project: Project, change: Callable[[Project], None], told: list[str]) -> None:
    """Exit code 2, what moved and the command that makes the plan again; nothing is touched, and no run is begun."""
    three(project)
    project.json("plan", "--out", "plan.json", "-t", "*")
    change(project)
    before = project.catalog(), len(project.json("runs", "list")["runs"])
    refused = project.run("upgrade", "--plan", "plan.json")
    assert_error(refused, "no longer holds", *told, "orchestrator plan -t '*' --out plan.json")
    assert (project.catalog(), len(project.json("runs", "list")["runs"])) == before


def test_a_run_of_a_plan_is_carried_on_to_the_plans_revisions(project: Project) -> None:
    """What failed goes where the plan said when it is resumed, though the directory has grown since."""
    project.fleet("acme", "globex")
    project.execute("CREATE TABLE globex.extras (id int)")
    project.json("plan", "--out", "plan.json")
    project.json("upgrade", "--plan", "plan.json", exit_code=1)
    project.execute("DROP TABLE globex.extras")
    project.revision("d4d4d4d4d4d4", THIRD)
    project.json("resume")
    assert [project.heads(name) for name in ("acme", "globex")] == [[THIRD], [THIRD]]


def test_who_is_not_migrated_by_the_plan(project: Project) -> None:
    """A blocked tenant is so in the plan and in its run; one that would be migrated now makes it another plan."""
    project.fleet("acme", "globex", schemas=False)
    project.execute("CREATE SCHEMA acme")
    project.json("plan", "--out", "plan.json")
    assert statuses(project.json("upgrade", "--plan", "plan.json", exit_code=1)) == {
        "acme": "succeeded",
        "globex": "blocked",
    }
    project.json("plan", "--out", "plan.json")
    project.execute("CREATE SCHEMA globex")
    assert_error(project.run("upgrade", "--plan", "plan.json"), "globex was blocked, is pending")
    assert project.heads("globex") == []


@pytest.mark.parametrize("beside", [("heads",), ("-t", "acme"), ("--wave", "all"), ("--provision",), ("--dry-run",)])
def test_nothing_beside_a_plan(project: Project, beside: tuple[str, ...]) -> None:
    """A plan says who and to what: whatever else says so is refused."""
    project.fleet("acme")
    project.json("plan", "--out", "plan.json")
    assert_error(project.run("upgrade", "--plan", "plan.json", *beside), "hint: ")
    assert project.heads("acme") == []


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"saved": {"format": 99}}', '{"saved": {"format": 1}}'])
def test_what_is_no_plan(project: Project, text: str | None) -> None:
    """A file that is not there, or has something else in it, is an error with the command that makes one."""
    project.fleet("acme")
    if text is not None:
        project.workspace.write("plan.json", text)
    assert_error(project.run("upgrade", "--plan", "plan.json"), "plan", "orchestrator plan --out plan.json")


def test_a_plan_that_cannot_be_saved(project: Project) -> None:
    """Neither half a file nor none is taken for success."""
    project.fleet("acme")
    assert_error(project.run("plan", "--out", "nowhere/plan.json"), "cannot write nowhere/plan.json")


def test_waves_on_the_command_line(project: Project) -> None:
    """They are part of the plan."""
    three(project, waves="")
    project.json("plan", "--waves", "1", "--out", "plan.json")

    run = project.json("upgrade", "--plan", "plan.json")

    assert [tenant_of(run, name)["wave"] for name in ("acme", "globex", "initech")] == ["1", "rest", "rest"]


def test_a_server_that_is_elsewhere(project: Project, make_database: Callable[..., str]) -> None:
    """An address may hold what is read anew: another database at the same heads is not what was looked at."""
    three(project, waves="")
    project.json("plan", "--provision", "--out", "plan.json")
    file = project.workspace.path / "tenants.yaml"
    file.write_text(file.read_text().replace(project.url, make_database()))

    assert_error(project.run("upgrade", "--plan", "plan.json"), "no longer holds", "server main was ")
