"""How a run goes on, stops and is carried on: budgets, waves, provisioning, dry runs, resume, pins."""

from __future__ import annotations

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of
from tests.servers import PostgresServer

TEN = tuple(f"t{number}" for number in range(10))
#: What makes THIRD fail in a schema.
BLOCK = "CREATE TABLE {}.extras (id int)"


def test_first_failure_stops(project: Project) -> None:
    """By default no tenant starts after a failure; after the fix, resume touches only what is left."""
    project.fleet("acme", "globex", "initech", "soylent")
    project.execute(BLOCK.format("globex"))
    failed = project.json("upgrade", "--jobs", "1", exit_code=1)
    expected = {"acme": "succeeded", "globex": "failed", "initech": "not_started", "soylent": "not_started"}
    assert statuses(failed) == expected
    assert (failed["status"], failed["summary"]) == ("failed", {"succeeded": 1, "failed": 1, "not_started": 2})
    assert [project.heads(name) for name in expected] == [[THIRD], [SECOND], [], []]

    project.execute("DROP TABLE globex.extras")
    resumed = project.json("resume", "--jobs", "1")
    assert resumed["run"] == failed["run"]
    assert resumed["status"] == "succeeded"
    assert set(statuses(resumed).values()) == {"succeeded"}
    assert tenant_of(resumed, "acme") == tenant_of(failed, "acme")
    assert (tenant_of(resumed, "globex")["attempts"], tenant_of(resumed, "globex")["from"]) == (2, [])

    done = project.run("resume")
    assert done.returncode == 0
    assert "nothing is left to do" in done.stderr
    assert project.json("runs", "show", "last") == resumed


def test_failure_is_told_to_people(project: Project) -> None:
    """What failed is printed with tenant, revision, statement, the database's error and the command to go on."""
    project.fleet("acme", "globex")
    project.execute(BLOCK.format("globex"))
    result = project.run("upgrade", "--jobs", "1")
    assert result.returncode == 1
    run = result.stdout.split()[1]
    for part in ("globex failed", THIRD, "CREATE TABLE extras", 'relation "extras" already exists', "42P07",
                 f"orchestrator resume {run}"):  # fmt: skip
        assert part in result.stdout, part


