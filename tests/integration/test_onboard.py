"""orchestrator onboard: from nothing to the first row, in the fleet at the end, and nobody touched on the way."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.onboarding.desk import Desk
from orchestrator.actions.onboarding.undo import undo
from orchestrator.fleet.tenant import Limits
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.watching import Silent
from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of
from tests.projects import held, until, waiting_backend
from tests.servers import execute, fetch

ONBOARDING = """
onboarding:
  statements: GRANT USAGE ON SCHEMA {schema} TO pg_monitor
  seeds:
    demo: seeds/demo.sql
    trial: {python: "trial:begin"}
    waiting: {python: "trial:later"}
    broken: broken.sql
    committing: commits.sql
"""
TRIAL = """
from sqlalchemy import text

def begin(connection, tenant):
    connection.execute(text("INSERT INTO notes (body) VALUES (:id)"), {"id": tenant.id})

async def later(connection, tenant):
    await connection.execute(text("INSERT INTO notes (body) VALUES ('later')"))
"""


@pytest.fixture
def signup(project: Project) -> Project:
    """A fleet without tenants."""
    project.fleet(more=ONBOARDING)
    insert = "INSERT INTO notes (body) VALUES"
    project.workspace.write("seeds/demo.sql", f"{insert} ('one');\n{insert} ('two')")
    project.workspace.write("trial.py", TRIAL)
    project.workspace.write("broken.sql", "INSERT INTO notes (body) VALUES ('half'); INSERT INTO nowhere VALUES (1)")
    project.workspace.write("commits.sql", "INSERT INTO notes (body) VALUES ('kept'); COMMIT")
    return project


def notes(project: Project, schema: str) -> list[str]:
    """The rows that a tenant has."""
    return [row[0] for row in fetch(project.url, f'SELECT body FROM "{schema}".notes ORDER BY id')]


def listed(project: Project) -> list[str]:
    """Ids in tenants.yaml, in its order."""
    fleet = orchestrator.load(project.workspace.path / "tenants.yaml", may_be_empty=True)
    return [tenant.id for tenant in fleet.tenants]


def test_first_tenant(signup: Project) -> None:
    """The first one of an empty fleet is made, migrated, given its rows and written down; again, nothing is done."""
    document = signup.json("onboard", "acme", "--seed", "demo", "--tags", "eu,vip")

    assert (document["command"], document["status"]) == ("onboard", "succeeded")
    assert tenant_of(document, "acme")["from"] == []
    assert tenant_of(document, "acme")["to"] == [THIRD]
    assert (signup.heads("acme"), notes(signup, "acme")) == ([THIRD], ["one", "two"])
    (shown,) = signup.json("status")["tenants"]
    assert (shown["tenant"], shown["state"], shown["tags"]) == ("acme", "current", ["eu", "vip"])
    assert fetch(signup.url, "SELECT has_schema_privilege('pg_monitor', 'acme', 'USAGE')") == [(True,)]

    again = signup.json("onboard", "acme", "--seed", "demo")
    assert statuses(again) == {"acme": "already_current"}
    assert notes(signup, "acme") == ["one", "two"]
    assert listed(signup) == ["acme"]


@pytest.mark.parametrize(("seed", "rows"), [("trial", ["acme"]), ("waiting", ["later"]), ("", [])])
def test_seeds_by_functions(signup: Project, seed: str, rows: list[str]) -> None:
    """A seed may be a function, sync or async; an empty name means no rows."""
    signup.json("onboard", "acme", "--seed", seed)

    assert notes(signup, "acme") == rows


def test_broken_seed(signup: Project) -> None:
    """A seed that raises leaves no row and no entry; once it is mended, resume goes on, and --undo takes all away."""
    document = signup.json("onboard", "acme", "--seed", "broken", exit_code=1)

    error = tenant_of(document, "acme")["error"]
    assert (error["type"], error["sqlstate"]) == ("seed", "42P01")
    assert "mend the seed" in error["hint"]
    assert (notes(signup, "acme"), listed(signup), signup.heads("acme")) == ([], [], [THIRD])
    signup.workspace.write("broken.sql", "INSERT INTO notes (body) VALUES ('mended')")
    assert statuses(signup.json("resume")) == {"acme": "succeeded"}
    assert (notes(signup, "acme"), listed(signup)) == (["mended"], ["acme"])

    assert "the fleet lists it" in signup.json("onboard", "acme", "--undo", exit_code=1)["causes"][0]["message"]
    signup.workspace.write("broken.sql", "no")
    signup.json("onboard", "globex", "--seed", "broken", exit_code=1)
    assert statuses(signup.json("onboard", "globex", "--undo")) == {"globex": "succeeded"}
    assert fetch(signup.url, "SELECT 1 FROM pg_namespace WHERE nspname = 'globex'") == []


@pytest.mark.parametrize("more", ["", "; BEGIN"])
def test_seed_that_commits(signup: Project, more: str) -> None:
    """A seed that ends its transaction is told, and the tenant is not handed over."""
    signup.workspace.write("commits.sql", f"INSERT INTO notes (body) VALUES ('kept'); COMMIT{more}")
    error = tenant_of(signup.json("onboard", "acme", "--seed", "committing", exit_code=1), "acme")["error"]

    assert "ended the transaction" in error["message"]
    assert listed(signup) == []


@pytest.mark.parametrize(
    "said", ['"fresh": true, "ready": true', '"fresh": true, "seeded": "demo"', '"fresh": true, "found": true']
)
def test_never_emptied_once_it_may_be_used(signup: Project, said: str) -> None:
    """Cut off after it was ready, and before its mark said that it is handed over, a tenant keeps its rows for good."""
    path = signup.workspace.path / "tenants.yaml"
    before = path.read_text()
    signup.json("onboard", "acme", "--seed", "demo")
    path.write_text(before)
    (comment,) = fetch(signup.url, "SELECT obj_description('acme'::regnamespace, 'pg_namespace')")[0]
    marked = comment.replace('"tenant"', f'{said}, "tenant"')
    signup.execute(f"COMMENT ON SCHEMA acme IS '{marked}'")
    signup.revision("d4d4d4d4d4d4", THIRD, "op.add_column('notes', sa.Column('more', sa.Text))")

    signup.json("onboard", "acme", "--seed", "")

    assert (signup.heads("acme"), notes(signup, "acme")) == (["d4d4d4d4d4d4"], ["one", "two"])
    assert listed(signup) == ["acme"]


def test_listed_is_never_emptied(signup: Project) -> None:
    """Whom the fleet has, by a glob for example, keeps what is there, whatever its mark says."""
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("tenants:\n", "sources: [{schemas: 't_*'}]\n"))
    signup.json("onboard", "t_acme", "--seed", "demo")
    (comment,) = fetch(signup.url, "SELECT obj_description('t_acme'::regnamespace, 'pg_namespace')")[0]
    marked = comment.replace('"tenant"', '"fresh": true, "tenant"').replace(', "seeded": "demo"', "")
    signup.execute(f"COMMENT ON SCHEMA t_acme IS '{marked}'")
    signup.revision("d4d4d4d4d4d4", THIRD, "op.add_column('notes', sa.Column('more', sa.Text))")

    signup.json("onboard", "t_acme", "--seed", "")

    assert (signup.heads("t_acme"), notes(signup, "t_acme")) == (["d4d4d4d4d4d4"], ["one", "two"])


def test_undo_leaves_alone_whom_the_fleet_has(signup: Project) -> None:
    """A glob lists a tenant as soon as it has a schema: somebody may be using it, whatever became of its seed."""
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("tenants:\n", "sources: [{schemas: 't_*'}]\n"))
    signup.json("onboard", "t_acme", "--seed", "broken", exit_code=1)
    signup.execute("INSERT INTO t_acme.notes (body) VALUES ('theirs')")

    (cause,) = signup.json("onboard", "t_acme", "--undo", exit_code=1)["causes"]
    assert "the fleet lists it" in cause["message"]
    assert notes(signup, "t_acme") == ["theirs"]

    # The same again would say the same.
    assert cause["retry"] == "orchestrator offboard t_acme"
    assert signup.run("runs", "show", "last").stdout.endswith("go on with: orchestrator offboard t_acme\n")
    assert signup.run(*cause["retry"].split()[1:], "--yes", "--allow-data-loss").returncode == 0


async def test_undo_while_it_is_handed_over(signup: Project) -> None:
    """--undo that waits for an onboarding comes before or after it: the fleet has the tenant whole, or not at all."""
    signup.revision("d4d4d4d4d4d4", THIRD, "op.execute('SELECT pg_advisory_xact_lock_shared(42)')")
    fleet = orchestrator.load(signup.workspace.path / "tenants.yaml", may_be_empty=True)
    patient = Execution(lock_wait=60.0, limits=Limits(lock_timeout=60.0))
    async with held(signup.url, 42) as holder:
        onboarding = asyncio.create_task(orchestrator.onboard(fleet, "acme", seed="demo", execution=patient))
        await waiting_backend(holder)
        undoing = asyncio.create_task(undo(fleet, "acme", execution=patient))
        asking = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%'"
        await until(lambda: holder.fetchval(f"{asking} AND pid <> pg_backend_pid()"), bool)
    made, undone = (await onboarding).satisfied, (await undoing).satisfied
    assert made or undone
    there = fetch(signup.url, "SELECT 1 FROM pg_namespace WHERE nspname = 'acme'") == [(1,)]
    assert (there, listed(signup)) == ((True, ["acme"]) if made else (False, []))
    assert not made or notes(signup, "acme") == ["one", "two"]


def test_name_of_one_who_has_gone(signup: Project) -> None:
    """Who is onboarded under the name of a former tenant, whose schema is still there, does not get that."""
    path = signup.workspace.path / "tenants.yaml"
    before = path.read_text()
    signup.json("onboard", "acme", "--seed", "demo")
    path.write_text(before)

    error = tenant_of(signup.json("onboard", "acme", exit_code=1), "acme")["error"]
    assert (error["type"], "--adopt" in error["hint"]) == ("taken", True)
    assert statuses(signup.json("onboard", "acme", "--adopt")) == {"acme": "already_current"}
    assert (notes(signup, "acme"), listed(signup)) == (["one", "two"], ["acme"])


async def test_undo_does_not_wait_for_readers(signup: Project) -> None:
    """Whoever reads a half-made tenant's tables is waited for no longer than is said."""
    await asyncio.to_thread(signup.json, "onboard", "acme", "--seed", "broken", exit_code=1)
    fleet = orchestrator.load(signup.workspace.path / "tenants.yaml", may_be_empty=True)
    reader = await asyncpg.connect(signup.url)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM acme.notes")
        refused = await undo(fleet, "acme", execution=Execution(lock_wait=0.1))
        assert not refused.satisfied
    await reader.close()
    assert (await undo(fleet, "acme")).satisfied


