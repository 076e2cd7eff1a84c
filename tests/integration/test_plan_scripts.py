"""plan --sql-dir: the SQL in files, for whoever reads or runs it by hand."""

from __future__ import annotations

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error


def test_a_file_for_each_cohort(project: Project) -> None:
    """Each says whom it is of; what is printed has no SQL in it unless that is asked for, too."""
    project.fleet("acme", "globex", "initech")
    project.json("upgrade", SECOND, "-t", "initech")
    plan = project.json("plan", "--sql-dir", "sql/now")
    assert "sql" not in plan["cohorts"][0]
    files = {file.name: file.read_text() for file in (project.workspace.path / "sql" / "now").iterdir()}
    assert sorted(files) == ["cohort-001.sql", "cohort-002.sql"]
    first, second = files["cohort-001.sql"], files["cohort-002.sql"]
    assert first.startswith(f"-- 2 of postgresql {plan['cohorts'][0]['version']}, base to {THIRD}; this one is acme\n")
    assert "CREATE TABLE notes" in first
    assert "CREATE TABLE notes" not in second
    assert "CREATE TABLE extras" in second


def test_a_file_for_each_tenant_can_be_run(project: Project) -> None:
    """Each is in its own tenant's scope, and does what upgrade would; names of files cannot leave the directory."""
    project.fleet("acme", '{id: "../eu/1", schema: eu_1}', schemas=False)
    project.execute("CREATE SCHEMA acme; CREATE SCHEMA eu_1")
    project.json("plan", "--sql-dir", "sql", "--per-tenant")
    files = {file.name: file.read_text() for file in (project.workspace.path / "sql").iterdir()}
    assert sorted(files) == ["%2E%2E%2Feu%2F1.sql", "acme.sql"]
    for script in files.values():
        project.execute(script)
    assert project.json("status")["summary"] == {"current": 2}
    assert project.heads("acme") == [THIRD]


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_is_not_to_be_had(project: Project, exists: bool) -> None:
    """Scripts of an earlier plan are not mixed with this one's, and a file is no directory."""
    project.fleet("acme")
    project.workspace.write("sql/old.sql" if exists else "sql", "SELECT 1")
    assert_error(project.run("plan", FIRST, "--sql-dir", "sql"), "sql", "--sql-dir")
    assert_error(project.run("plan", "--per-tenant"), "--sql-dir")
