"""``orchestrator revision``: what it writes, compared with a scratch tenant of each kind, and what it refuses."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.revising.asked import WrittenRevision
from orchestrator.errors import OrchestratorError
from tests.projects import ENV as PLAIN
from tests.projects import Project, files, held, make_project, schemas, until, waiting_backend, with_role
from tests.servers import execute, fetch
from tests.workspace import REPOSITORY, Workspace

TABLE = "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))"
#: An env.py as the documentation shows it, with models beside it.
ENV = """
import sqlalchemy as sa
from alembic import context
from orchestrator import for_each_tenant

metadata = sa.MetaData()
sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True))


def migrate(connection, tenant):
    context.configure(
        connection=connection, version_table_schema=tenant.schema, transaction_per_migration=True, OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""
COMPARING = ENV.replace("OPTIONS", "target_metadata=metadata")
#: The same with a table that no revision makes.
TAGS = COMPARING.replace("\n\n\ndef", '\nsa.Table("tags", metadata, sa.Column("id", sa.Integer))\n\n\ndef', 1)
CREATES_TAGS = "op.create_table('tags',"
#: Nobody listens there.
NOWHERE = "postgresql://nobody@127.0.0.1:1/app"
SCRATCH = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orchestrator%'"


def write(project: Project, message: str = "x", **options: Any) -> WrittenRevision:
    """``orchestrator revision``, by its Python API."""
    return asyncio.run(orchestrator.revision(project.fleet, message, **options))


def text(written: WrittenRevision) -> str:
    """The one file."""
    (file,) = written.files
    return file.read_text()


@pytest.fixture(params=["schema", "database", "file"])
def fleet(request: pytest.FixtureRequest, workspace: Workspace) -> dict[str, object]:
    """A tenants.yaml with one tenant, of each isolation."""
    if request.param == "file":
        url = f"sqlite:///{workspace.path / 'data'}"
        return {"servers": {"main": {"url": url}}, "tenants": [{"id": "acme", "isolation": "file"}]}
    url = request.getfixturevalue("database")
    tenant = {"id": "acme", "isolation": request.param}
    if request.param == "schema":
        # The same application in public, a step further: nobody is to be compared with that.
        execute(url, "CREATE TABLE projects (id int, colour varchar(20)); CREATE TABLE stray (id int)")
    return {"servers": {"main": {"url": url}}, "tenants": [tenant]}


def test_autogenerate(workspace: Workspace, fleet: dict[str, object]) -> None:
    """A column that only the models have becomes one operation each way, with no tenant there; then there is no more.

    The file is named after day, message and identifier, linted, and says nothing of where it was compared.
    """
    workspace.write("tenants.yaml", json.dumps({**fleet, "lint": {"rules": {"squawk": "off"}}}))
    models = workspace.path / "examples/saas/work.py"
    column = "    colour: Mapped[str | None] = mapped_column(String(20))\n    archived_at:"
    models.write_text(models.read_text().replace("    archived_at:", column, 1))

    document = workspace.json("revision", "-m", "Add colour!", "--autogenerate")

    written = Path(document["file"])
    assert re.fullmatch(r"\d{4}_\d\d_\d\d_add_colour_[0-9a-f]{12}\.py", written.name)
    assert operations(written) == [
        "op.add_column('projects', sa.Column('colour', sa.String(length=20), nullable=True))",
        "op.drop_column('projects', 'colour')",
    ]
    assert "scratch" not in written.read_text()
    assert (document["like"], document["files"]) == ("acme", [str(written)])
    assert (document["lint"]["taken"], document["lint"]["findings"]) == ("written", [])
    again = workspace.run("revision", "-m", "again", "--autogenerate")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to write" in again.stderr


def test_plain_revision_asks_no_database(tmp_path: Path) -> None:
    """Without --autogenerate neither env.py nor a server is needed."""
    project = with_template(tmp_path, {"a1": TABLE}, "raise SystemError")
    written = write(project, "add phone")
    assert operations(*written.files) == []
    assert "Revises: a1" in text(written)


@pytest.mark.parametrize(
    "message", [r"C:\new\x \N{bad}", 'say """hi"""', "it's " + "'" * 3 + "so" + "'" * 3 + " \\", 'end"', "two\nlines"]
)
def test_message_of_any_characters(message: str, tmp_path: Path) -> None:
    """What ends a docstring, or means another character in one, is read back from the file as it was given."""
    project = with_template(tmp_path, {"a1": TABLE})
    said = ast.get_docstring(ast.parse(text(write(project, message))), clean=False)
    assert said is not None
    assert said.startswith(f"{message}\n\n")


@pytest.mark.parametrize("identifier", ["", "a/b", "../a", "a b", "a-1", "a:b", "head", "ä", "a..b", ".a"])
def test_identifier_that_is_no_name(identifier: str, tmp_path: Path) -> None:
    """It would name a file elsewhere, which Alembic does not find, or be no target; empty is not a new one."""
    project = with_template(tmp_path, {"a1": TABLE})
    refused(project, lambda: write(project, rev_id=identifier), f"cannot be called {identifier!r}", "another --rev-id")


#: An env.py whose version tables take longer identifiers.
WIDE = """
from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import String


class Wide(PostgresqlImpl):
    __dialect__ = "postgresql"

    def version_table_impl(self, **kw):
        table = super().version_table_impl(**kw)
        table.c.version_num.type = String(64)
        return table
"""


def test_identifier_that_no_version_table_takes(tmp_path: Path, database: str) -> None:
    """32 characters, as Alembic declares the column; env.py's hooks give none that is longer either."""
    hook = f"process_revision_directives=lambda c, r, d: setattr(d[0], 'rev_id', {'h' * 33!r})"
    project = make_project(
        tmp_path, {"a1": TABLE}, schemas(database, "acme"), TAGS.replace("target_", f"{hook}, target_")
    )
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    said = "these are 33 characters, and the version table's column takes 32"
    for options in ({"rev_id": "b" * 33}, {"rev_id": "b" * 33, "autogenerate": True}, {"autogenerate": True}):
        refused(project, lambda options=options: write(project, **options), said, "shorter --rev-id")
    assert f"revision = '{'b' * 32}'" in text(write(project, rev_id="b" * 32))


def test_identifier_that_a_wider_version_table_takes(tmp_path: Path, database: str) -> None:
    """What env.py declares counts, and tenants get there; then the directory shows by itself that there is room."""
    make_project(tmp_path, {"a1": TABLE}, schemas(database, "acme"), WIDE + PLAIN)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    child = [sys.executable, "-m", "orchestrator", "revision", "-m", "x", "--rev-id"]
    for name, code, said in (("b" * 64, 0, ""), ("c" * 65, 2, "takes 64"), ("d" * 64, 0, "")):
        # In a process of its own: a dialect's implementation stays registered for good.
        done = subprocess.run([*child, name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    upgrade = [sys.executable, "-m", "orchestrator", "upgrade", "--provision", "--json"]
    moved = subprocess.run(upgrade, cwd=tmp_path, capture_output=True, check=False)
    assert json.loads(moved.stdout)["tenants"][0]["to"] == ["d" * 64]


def test_options_of_alembic(tmp_path: Path) -> None:
    """--rev-id, --branch-label, --depends-on, --version-path and a file_template of the project's own count."""
    project = with_template(tmp_path, {"a1": TABLE})
    (tmp_path / "more").mkdir()
    add_setting(project, "version_locations = %(here)s/alembic/versions:%(here)s/more\nfile_template = %%(rev)s__x")
    more = str(tmp_path / "more")
    written = write(
        project, head="base", rev_id="b1", branch_label="shared", depends_on=["a1"], version_path=more, splice=True
    )
    assert written.files == (tmp_path / "more" / "b1__x.py",)
    for line in ("revision = 'b1'", "down_revision = None", "branch_labels = ('shared',)", "depends_on = 'a1'"):
        assert line in text(written)
    refused(project, lambda: write(project, head="a1", rev_id="b1"), "there is a revision b1", "another --rev-id")
    refused(project, lambda: write(project, head="a1", version_path="/nowhere"), "not represented", more)
    refused(project, lambda: write(project, head="a1", depends_on=["z9"]), "z9", "alembic history")


def test_no_file_is_written_over(tmp_path: Path) -> None:
    """A file_template may give two revisions one name; Alembic would take the first away."""
    project = with_template(tmp_path, {"a1": TABLE})
    add_setting(project, "file_template = %%(slug)s")
    first = text(write(project, "add phone"))
    refused(project, lambda: write(project, "add phone"), "there is a file add_phone.py already", "%%(rev)s")
    assert (tmp_path / "alembic/versions/add_phone.py").read_text() == first


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DROP TABLE IF EXISTS public.plans", "drops public.plans"),
        ("DROP TABLE IF EXISTS public.plans ;; COMMIT ;; SELECT 1", "drops public.plans"),
        ("COMMIT ;; DROP INDEX CONCURRENTLY public.plans_ix", "reaches the schema public"),
        ("COMMIT ;; SET search_path = public ;; DROP INDEX CONCURRENTLY plans_ix", "reaches the schema public"),
        ("COMMIT ;; REINDEX SCHEMA public", "reaches the schema public"),
        ("COMMIT ;; DO $$BEGIN UPDATE public.plans SET id = 2; COMMIT; END$$", "reaches the schema public"),
        ("COMMIT ;; DO $$BEGIN SET search_path = public; UPDATE plans SET id = 2; COMMIT; END$$", "sets search_path"),
        ("DO $$BEGIN EXECUTE 'DROP FUNCTION ' || 'public.price()'; END$$", "drops public.price"),
        ("DO $$BEGIN EXECUTE 'DROP EXTENSION citext'; END$$", "drops citext"),
        ("CREATE OR REPLACE FUNCTION public.price() RETURNS int LANGUAGE sql AS ''SELECT 1''", "changes public.price"),
        ("DO $$BEGIN ALTER FUNCTION public.price() STRICT; END$$", "changes public.price"),
        ("CREATE TRIGGER late BEFORE INSERT ON public.plans EXECUTE FUNCTION public.late()", "changes public.late"),
        ("CREATE SCHEMA beside", "changes beside."),
        ("DO $$BEGIN CREATE PUBLICATION beside; END$$", "changes beside"),
        ("DO $$BEGIN CREATE ROLE beside_new; END$$", "writes to pg_authid"),
        ("CREATE EXTENSION postgres_fdw SCHEMA public", "makes the foreign data wrapper postgres_fdw"),
        ("COPY public.plans TO PROGRAM ''cat''", "server's files or programs"),
        ("ALTER TABLE public.parts ATTACH PARTITION notes FOR VALUES IN (1)", "touches public.parts"),
    ],
)
@pytest.mark.parametrize("way", ["revision", "drift"])
def test_what_is_shared_stays(tmp_path: Path, database: str, statement: str, told: str, way: str) -> None:
    """A scratch schema is beside real tenants: a revision that changes what they share is not committed there."""
    price = "CREATE FUNCTION public.price() RETURNS int LANGUAGE sql AS 'SELECT 42'"
    execute(database, f"CREATE TABLE public.plans (id int); INSERT INTO public.plans VALUES (1); {price}")
    execute(database, "CREATE INDEX plans_ix ON public.plans (id)")
    execute(database, "CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    execute(database, "CREATE TABLE public.parts (id int NOT NULL) PARTITION BY LIST (id); CREATE EXTENSION citext")
    body = "\n".join(f"op.execute({each!r})" for each in statement.replace("''", "'").split(" ;; "))
    env = ENV.replace("OPTIONS", "target_metadata=metadata")
    project = make_project(tmp_path, {"a1": TABLE, "a2": body}, schemas(database, "acme"), env)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    if way == "revision":
        refused(project, lambda: write(project, autogenerate=True), told, "-x tenant=acme")
    else:
        execute(database, "CREATE SCHEMA acme; CREATE TABLE acme.alembic_version (version_num text)")
        execute(database, "INSERT INTO acme.alembic_version VALUES ('a2')")
        (odd,) = asyncio.run(orchestrator.drift(project.fleet)).as_json()["not_compared"]
        assert told in odd["error"]["message"]
    assert fetch(database, "SELECT id FROM public.plans") == [(1,)]
    assert fetch(database, "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'plans'::regclass") == [
        ("plans_ix",)
    ]
    assert fetch(database, "SELECT public.price()") == [(42,)]
    assert fetch(database, "SELECT proisstrict FROM pg_proc WHERE proname = 'price'") == [(False,)]
    assert fetch(database, "SELECT FROM pg_namespace WHERE nspname = 'beside'") == []
    assert fetch(database, "SELECT FROM pg_publication UNION ALL SELECT FROM pg_foreign_data_wrapper") == []
    assert fetch(database, "SELECT FROM pg_roles WHERE rolname = 'beside_new'") == []
    assert fetch(database, "SELECT FROM pg_trigger WHERE NOT tgisinternal") == []
    assert fetch(database, SCRATCH) == []


@pytest.mark.parametrize("isolation", ["database", "schema"])
def test_fills_in_batches(tmp_path: Path, database: str, isolation: str) -> None:
    """In a database of nobody's, batches of SQL that a body puts together are filled; beside real tenants it says how.

    A comment on its own database goes with it, too.
    """
    batches = "DO $$BEGIN LOOP EXECUTE 'UPDATE notes SET id = id'; COMMIT; EXIT; END LOOP; END$$"
    noted = "DO $$BEGIN EXECUTE format('COMMENT ON DATABASE %I IS $c$x$c$', current_database()); END$$"
    body = f"with op.get_context().autocommit_block():\n    op.execute({batches!r})"
    if isolation == "database":
        body = f"op.execute({noted!r})\n{body}"
    fleet = json.loads(schemas(database, "acme")) | {"defaults": {"isolation": isolation}}
    project = make_project(tmp_path, {"a1": TABLE, "a2": body}, json.dumps(fleet), TAGS)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    if isolation == "database":
        assert CREATES_TAGS in text(write(project, autogenerate=True))
    else:
        refused(project, lambda: write(project, autogenerate=True), "runs only outside", "loop in Python")


@pytest.mark.parametrize("statement", ["VACUUM FULL", "CLUSTER"])
def test_all_tables_of_the_database(tmp_path: Path, database: str, statement: str) -> None:
    """Without a table's name they would be real tenants', too, beside a scratch schema: not one is written anew."""
    revisions = {"a1": TABLE, "a2": f"with op.get_context().autocommit_block():\n    op.execute({statement!r})"}
    project = make_project(tmp_path, revisions, schemas(database, "acme"), TAGS)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    execute(database, "CREATE TABLE of_others (id int PRIMARY KEY); CLUSTER of_others USING of_others_pkey")
    stored = "SELECT relfilenode FROM pg_class WHERE relname = 'of_others'"
    before = fetch(database, stored)
    refused(project, lambda: write(project, autogenerate=True), f"runs {statement} (it runs only outside", "")
    assert fetch(database, stored) == before


def test_hooks_without_a_database(tmp_path: Path) -> None:
    """With revision_environment env.py's hooks count for a plain revision, too; the server may be away."""
    hook = "process_revision_directives=lambda c, r, d: setattr(d[0], 'rev_id', 'named')"
    project = make_project(tmp_path, {"a1": TABLE}, schemas(NOWHERE, "acme"), ENV.replace("OPTIONS", hook))
    shutil.copy(REPOSITORY / "alembic/script.py.mako", tmp_path / "alembic")
    add_setting(project, "revision_environment = true")
    assert "revision = 'named'" in text(write(project))


@pytest.mark.parametrize("message", ["", " \t"])
def test_no_message(tmp_path: Path, message: str) -> None:
    """A revision that says nothing of itself is not written, and nobody is asked anything for it."""
    project = with_template(tmp_path, {"a1": TABLE}, "raise SystemError")
    refused(project, lambda: write(project, message, autogenerate=True), "needs a message", "-m ")


def test_template_that_makes_no_python(tmp_path: Path) -> None:
    """One that breaks the file leaves none: it would break the whole directory."""
    project = with_template(tmp_path, {"a1": TABLE})
    template = tmp_path / "alembic/script.py.mako"
    template.write_text(template.read_text() + "\ndef ${message}\n")
    refused(project, lambda: write(project), "SyntaxError", "script.py.mako")


def test_several_heads(tmp_path: Path) -> None:
    """After which head is not guessed; named, it works."""
    project = with_template(
        tmp_path, {"a1": TABLE, "b1": "pass", "c1": "down_revision = 'a1'\ndef upgrade():\n    pass"}
    )
    refused(project, lambda: write(project), "2 heads (b1, c1)", "--head b1; or join")
    assert "Revises: c1" in text(write(project, head="c1"))


def test_refused_head(tmp_path: Path) -> None:
    """No such revision, and one that is no head: the hints differ; --splice lets the second through."""
    project = with_template(tmp_path, {"a1": TABLE, "b1": "pass"})
    refused(project, lambda: write(project, head="z9"), "no revision 'z9'", "alembic history")
    refused(project, lambda: write(project, head="a1"), "not a head", "--splice")
    assert "Revises: a1" in text(write(project, head="a1", splice=True))


@pytest.mark.parametrize(
    ("env", "told", "hint"),
    [
        ("import no_such_models\n" + COMPARING, "env.py:1: env.py cannot be run", "mend it"),
        (ENV.replace("OPTIONS", ""), "MetaData", "set target_metadata in "),
        (
            ENV.replace("OPTIONS", "target_metadata=metadata, include_object=lambda: True"),
            "cannot be compared: TypeError",
            "context.configure()",
        ),
    ],
)
def test_env_in_the_way(tmp_path: Path, env: str, told: str, hint: str) -> None:
    """What is wrong in env.py is said as such, without a traceback and without a file."""
    project = with_template(tmp_path, {"a1": TABLE}, env)
    refused(project, lambda: write(project, autogenerate=True), told, hint)


@pytest.mark.parametrize("hook", ["d.clear()", "None"])
def test_nothing_to_write(tmp_path: Path, hook: str) -> None:
    """Where models and revisions agree, or a hook of env.py's takes all back, there is no file, and no error."""
    env = ENV.replace("OPTIONS", f"target_metadata=metadata, process_revision_directives=lambda c, r, d: {hook}")
    project = with_template(tmp_path, {"a1": TABLE}, env)
    written = write(project, autogenerate=True)
    assert (written.files, written.like, written.passed) == ((), "acme", True)
    assert len(list((tmp_path / "alembic/versions").glob("*.py"))) == 1


def test_what_env_says_counts(tmp_path: Path) -> None:
    """include_object, compare_type, naming conventions and process_revision_directives of env.py are asked."""
    named = 'sa.MetaData(naming_convention={"ix": "by_%(column_0_name)s"})'
    options = (
        "target_metadata=metadata, render_as_batch=True, compare_type=lambda *_: True,"
        " include_object=lambda o, name, *_: name != 'hidden',"
        " process_revision_directives=lambda c, r, d: setattr(d[0], 'message', 'said by a hook')"
    )
    env = ENV.replace("sa.MetaData()", named).replace("OPTIONS", options)
    tables = 'sa.Table("tags", metadata, sa.Column("name", sa.Text, index=True)); sa.Table("hidden", metadata)'
    project = with_template(tmp_path, {"a1": TABLE}, env.replace("\n\n\ndef", f"\n{tables}\n\n\ndef", 1))
    found = text(write(project, autogenerate=True))
    assert "said by a hook" in found
    assert CREATES_TAGS in found
    assert "'by_name'" in found
    assert "batch_op.alter_column('id'" in found
    assert "hidden" not in found


def test_first_revision(tmp_path: Path, database: str) -> None:
    """A directory without revisions and a fleet of tenants that are still to be made, or of nobody at all, have one."""
    empty = [{"python": "examples_of_nobody:none"}]
    for number, keys in enumerate(({}, {"sources": empty})):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "examples_of_nobody.py").write_text("def none():\n    return []\n")
        project = make_project(path, {}, schemas(database, *(["acme"] if not keys else []), **keys), TAGS)
        shutil.copy(REPOSITORY / "alembic/script.py.mako", path / "alembic")
        found = text(write(project, autogenerate=True))
        assert CREATES_TAGS in found
        assert "down_revision = None" in found
        assert "alembic_version" not in found


def test_no_tenant_is_read(tmp_path: Path, database: str) -> None:
    """A tenant that is locked whole, by whoever, holds nothing up; what is in it does not count."""
    project = of_schemas(tmp_path, database, {"a1": TABLE}, TAGS, "acme")
    asyncio.run(project.upgrade())
    execute(database, "CREATE TABLE acme.tags (id int); CREATE TABLE acme.odd (id int)")

    async def locked() -> WrittenRevision:
        connection = await asyncpg.connect(database)
        try:
            async with connection.transaction():
                for table in ("notes", "alembic_version", "tags", "odd"):
                    await connection.execute(f"LOCK TABLE acme.{table} IN ACCESS EXCLUSIVE MODE")
                return await orchestrator.revision(project.fleet, "x", autogenerate=True)
        finally:
            await connection.close()

    found = text(asyncio.run(locked()))
    assert CREATES_TAGS in found
    assert "odd" not in found
    assert fetch(database, SCRATCH) == []


def test_every_schema_is_asked_for(tmp_path: Path, database: str) -> None:
    """With include_schemas, other tenants' tables are neither read nor dropped; env.py still chooses among the rest."""
    env = TAGS.replace(
        "target_metadata=metadata",
        "target_metadata=metadata, include_schemas=True,"
        " include_name=lambda name, kind, _: kind != 'schema' or name != 'public'",
    )
    execute(database, "CREATE TABLE public.old (id int); CREATE SCHEMA shop; CREATE TABLE shop.goods (id int)")
    project = of_schemas(tmp_path, database, {"a1": TABLE}, env, "acme", "globex")
    asyncio.run(project.upgrade())
    found = text(write(project, autogenerate=True))
    assert CREATES_TAGS in found
    assert "op.drop_table('goods', schema='shop')" in found
    assert not [word for word in ("acme", "globex", "public", "orchestrator", "notes") if word in found]


def test_branches(tmp_path: Path, database: str) -> None:
    """Where tenants follow branches, the reference is one of the branch that the revision comes after."""
    branch = "down_revision = None\nbranch_labels = ('{}',)\ndef upgrade():\n    {}\ndef downgrade():\n    pass"
    plans = "op.create_table('plans', sa.Column('id', sa.Integer, primary_key=True))"
    revisions = {"a1": branch.format("shared", plans), "b1": branch.format("tenant", TABLE)}
    project = of_schemas(tmp_path, database, revisions, TAGS)
    tenants = [{"id": "shared", "schema": "public", "target": "shared@head"}, {"id": "acme", "target": "tenant@head"}]
    (tmp_path / "tenants.yaml").write_text(json.dumps({"servers": {"main": {"url": database}}, "tenants": tenants}))
    written = write(project, autogenerate=True, head="tenant@head")
    assert written.like == "acme"
    assert "Revises: b1" in text(written)
    assert [line.partition("(")[0] for line in operations(*written.files)] == ["op.create_table", "op.drop_table"]
    assert CREATES_TAGS in text(written)


def test_mixed_fleet(tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of several dialects PostgreSQL is compared, and the others are told of; --like chooses another."""
    project = of_schemas(tmp_path, database, {"a1": TABLE}, TAGS)
    servers = {"lite": {"url": f"sqlite:///{tmp_path / 'data'}"}, "main": {"url": database}}
    tenants = [{"id": "fi", "server": "lite", "isolation": "file"}, {"id": "acme", "server": "main"}]
    (tmp_path / "tenants.yaml").write_text(json.dumps({"servers": servers, "tenants": tenants}))
    assert write(project, autogenerate=True).like == "acme"
    assert "compared on postgresql; tenants on sqlite" in caplog.text
    assert "--like fi" in caplog.text
    assert write(project, autogenerate=True, like="f*", rev_id="z9", head="a1", splice=True).like == "fi"
    refused(project, lambda: write(project, autogenerate=True, like="fii", head="a1"), "no tenant", "'fi'")
    refused(project, lambda: write(project, like="fi", head="a1"), "nothing is compared", "add --autogenerate")


def test_nothing_can_be_made(tmp_path: Path, database: str, second_role: str) -> None:
    """A server that is away, and a role without the right, are told with what to do; elsewhere is told where it is."""
    project = of_schemas(tmp_path, NOWHERE, {"a1": TABLE}, TAGS, "acme")
    refused(project, lambda: write(project, autogenerate=True), "no connection to ", "is the server up")
    (tmp_path / "tenants.yaml").write_text(schemas(second_role, "acme"))
    refused(project, lambda: write(project, autogenerate=True), "permission denied", "needs CREATE on the database")
    servers = {"main": {"url": second_role}, "eu": {"url": database}}
    tenants = [{"id": "acme", "server": "main"}, {"id": "bergen", "server": "eu"}]
    (tmp_path / "tenants.yaml").write_text(json.dumps({"servers": servers, "tenants": tenants}))
    refused(project, lambda: write(project, autogenerate=True), "permission denied", "--like TENANT")
    assert CREATES_TAGS in text(write(project, autogenerate=True, like="bergen"))


def test_revision_that_fails(tmp_path: Path, database: str) -> None:
    """A directory that does not lead from nothing to its heads is told with the revision; no scratch schema is left."""
    project = of_schemas(tmp_path, database, {"a1": TABLE, "b1": "op.execute('no')"}, TAGS, "acme")
    refused(project, lambda: write(project, autogenerate=True), "in revision b1: syntax error", "")
    assert fetch(database, SCRATCH) == []


def test_revision_that_goes_abroad(tmp_path: Path, database: str) -> None:
    """What a revision would change in public is not committed for a scratch schema; a key that leads there may be."""
    execute(database, "CREATE TABLE plans (id int PRIMARY KEY)")
    key = "op.execute('CREATE TABLE keyed (plan int REFERENCES public.plans)')"
    writes = "op.execute('INSERT INTO public.plans VALUES (1)')"
    env = TAGS.replace("metadata,\n", "metadata, include_object=lambda o, name, *_: name != 'keyed',\n")
    project = of_schemas(tmp_path, database, {"a1": TABLE, "b1": key}, env, "acme")
    assert CREATES_TAGS in text(write(project, autogenerate=True))
    asyncio.run(project.upgrade("b1"))
    with_writes = of_schemas(tmp_path / "writes", database, {"a1": TABLE, "b1": writes}, env, "acme")
    hint = "alembic -x tenant=acme revision --autogenerate"
    refused(with_writes, lambda: write(with_writes, autogenerate=True), "touches public.plans", hint)
    assert fetch(database, "SELECT * FROM plans") == []
    assert fetch(database, SCRATCH) == []


def test_name_of_the_scratch_schema(tmp_path: Path, database: str) -> None:
    """A default that says its tenant's name would bring the scratch schema's into the file: refused, no file."""
    create = "EXECUTE format('CREATE TABLE named (a text DEFAULT %L)', current_schema())"
    naming = f'op.execute("DO $$ BEGIN {create}; END $$")'
    project = of_schemas(tmp_path, database, {"a1": TABLE, "b1": naming}, TAGS, "acme")
    refused(project, lambda: write(project, autogenerate=True), "would name the scratch tenant", "include_object")


@pytest.mark.parametrize(("number", "left"), [(signal.SIGKILL, 1), (signal.SIGINT, 0)])
async def test_killed(tmp_path: Path, database: str, number: signal.Signals, left: int) -> None:
    """An interrupted one drops its scratch schema; what a killed one leaves is dropped by the next."""
    waits = "op.execute('SELECT pg_advisory_xact_lock(77)')"
    project = of_schemas(tmp_path, database, {"a1": TABLE, "b1": waits}, TAGS, "acme")
    command = [sys.executable, "-m", "orchestrator", "revision", "-m", "x", "--autogenerate"]
    async with held(database, 77) as connection:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=Workspace.environment(), stderr=subprocess.DEVNULL
        )
        await waiting_backend(connection)
        process.send_signal(number)
        await process.wait()
    watching = await asyncpg.connect(database)
    try:
        others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        await until(lambda: watching.fetch(others), lambda rows: not rows)
        assert len(await watching.fetch(SCRATCH)) == left
    finally:
        await watching.close()
    assert len((await orchestrator.revision(project.fleet, "x", autogenerate=True)).files) == 1
    assert await asyncio.to_thread(fetch, database, SCRATCH) == []


def test_lint_of_what_was_written(workspace: Workspace) -> None:
    """What loses data is told on stderr, exit code 3, and the file stays; rules that there are not are told before."""
    url = f"sqlite:///{workspace.path / 'data'}"
    fleet = {"servers": {"main": {"url": url}}, "tenants": [{"id": "acme", "isolation": "file"}]}
    workspace.write("tenants.yaml", json.dumps({**fleet, "lint": {"rules": {"upgrade_looses_data": "off"}}}))
    models = workspace.path / "examples/saas/work.py"
    models.write_text(re.sub(r"\n    archived_at:.*", "", models.read_text(), count=1))
    command = ("revision", "-m", "drop it", "--autogenerate")
    refusal = workspace.run(*command)
    assert (refusal.returncode, refusal.stdout) == (2, "")
    assert "did you mean `upgrade_loses_data`" in refusal.stderr
    workspace.write("tenants.yaml", json.dumps(fleet))
    told = workspace.run(*command)
    file = Path(told.stdout.strip())
    assert (told.returncode, file.is_file()) == (3, True)
    assert f"alembic/versions/{file.name}:" in told.stderr
    assert "error: upgrade_loses_data: " in told.stderr
    assert "squawk: not run" in told.stderr
    assert "1 error, 0 warnings" in told.stderr


def test_plain_alembic(workspace: Workspace) -> None:
    """Plain Alembic compares with a real tenant, as ever; with one that lacks revisions it says what to type."""
    url = f"sqlite:///{workspace.path / 'data'}"
    fleet = {"servers": {"main": {"url": url}}, "tenants": [{"id": "acme", "isolation": "file"}]}
    workspace.write("tenants.yaml", json.dumps(fleet))
    models = workspace.path / "examples/saas/work.py"
    models.write_text(re.sub(r"\n    archived_at:.*", "", models.read_text(), count=1))
    command = ("-m", "alembic", "revision", "-m", "drop it", "--autogenerate")
    workspace.json("upgrade", "+1", "--provision")
    behind = workspace.python(*command)
    assert behind.returncode != 0
    assert "tenant acme: Target database is not up to date" in behind.stdout + behind.stderr
    assert "hint: orchestrator revision -m ... --autogenerate" in behind.stdout + behind.stderr
    workspace.json("upgrade")
    assert workspace.python(*command).returncode == 0
    (written,) = (workspace.path / "alembic/versions").glob("*drop_it*.py")
    assert "op.drop_column('projects', 'archived_at')" in written.read_text()


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    """What the operating system refuses is told with the directory to look at."""
    project = with_template(tmp_path, {"a1": TABLE})
    add_setting(project, f"file_template = {'x' * 300}")
    refused(project, lambda: write(project), "cannot be written", "ls -ld ")
    (tmp_path / "alembic/script.py.mako").unlink()
    refused(project, lambda: write(project), "cannot be written", "take the script.py.mako")


def test_named_fleet(tmp_path: Path) -> None:
    """The fleet that was loaded counts, whatever its file is called; the environment stays."""
    with_template(tmp_path, {"a1": TABLE}, COMPARING)
    (tmp_path / "tenants.yaml").rename(tmp_path / "eu.yaml")
    fleet = orchestrator.load(tmp_path / "eu.yaml")
    assert asyncio.run(orchestrator.revision(fleet, "x", autogenerate=True)).files == ()
    assert "ORCHESTRATOR_CONFIG" not in os.environ


@pytest.fixture
def second_role(database: str) -> Iterator[str]:
    """The address of a role that may make nothing in the database."""
    name = f"poor_{os.getpid()}"
    execute(database, f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD 'poor'")
    yield with_role(database, name, "poor")
    execute(database, f"DROP ROLE {name}")


def of_schemas(path: Path, url: str, revisions: dict[str, str], env: str, *ids: str) -> Project:
    """A project with tenants in schemas, and a template for new revisions."""
    path.mkdir(exist_ok=True)
    project = make_project(path, revisions, schemas(url, *ids), env)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", path / "alembic")
    return project


def with_template(path: Path, revisions: dict[str, str], env: str = PLAIN) -> Project:
    """A project with one tenant in a file, and a template for new revisions."""
    project = make_project(path, revisions, files(path / "data", "acme"), env)
    shutil.copy(REPOSITORY / "alembic/script.py.mako", path / "alembic")
    return project


def add_setting(project: Project, line: str) -> None:
    """Add to the project's alembic.ini."""
    ini = project.path / "alembic.ini"
    ini.write_text(ini.read_text() + line + "\n")


def operations(revision: Path) -> list[str]:
    """The operations in a revision's file, upgrade's first."""
    lines = (line.strip() for line in revision.read_text().splitlines())
    return [line for line in lines if line.startswith("op.")]


def refused(project: Project, write: Callable[[], object], told: str, hint: str) -> None:
    """It ends in an error that says so, and no file is there that was not before."""
    before = sorted((project.path / "alembic" / "versions").glob("*.py"))
    with pytest.raises(OrchestratorError) as error:
        write()
    assert told in error.value.message
    assert hint in (error.value.hint or "")
    assert sorted((project.path / "alembic" / "versions").glob("*.py")) == before