def test_what_is_not_ours(signup: Project) -> None:
    """A schema with tables in it, and one of another fleet, are left alone; an empty one is taken."""
    signup.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.t (); CREATE SCHEMA empty")
    error = tenant_of(signup.json("onboard", "theirs", exit_code=1), "theirs")["error"]
    assert (error["type"], "--adopt" in error["hint"]) == ("taken", True)

    signup.json("onboard", "empty", "--seed", "")
    assert signup.heads("empty") == [THIRD]

    path = signup.workspace.path / "tenants.yaml"
    path.write_text("name: another\n" + path.read_text().replace("  - empty\n", ""))
    error = tenant_of(signup.json("onboard", "empty", exit_code=1), "empty")["error"]
    assert "belongs to tenant empty of fleet" in error["message"]
    assert listed(signup) == []


def test_adopt(signup: Project) -> None:
    """What is there already is taken in where its shape is right: stamped, written down, and not migrated."""
    signup.json("onboard", "model", "--seed", "")
    for name in ("right", "wrong"):
        columns = "id serial, body text, CONSTRAINT pk_notes PRIMARY KEY (id)"
        signup.execute(f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".notes ({columns})')
    signup.execute('CREATE TABLE "right".extras (id serial, CONSTRAINT pk_extras PRIMARY KEY (id))')
    signup.execute("INSERT INTO \"right\".notes (body) VALUES ('kept')")

    found = signup.json("onboard", "right", "--adopt")
    assert statuses(found) == {"right": "succeeded"}
    assert (signup.heads("right"), notes(signup, "right")) == ([THIRD], ["kept"])
    error = tenant_of(signup.json("onboard", "wrong", "--adopt", exit_code=1), "wrong")["error"]
    assert error["type"] == "shape"
    assert error["message"].endswith(f"makes at {THIRD}: missing table extras (1 column, 1 constraint, 1 sequence)")
    assert (signup.heads("wrong"), listed(signup)) == ([], ["model", "right"])
    # A version table that is there, and says nothing, says nothing against it: so pg_dump --schema-only leaves it.
    signup.execute('CREATE TABLE "wrong".extras (id serial, CONSTRAINT pk_extras PRIMARY KEY (id))')
    version = "version_num varchar(32), CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)"
    signup.execute(f'CREATE TABLE "wrong".alembic_version ({version})')
    assert statuses(signup.json("onboard", "wrong", "--adopt")) == {"wrong": "succeeded"}
    assert (signup.heads("wrong"), listed(signup)) == ([THIRD], ["model", "right", "wrong"])
    signup.json("offboard", "wrong", "--drop", "--yes", "--allow-data-loss")
    missing = tenant_of(signup.json("onboard", "missing", "--adopt", exit_code=1), "missing")["error"]
    assert missing["type"] == "unprovisioned"
    assert fetch(signup.url, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'orchestrator%'") == [(0,)]

    # One that has a version table is compared with the directory at what that says.
    signup.json("downgrade", SECOND, "-t", "right", "--yes", "--allow-data-loss")
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("  - right\n", ""))
    assert statuses(signup.json("onboard", "right", "--adopt")) == {"right": "already_current"}
    assert (signup.heads("right"), listed(signup)) == ([SECOND], ["model", "right"])


def test_adopted_is_never_undone(signup: Project) -> None:
    """--undo leaves alone what was there before, also where its entry is gone."""
    signup.execute("CREATE SCHEMA old; CREATE TABLE old.notes (id int)")
    path = signup.workspace.path / "tenants.yaml"
    before = path.read_text()
    signup.json("onboard", "model", "--seed", "")
    path.write_text(before)

    assert statuses(signup.json("onboard", "old", "--undo", exit_code=1)) == {"old": "failed"}
    assert statuses(signup.json("onboard", "model", "--undo", exit_code=1)) == {"model": "failed"}
    assert signup.heads("model") == [THIRD]


def test_in_bulk(signup: Project) -> None:
    """Tenants of a file are made in waves, written down in one go, with the rows that each asks for."""
    rows = "".join(f't{number},"new,eu",{"demo" if number % 2 else ""}\n' for number in range(40))
    signup.workspace.write("new.csv", f"id,tags,seed\n{rows}")

    document = signup.json("onboard", "--from", "new.csv", "--waves", "1,10%,rest")

    assert set(statuses(document).values()) == {"succeeded"}
    assert [wave["name"] for wave in document["waves"]] == ["1", "10%", "rest"]
    assert sorted(listed(signup)) == sorted(f"t{number}" for number in range(40))
    assert [len(notes(signup, f"t{number}")) for number in range(4)] == [0, 2, 0, 2]
    assert set(statuses(signup.json("onboard", "--from", "new.csv")).values()) == {"already_current"}


async def test_connections_serve_one_newcomer_after_the_other(signup: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names the database of the server's address gets the same connections as who does not."""
    opened, connect = [], asyncpg.connect

    async def counted(*args: Any, **options: Any) -> Any:
        opened.append(options.get("database"))
        return await connect(*args, **options)

    fleet = orchestrator.load(signup.workspace.path / "tenants.yaml", may_be_empty=True)
    async with orchestrator.onboarding(fleet) as desk:
        await desk.prepare()
        monkeypatch.setattr(asyncpg, "connect", counted)
        result = await desk.onboard(*(f"t{number}" for number in range(32)), execution=Execution(jobs=8))
    assert result.satisfied, result.as_json()
    assert len(opened) <= 12, opened


def test_bad_rows(signup: Project) -> None:
    """Everything that is wrong with any row is told before anything is done."""
    signup.json("onboard", "acme", "--seed", "")
    signup.workspace.write(
        "new.csv", "id,schema,tags,seed\nfine,,,\npg_x,,,\nfine,,,\nother,acme,,\nacme,elsewhere,,\nlast,,,dmo\n"
    )

    refused = signup.run("onboard", "--from", "new.csv")

    told = (
        *("row 2 (`pg_x`)", "row 3 (`fine`)", "row 4 (`other`)", "row 5 (`acme`)", "row 6 (`last`)"),
        *("in the place of another", "a tenant already", "no seed `dmo`", "demo"),
    )
    assert_error(refused, *told)
    assert fetch(signup.url, "SELECT 1 FROM pg_namespace WHERE nspname IN ('fine', 'last')") == []


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["onboard"], ["name one tenant"]),
        (["onboard", "a", "--from", "x.csv"], ["name one tenant"]),
        (["onboard", "--from", "x.csv"], ["x.csv"]),
        (["onboard", "--from", "x.csv", "--schema", "y"], ["--schema", "column"]),
        (["onboard", "a", "--server", "mian"], ["unknown server `mian`", "did you mean `main`?"]),
        (["onboard", "a", "--seed", "dmo"], ["there is no seed `dmo`", "did you mean `demo`?"]),
        (["onboard", "a", "--undo", "--adopt"], ["--undo", "--adopt"]),
        (["onboard", "orchestrator_new_x"], ["keeps for itself"]),
        (["onboard", "public"], ["PostgreSQL's own"]),
        (["onboard", "template1", "--isolation", "database"], ["PostgreSQL's own"]),
        (["onboard", "x" * 64], ["64 bytes"]),
        (["onboard", "a", "--url", "postgresql://me:secret@nowhere/a"], ["password", "${ACME_PASSWORD}"]),
        (["onboard", "a", "--url", "postgresql://me@nowhere/a?password=secret"], ["password", "${ACME_PASSWORD}"]),
    ],
)
def test_bad_input(signup: Project, args: list[str], parts: list[str]) -> None:
    """A clear error, and nothing is made."""
    before = signup.catalog()

    assert_error(signup.run(*args), *parts)
    assert (signup.catalog(), listed(signup)) == (before, [])