@pytest.mark.parametrize(
    ("flags", "failed", "not_started"),
    [
        (("--max-failures", "0"), 1, 7),
        (("--max-failures", "1"), 2, 6),
        (("--max-failures", "20%"), 3, 5),
        (("--max-failures", "100%"), 8, 0),
        (("--continue-on-error",), 8, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_failure_budget(project: Project, flags: tuple[str, ...], failed: int, not_started: int) -> None:
    """As many tenants may fail as the budget says, in number or in percent of the wave; the next failure stops."""
    project.fleet(*TEN)
    for tenant in TEN[2:]:
        project.execute(BLOCK.format(tenant))
    summary = project.json("upgrade", "--jobs", "1", *flags, exit_code=1)["summary"]
    assert (summary["failed"], summary.get("not_started", 0)) == (failed, not_started)
    assert summary["succeeded"] == 2


@pytest.mark.parametrize(
    "flags", [("--max-failures", "few"), ("--max-failures", "-1"), ("--jobs", "0"), ("--wave", "x")]
)
def test_bad_flag(project: Project, flags: tuple[str, str]) -> None:
    """A flag's value that means nothing is refused with the form it takes; nothing is touched."""
    project.fleet("acme")
    assert_error(project.run("upgrade", *flags), flags[0] if flags[0] != "--wave" else "no wave 'x'", "hint: ")
    assert project.heads("acme") == []


def test_waves(project: Project) -> None:
    """Waves go one after the other, --wave does one of them, and a failure in one keeps the next from starting."""
    waves = "waves:\n  - {name: canary, select: {tags: [canary]}}\n  - {name: first, count: 1}\n"
    project.fleet("acme", "{id: globex, tags: [canary]}", "initech", "soylent", more=waves)
    plan = project.json("plan")
    assert [(wave["name"], wave["tenants"]) for wave in plan["waves"]] == [
        ("canary", ["globex"]), ("first", ["acme"]), ("rest", ["initech", "soylent"]),
    ]  # fmt: skip
    canary = project.json("upgrade", "--wave", "canary")
    assert [(tenant["tenant"], tenant["wave"]) for tenant in canary["tenants"]] == [("globex", "canary")]
    project.execute(BLOCK.format("acme"))
    stopped = project.json("upgrade", exit_code=1)
    assert statuses(stopped) == {
        "globex": "already_current", "acme": "failed", "initech": "not_started", "soylent": "not_started",
    }  # fmt: skip
    assert project.heads("initech") == []


def test_dry_run_touches_nothing(project: Project) -> None:
    """--dry-run and plan show the revisions, and neither database nor journal differs afterwards."""
    project.fleet("acme", "globex")
    catalog = project.catalog()
    for command in (("upgrade", "--dry-run"), ("plan",), ("plan", "--sql"), ("status",), ("tenants", "list")):
        result = project.run(*command)
        assert result.returncode == 0, result.stderr
    assert FIRST in project.run("plan").stdout
    assert "CREATE TABLE extras" in project.run("plan", "--sql").stdout
    assert not project.journal.parent.exists()
    assert project.catalog() == catalog

    project.json("upgrade")
    catalog, journal = project.catalog(), project.journal.read_bytes()
    down = project.json("downgrade", "base", "--all", "--dry-run")
    assert down["cohorts"][0]["revisions"] == [THIRD, SECOND, FIRST]
    assert {hazard["kind"] for hazard in down["hazards"]} == {"downgrade_loses_data"}
    project.run("runs", "list")
    assert (project.catalog(), project.journal.read_bytes()) == (catalog, journal)


def test_provision(project: Project, pg: PostgresServer) -> None:
    """Missing schemas, databases and files are reported and left alone, and made with --provision."""
    own = "{id: owned, isolation: database, database: " + project.url.rpartition("/")[2] + "_owned}"
    project.fleet("acme", own, '{id: local, url: "sqlite:///files/local.db"}', schemas=False)
    assert project.json("status")["summary"] == {"unprovisioned": 3}
    blocked = project.json("upgrade", exit_code=1)
    assert set(statuses(blocked).values()) == {"blocked"}
    assert "--provision" in tenant_of(blocked, "acme")["error"]["hint"]
    assert project.json("status")["summary"] == {"unprovisioned": 3}
    try:
        made = project.json("resume", "--provision")
        assert set(statuses(made).values()) == {"succeeded"}
        assert project.json("status")["summary"] == {"current": 3}
    finally:
        pg.drop_database(f"{project.url}_owned")


def test_blocked_tenant_disturbs_nobody(project: Project) -> None:
    """A tenant that does not exist is blocked and uses no failure budget: the others are migrated, exit code 1."""
    project.fleet("acme", "globex", "initech")
    project.execute("DROP SCHEMA acme")
    document = project.json("upgrade", "--jobs", "1", exit_code=1)
    assert statuses(document) == {"acme": "blocked", "globex": "succeeded", "initech": "succeeded"}


def test_pinned_tenant(project: Project) -> None:
    """A pinned tenant goes as far as its pin, is reported with its reason, and is no failure."""
    project.fleet("acme", f'{{id: globex, pin: {SECOND}, reason: "custom index, see OPS-12"}}')
    assert project.json("upgrade")["summary"] == {"succeeded": 2}
    assert project.heads("globex") == [SECOND]
    assert project.json("status")["summary"] == {"current": 1, "pinned": 1}
    assert "custom index, see OPS-12" in project.run("status").stdout
    assert statuses(project.json("upgrade")) == {"acme": "already_current", "globex": "skipped"}


def test_nothing_to_resume(project: Project) -> None:
    """resume without any run names upgrade; with a run that it does not know, it names runs list."""
    project.fleet("acme")
    assert_error(project.run("resume"), "no run", "orchestrator upgrade")
    project.json("upgrade")
    assert_error(project.run("resume", "nosuch"), "no run 'nosuch'", "orchestrator runs list")


def test_downgrade_off_a_terminal(project: Project) -> None:
    """Where nobody can be asked, downgrade needs --yes and --allow-data-loss, both, even with nothing to lose."""
    project.fleet("acme", "globex")
    for flags in ((), ("--yes",), ("--allow-data-loss",)):
        assert_error(project.run("downgrade", "-1", "-t", "acme", *flags), "--yes --allow-data-loss", "--dry-run")
    project.json("upgrade")
    document = project.json("downgrade", "-1", "-t", "acme", "--yes", "--allow-data-loss")
    assert (document["target"], statuses(document)) == ([SECOND], {"acme": "succeeded"})
    assert (project.heads("acme"), project.heads("globex")) == ([SECOND], [THIRD])
    assert_error(project.run("downgrade", "--bogus", "-t", "acme"), "--bogus")
