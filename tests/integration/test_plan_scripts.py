"""plan --sql-dir: the SQL in files, for whoever reads or runs it by hand."""

from __future__ import annotations

import json

import pytest

from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error
from tests.servers import fetch


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


def test_values(project: Project) -> None:
    """Values of all kinds stand in the script as what upgrade binds: what both leave behind is the same."""
    columns = {
        "words": ("sa.Text", r"'it\'s 50% \\ :x'"), "plain": ("sa.Text", "'y'"), "n": ("sa.Integer", "-5"),
        "yes": ("sa.Boolean", "True"), "price": ("sa.Numeric", "Decimal('1.50')"), "ratio": ("sa.Float", "1e-300"),
        "odd": ("sa.Float", "float('nan')"), "raw": ("sa.LargeBinary", r"b'\xff\\101'"),
        "day": ("sa.Date", "date(2020, 2, 29)"),
        "at": ("sa.DateTime(timezone=True)", "datetime(2020, 1, 1, tzinfo=UTC)"),
        "lasts": ("sa.Interval", "timedelta(days=1, seconds=3)"), "id": ("sa.Uuid", "UUID(int=5)"),
        "doc": ("pg.JSONB", r"{'a': ['it\'s \\ %', None]}"), "none": ("pg.ARRAY(sa.Integer)", "[]"),
        "names": ("pg.ARRAY(sa.Text)", r"['a', 'b\'']"), "address": ("pg.INET", "'10.0.0.1'"),
    }  # fmt: skip
    made = ", ".join(f"sa.column({name!r}, {type_})" for name, (type_, _) in columns.items() if name != "plain")
    given = ", ".join(f"{name!r}: {value}" for name, (_, value) in columns.items())
    defined = ", ".join(f"sa.Column({name!r}, {type_})" for name, (type_, _) in columns.items())
    file = project.revision("d4d4d4d4d4d4", THIRD, "pass", "op.drop_table('kept')")
    text = file.read_text().replace("    pass\n", f"""\
    op.create_table('kept', {defined})
    kept = sa.table('kept', {made}, sa.column('plain'))
    op.execute(kept.insert().values({{{given}}}))
    op.execute(kept.insert().values(n=1, plain='a'))
    op.execute(kept.update().where(kept.c.n.in_([1, 2])).values(words=kept.c.plain + 'b', raw=None))
    op.execute(kept.delete().where(kept.c.n > 5))
""")  # fmt: skip
    imports = "from datetime import *\nfrom decimal import Decimal\nfrom uuid import UUID\n"
    imports += "from sqlalchemy.dialects import postgresql as pg\n"
    file.write_text(text.replace("import sqlalchemy as sa\n", f"import sqlalchemy as sa\n{imports}"))
    project.fleet("by_hand", "upgraded")
    project.json("plan", "--sql-dir", "sql", "--per-tenant")
    project.execute((project.workspace.path / "sql" / "by_hand.sql").read_text())
    project.json("upgrade", "-t", "upgraded")
    kept = fetch(project.url, "SELECT to_jsonb(a), to_jsonb(b) FROM by_hand.kept a FULL JOIN upgraded.kept b USING (n)")
    assert len(kept) == 2
    for ours, theirs in (map(json.loads, pair) for pair in kept):
        assert ours == theirs


def test_a_value_that_has_no_text(project: Project) -> None:
    """It is said in the place of the script, which would not be what upgrade does."""
    project.revision("d4d4d4d4d4d4", THIRD, r"op.execute(sa.table('a', sa.column('x')).update().values(x='a\0b'))")
    project.fleet("acme")
    (cohort,) = project.json("plan", "--sql")["cohorts"]
    assert cohort["sql"].startswith("-- cannot be rendered without a database: ")