def test_missing_right(signup: Project) -> None:
    """A role that may not create is told by the server, and nothing is half written down."""
    signup.execute("DO $$ BEGIN CREATE ROLE visitor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("//postgres@", "//visitor@"))

    error = tenant_of(signup.json("onboard", "acme", exit_code=1), "acme")["error"]

    assert error["sqlstate"] == "42501" or "permission denied" in error["message"]
    assert listed(signup) == []


def test_server_that_is_away(signup: Project) -> None:
    """A server that takes no connection is told, nothing is written down, and resume goes on when it is back."""
    path = signup.workspace.path / "tenants.yaml"
    text = path.read_text()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    path.write_text(re.sub(r"127\.0\.0\.1:\d+", address, text) + "policy: {retries: 0}\n")

    document = signup.json("onboard", "acme", "--seed", "demo", exit_code=1)

    assert address in tenant_of(document, "acme")["error"]["message"]
    assert listed(signup) == []
    path.write_text(text)
    assert statuses(signup.json("resume")) == {"acme": "succeeded"}
    assert (notes(signup, "acme"), listed(signup)) == (["one", "two"], ["acme"])


def test_file_that_cannot_be_written(signup: Project) -> None:
    """Where the entry cannot be written down, the tenant waits for it, and the same command ends it."""
    path = signup.workspace.path / "tenants.yaml"
    text = path.read_text()
    path.write_text(text.replace("tenants:\n", "tenants: &all\n"))
    path.write_text(text + "waves: [\n")  # somebody is at work on it
    assert_error(signup.run("onboard", "acme"), "tenants.yaml")
    path.write_text(text)
    signup.json("onboard", "acme", "--seed", "demo")
    assert listed(signup) == ["acme"]


async def test_50_onboardings_during_an_upgrade(project: Project) -> None:
    """Whoever is onboarded while a run brings 200 tenants to a new revision is at that revision in the end."""
    names = [f"t{number:03}" for number in range(200)]
    project.fleet(*names)
    path = project.workspace.path / "tenants.yaml"
    fleet = orchestrator.load(path)
    await orchestrator.upgrade(fleet, target=SECOND)

    class SignUps(Silent):
        """Somebody signs up whenever a tenant of the run is through."""

        def __init__(self, desk: Desk) -> None:
            self.desk = desk
            self.begun: list[asyncio.Task[RunResult]] = []

        def tenant(self, attempt: AttemptRecord) -> None:
            if attempt.status == "succeeded" and len(self.begun) < 50:
                self.begun.append(asyncio.create_task(self.desk.onboard(f"new{len(self.begun):02}")))

    async with orchestrator.onboarding(fleet) as desk:
        observer = SignUps(desk)
        result = await orchestrator.upgrade(fleet, watch=Watch(observer), execution=Execution(jobs=4))
        onboarded = await asyncio.gather(*observer.begun)

    assert result.satisfied, result.as_json()
    assert len(onboarded) == 50
    assert all(each.satisfied for each in onboarded), [each.as_json() for each in onboarded if not each.satisfied][:1]
    everybody = sorted([*names, *(f"new{number:02}" for number in range(50))])
    assert sorted(listed(project)) == everybody
    assert [name for name in everybody if project.heads(name) != [THIRD]] == []


async def test_two_of_one_name(signup: Project) -> None:
    """Of four sign-ups of one name at once, by two desks, one makes the tenant, and nobody else is given it."""
    fleet = orchestrator.load(signup.workspace.path / "tenants.yaml", may_be_empty=True)

    async with orchestrator.onboarding(fleet) as one, orchestrator.onboarding(fleet) as other:
        results = await asyncio.gather(*(desk.onboard("acme", seed="demo") for desk in (one, other, one, other)))

    ends = sorted(result.tenants[0].status for result in results)
    assert ends.count("succeeded") == 1
    assert set(ends) <= {"succeeded", "blocked", "already_current"}, [result.as_json() for result in results]
    assert (notes(signup, "acme"), listed(signup)) == (["one", "two"], ["acme"])


async def test_desk_sees_what_changes(signup: Project) -> None:
    """Between two onboardings of a desk, a new revision and an edited tenants.yaml are read."""
    path = signup.workspace.path / "tenants.yaml"
    fourth = "d4d4d4d4d4d4"
    async with orchestrator.onboarding(orchestrator.load(path, may_be_empty=True)) as desk:
        assert (await desk.onboard("acme", seed="")).satisfied
        broken = signup.workspace.write("alembic/versions/broken.py", "no")
        with pytest.raises(orchestrator.OrchestratorError, match="broken"):
            await desk.onboard("globex", seed="")
        broken.unlink()
        signup.revision(fourth, THIRD, "op.add_column('notes', sa.Column('more', sa.Text))")
        path.write_text(path.read_text().replace("  - acme\n", "  - acme\n  - {id: globex, schema: by_hand}\n"))
        with pytest.raises(orchestrator.OrchestratorError, match="a tenant already, in by_hand"):
            await desk.onboard("globex", seed="")
        assert (await desk.onboard("initech", seed="")).satisfied
    assert (signup.heads("acme"), signup.heads("initech")) == ([THIRD], [fourth])


def test_sqlite(signup: Project, tmp_path: Path) -> None:
    """The same verbs make, seed, adopt and take back files."""
    head = {
        "servers": {"main": "sqlite:///data"},
        "onboarding": {"seeds": {"demo": "seeds/demo.sql", "no": "broken.sql"}},
    }
    signup.workspace.write("tenants.yaml", "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items()))

    assert statuses(signup.json("onboard", "acme", "--seed", "demo")) == {"acme": "succeeded"}
    file = signup.workspace.path / "data" / "acme.db"
    assert sorted(path.name for path in file.parent.iterdir()) == [".acme.db.lock", "acme.db"]
    assert signup.json("status")["tenants"][0]["state"] == "current"

    signup.json("onboard", "globex", "--seed", "no", exit_code=1)
    assert (file.parent / ".globex.db.onboarding").exists()
    assert statuses(signup.json("onboard", "globex", "--undo")) == {"globex": "succeeded"}
    assert not (file.parent / "globex.db").exists()

    file.rename(file.with_name("moved.db"))
    assert statuses(signup.json("onboard", "moved", "--adopt")) == {"moved": "already_current"}


def test_databases(signup: Project) -> None:
    """A database of one's own is made with its mark and its rows."""
    name = f"{signup.url.rpartition('/')[2]}_acme"
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("SCHEMA {schema}", "SCHEMA public"))
    try:
        document = signup.json("onboard", "acme", "--isolation", "database", "--database", name, "--seed", "demo")
        assert statuses(document) == {"acme": "succeeded"}
        url = f"{signup.url.rpartition('/')[0]}/{name}"
        assert fetch(url, "SELECT count(*) FROM notes") == [(2,)]
        (entry,) = signup.json("tenants", "list")["tenants"]
        assert (entry["tenant"], entry["database"]) == ("acme", name)
    finally:
        execute(signup.url, f'DROP DATABASE IF EXISTS "{name}"')


def test_rollback_of_an_onboarding(signup: Project) -> None:
    """What a run has onboarded is not emptied by a rollback of it."""
    signup.json("onboard", "acme", "--seed", "demo")

    assert_error(signup.run("rollback", "last", "--yes", "--allow-data-loss"), "offboard")
    assert notes(signup, "acme") == ["one", "two"]


@pytest.mark.parametrize(
    ("revisions", "way"), [("", "replay"), ("op.get_bind().execute(sa.text('SELECT 1')).scalar()", "snapshot")]
)
def test_prepared(signup: Project, revisions: str, way: str) -> None:
    """What --prepare has made is used, with its statements and rows as ever; edited revisions are prepared anew."""
    if revisions:
        signup.revision("d4d4d4d4d4d4", THIRD, revisions)
    signup.json("onboard", "model", "--seed", "")

    assert signup.json("onboard", "--prepare")["way"] == way
    document = signup.json("onboard", "acme", "--seed", "demo")

    assert tenant_of(document, "acme")["path"] == way
    assert (signup.heads("acme"), notes(signup, "acme")) == (signup.heads("model"), ["one", "two"])
    assert fetch(signup.url, "SELECT has_schema_privilege('pg_monitor', 'acme', 'USAGE')") == [(True,)]
    assert signup.run("drift").returncode == 0
    signup.revision("e5e5e5e5e5e5", signup.heads("model")[0], "op.add_column('notes', sa.Column('more', sa.Text))")
    assert tenant_of(signup.json("onboard", "globex", "--seed", ""), "globex")["path"] == "alembic"


def test_many_prepare_themselves(signup: Project) -> None:
    """Enough new tenants of one kind are worth preparing for: none of them goes through Alembic."""
    signup.workspace.write("new.yaml", "\n".join(f"- {{id: t{number}, seed: demo}}" for number in range(8)))

    document = signup.json("onboard", "--from", "new.yaml")

    assert {tenant["path"] for tenant in document["tenants"]} == {"replay"}
    assert notes(signup, "t7") == ["one", "two"]


def test_prepared_databases(signup: Project) -> None:
    """A database is copied from the template, gets what it is to be given, and is another one's never."""
    name = f"{signup.url.rpartition('/')[2]}_acme"
    path = signup.workspace.path / "tenants.yaml"
    path.write_text(path.read_text().replace("SCHEMA {schema}", "SCHEMA public"))
    try:
        assert signup.json("onboard", "--prepare", "--isolation", "database")["way"] == "template"
        document = signup.json("onboard", "acme", "--isolation", "database", "--database", name, "--seed", "demo")
        assert tenant_of(document, "acme")["path"] == "template"
        url = f"{signup.url.rpartition('/')[0]}/{name}"
        assert fetch(url, "SELECT count(*) FROM notes") == [(2,)]
        assert signup.json("status")["tenants"][0]["heads"] == [THIRD]
    finally:
        execute(signup.url, f'DROP DATABASE IF EXISTS "{name}"')
        for (template,) in fetch(
            signup.url, "SELECT datname FROM pg_database WHERE datname ^@ 'orchestrator_template_'"
        ):
            execute(signup.url, f'ALTER DATABASE "{template}" IS_TEMPLATE false')
            execute(signup.url, f'DROP DATABASE "{template}"')


def test_pinned_target(signup: Project) -> None:
    """A target of its own is gone to, and written down."""
    signup.json("onboard", "acme", "--target", FIRST, "--seed", "")

    assert signup.heads("acme") == [FIRST]
    assert "target" in (signup.workspace.path / "tenants.yaml").read_text()
