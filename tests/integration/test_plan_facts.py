"""What plan tells beside the way: how large the tables are, and how long a tenant takes."""

from __future__ import annotations

from tests.command_line import FIRST, SECOND, THIRD, Project

FOURTH = "d4d4d4d4d4d4"


def test_tables_of_the_largest_tenants(project: Project) -> None:
    """Those that the revisions name, the largest tenant first, five tenants at most; people are shown large ones."""
    names = [f"t{number}" for number in range(7)]
    project.fleet(*names)
    project.json("upgrade")
    for number, name in enumerate(names):
        rows = 20_000 if number == 3 else 200 * number
        project.execute(f"INSERT INTO {name}.notes SELECT generate_series(1, {rows}); ANALYZE {name}.notes")
    project.revision(FOURTH, THIRD, "op.execute('UPDATE notes SET body = NULL')", "op.drop_table('extras')")
    sizes = project.json("plan")["sizes"]
    assert [(each["tenant"], each["table"], each["rows"]) for each in sizes] == [
        ("t3", "notes", 20_000),
        ("t6", "notes", 1200),
        ("t5", "notes", 1000),
        ("t4", "notes", 800),
        ("t2", "notes", 400),
    ]
    assert sizes[0]["bytes"] > 1_000_000
    shown = project.run("plan").stdout
    assert "notes  t3      20,000  1 MB" in shown
    assert "t6" not in shown
    # One that is not to be migrated is not measured.
    assert project.json("plan", "--exclude", "t3")["sizes"][0]["tenant"] == "t6"


def test_what_a_tenant_takes(project: Project) -> None:
    """From what its revisions took on others; where one was never run, that is said instead of a guess."""
    project.fleet("acme", "globex", "initech")
    (cohort,) = project.json("plan")["cohorts"]
    assert cohort["per_tenant"] == {
        "p50_ms": None, "p90_ms": None, "times": 0, "no_history": [FIRST, SECOND, THIRD],
    }  # fmt: skip
    assert "no estimate: no history of 3 revisions" in project.run("plan").stdout
    project.json("upgrade", "-t", "acme", "-t", "globex")
    (cohort,) = project.json("plan")["cohorts"]
    takes = cohort["per_tenant"]
    assert 0 < takes["p50_ms"] <= takes["p90_ms"]
    assert (takes["times"], takes["no_history"]) == (2, [])
    assert "run 2 times before" in project.run("plan").stdout
