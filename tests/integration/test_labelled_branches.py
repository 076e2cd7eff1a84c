"""Two labelled branches in one directory: the shared schema on one, tenants on the other."""

from __future__ import annotations

import pytest

from tests.command_line import Project, assert_error, statuses, tenant_of

SHARED, SHARED_2, TENANT, TENANT_2 = "50a1", "50a2", "7e01", "7e02"
TABLE = "op.create_table('{0}', sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table('{0}')"
WAVES = "waves:\n  - {name: shared, select: {tenants: [shared]}}\n"


@pytest.fixture
def branched(project: Project) -> Project:
    """public with its tables first, then two tenants that refer to them."""
    for file in project.versions.glob("*.py"):
        file.unlink()
    project.revision(SHARED, None, TABLE.format("plans"), DROP.format("plans"), label="shared")
    project.revision(SHARED_2, SHARED, TABLE.format("countries"), DROP.format("countries"))
    key = "sa.Column('plan', sa.Integer, sa.ForeignKey('public.plans.id'))"
    refers = f"op.create_table('users', {key})"
    project.revision(TENANT, None, refers, DROP.format("users"), label="tenant")
    project.revision(TENANT_2, TENANT, TABLE.format("notes"), DROP.format("notes"))
    project.fleet(
        "{id: acme, target: tenant@head}", "{id: globex, target: tenant@head}",
        '{id: shared, schema: public, target: "shared@head"}', more=WAVES, schemas=False,
    )  # fmt: skip
    project.execute("CREATE SCHEMA acme; CREATE SCHEMA globex")
    return project


def test_each_on_its_own_branch(branched: Project) -> None:
    """One upgrade brings the shared schema to its head first, then the tenants to theirs; all are current then."""
    plan = branched.json("plan")
    assert [(wave["name"], wave["tenants"]) for wave in plan["waves"]] == [
        ("shared", ["shared"]), ("rest", ["acme", "globex"]),
    ]  # fmt: skip
    document = branched.json("upgrade")
    assert document["summary"] == {"succeeded": 3}
    assert document["target"] == [SHARED_2, TENANT_2]
    assert (branched.heads("public"), branched.heads("acme")) == ([SHARED_2], [TENANT_2])
    status = branched.json("status")
    assert status["summary"] == {"current": 3}
    assert branched.json("upgrade", "heads")["summary"] == {"already_current": 3}
    tables = {row[:2] for row in branched.catalog()}
    assert {("public", "plans"), ("public", "countries"), ("acme", "users"), ("globex", "notes")} <= tables
    assert not {("public", "users"), ("acme", "plans")} & tables


def test_downgrade_of_one_branch(branched: Project) -> None:
    """Tenants go back on their own branch, by revision or label; the shared schema stays where it is."""
    branched.json("upgrade")
    agreed = ("--yes", "--allow-data-loss")
    document = branched.json("downgrade", "tenant@-1", "-t", "acme", *agreed)
    assert tenant_of(document, "acme")["to"] == [TENANT]
    assert statuses(branched.json("downgrade", TENANT, "-t", "globex", *agreed)) == {"globex": "succeeded"}
    assert (branched.heads("public"), branched.heads("acme"), branched.heads("globex")) == (
        [SHARED_2], [TENANT], [TENANT],
    )  # fmt: skip
    assert branched.json("status")["summary"] == {"behind": 2, "current": 1}
    assert statuses(branched.json("downgrade", "tenant@base", "-t", "acme", *agreed)) == {"acme": "succeeded"}
    assert branched.heads("acme") == []
    assert branched.json("upgrade")["summary"] == {"succeeded": 2, "already_current": 1}


def test_failure_in_the_shared_schema(branched: Project) -> None:
    """Where the shared schema fails, no tenant starts on what is not there."""
    branched.execute("CREATE TABLE public.countries (id int)")
    document = branched.json("upgrade", exit_code=1)
    assert statuses(document) == {"shared": "failed", "acme": "not_started", "globex": "not_started"}
    assert branched.heads("acme") == []


def test_plain_alembic(branched: Project) -> None:
    """Plain Alembic goes by label, or with `heads` along each tenant's own branch; `head` is not one revision."""
    alembic = ("-m", "alembic")
    refused = branched.workspace.python(*alembic, "upgrade", "head")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "heads" in refused.stderr + refused.stdout
    for target, tenants in (("shared@head", "shared"), ("tenant@head", "acme")):
        result = branched.workspace.python(*alembic, "-x", f"tenant={tenants}", "upgrade", target)
        assert result.returncode == 0, result.stderr
    assert (branched.heads("public"), branched.heads("acme"), branched.heads("globex")) == ([SHARED_2], [TENANT_2], [])
    result = branched.workspace.python(*alembic, "upgrade", "heads")
    assert result.returncode == 0, result.stderr
    assert (branched.heads("public"), branched.heads("acme"), branched.heads("globex")) == (
        [SHARED_2],
        [TENANT_2],
        [TENANT_2],
    )
    current = branched.workspace.python(*alembic, "current")
    assert current.returncode == 0, current.stderr
    assert SHARED_2 in current.stdout
    assert TENANT_2 in current.stdout


def test_ambiguous_target(branched: Project) -> None:
    """`head` on the command line is refused with the word for all of them; a label that is none is named."""
    assert_error(branched.run("upgrade", "head"), "2 heads", "heads")
    assert_error(branched.run("upgrade", "tenat@head"), "tenat")
