"""orchestrator offboard: saved, set aside, brought back, dropped; nobody else's, and nobody lost on the way."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from tests.command_line import FIRST, THIRD, Project, assert_error, statuses, tenant_of
from tests.servers import execute, fetch

AGREED = ("--yes", "--allow-data-loss")
ASIDE = "orchestrator\\_offboarded\\_%"
#: What happens between two waves of a run, and right after it has begun.
LEAVING = """
import asyncpg
import orchestrator

async def some(document):
    if document["wave"] == "rest":
        fleet = orchestrator.load("tenants.yaml")
        assert (await orchestrator.offboard(fleet, tenants=["t06"], drop=True)).satisfied
        assert (await orchestrator.offboard(fleet, tenants=["t07"])).satisfied

async def torn(document):
    connection = await asyncpg.connect(URL)
    await connection.execute("DROP SCHEMA b CASCADE")
    await connection.close()
"""
#: A revision that fails outside any transaction, after something that stays.
OUTSIDE = """with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY ix ON notes (body)")
        op.execute("SELECT 1 / 0")"""


@pytest.fixture
def shop(project: Project) -> Project:
    """Two tenants at the head, with rows."""
    project.fleet("{id: acme, tags: [eu]}  # since 2019", "globex")
    project.json("upgrade")
    for name in ("acme", "globex"):
        project.execute(f"INSERT INTO \"{name}\".notes (body) SELECT '{name}' || n FROM generate_series(1, 100) n")
    return project


def rows(project: Project, schema: str) -> list[Any]:
    """What a tenant has."""
    return fetch(project.url, f'SELECT id, body FROM "{schema}".notes ORDER BY id')


def listed(project: Project) -> list[str]:
    """Ids in tenants.yaml, in its order."""
    fleet = orchestrator.load(project.workspace.path / "tenants.yaml", may_be_empty=True)
    return [tenant.id for tenant in fleet.tenants]


def schemas(project: Project, like: str = ASIDE) -> list[str]:
    """Names of schemas."""
    return [row[0] for row in fetch(project.url, f"SELECT nspname FROM pg_namespace WHERE nspname LIKE '{like}'")]


def yaml(project: Project) -> Path:
    """The fleet's file."""
    return project.workspace.path / "tenants.yaml"


def events(project: Project, kind: str) -> list[Any]:
    """Details of the journal's events of a kind."""
    with closing(sqlite3.connect(project.journal)) as connection:
        found = connection.execute(
            "SELECT detail FROM orchestrator_events WHERE kind = ? ORDER BY at", (kind,)
        ).fetchall()
    return [json.loads(detail) for (detail,) in found]


def make_due(project: Project, schema: str) -> None:
    """Move the day on which a schema may be dropped into the past, as if so much time had gone by."""
    ((comment,),) = fetch(project.url, f"SELECT obj_description('\"{schema}\"'::regnamespace)")
    said = json.loads(comment.removeprefix("orchestrator "))
    said["departure"]["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    text = ("orchestrator " + json.dumps(said)).replace("'", "''")
    project.execute(f"COMMENT ON SCHEMA \"{schema}\" IS '{text}'")


def test_set_aside_and_back(shop: Project) -> None:
    """Nobody finds the schema, the fleet does not list the tenant; --undo brings back rows, entry and status."""
    before, text = rows(shop, "acme"), yaml(shop).read_text()

    document = shop.json("offboard", "acme", *AGREED)

    assert (document["command"], statuses(document)) == ("offboard", {"acme": "succeeded"})
    assert (listed(shop), schemas(shop, "acme"), len(schemas(shop))) == (["globex"], [], 1)
    assert statuses(shop.json("offboard", "acme", *AGREED)) == {"acme": "succeeded"}
    assert [each["tenant"] for each in shop.json("status")["tenants"]] == ["globex"]
    assert shop.run("runs", "list", "-t", "acme").stdout.count("offboard") == 2
    (aside,) = events(shop, "set_aside")
    assert (aside["was"], aside["name"], aside["archive"]) == ("acme", schemas(shop)[0], None)

    assert statuses(shop.json("offboard", "acme", "--undo")) == {"acme": "succeeded"}
    assert (rows(shop, "acme"), schemas(shop)) == (before, [])
    assert sorted(listed(shop)) == ["acme", "globex"]
    (tenant,) = shop.json("status", "-t", "acme")["tenants"]
    assert (tenant["state"], tenant["tags"]) == ("current", ["eu"])
    assert statuses(shop.json("offboard", "acme", "--undo")) == {"acme": "succeeded"}
    assert "globex" in text


def test_archive_drop_and_restore(shop: Project) -> None:
    """Dropped with an archive, a tenant is restored from it, row by row, and is in the fleet again."""
    before = rows(shop, "acme")

    document = shop.json("offboard", "acme", "--archive", "old", "--drop", *AGREED)

    assert (schemas(shop, "acme"), schemas(shop), listed(shop)) == ([], [], ["globex"])
    (archive,) = document["backups"]
    assert tenant_of(document, "acme")["to"] == []
    (dropped,) = events(shop, "dropped")
    assert dropped["archive"]["file"] == archive["file"]
    assert_error(shop.run("restore", archive["file"], "-t", "acme", *AGREED), "no tenant matches 'acme'", "--register")

    back = shop.json("restore", archive["file"], "-t", "acme", "--register", *AGREED)
    assert statuses(back) == {"acme": "succeeded"}
    assert (rows(shop, "acme"), sorted(listed(shop))) == (before, ["acme", "globex"])
    (tenant,) = shop.json("status", "-t", "acme")["tenants"]
    assert (tenant["state"], tenant["tags"]) == ("current", ["eu"])
    # Again, it is an ordinary restore.
    assert statuses(shop.json("restore", archive["file"], "-t", "acme", "--register", *AGREED)) == {"acme": "succeeded"}


def test_restore_takes_nobodys_place(shop: Project) -> None:
    """A tenant that the fleet does not have is not restored over what somebody else has put there."""
    (archive,) = shop.json("offboard", "acme", "--archive", "old", "--drop", *AGREED)["backups"]
    shop.execute("CREATE SCHEMA acme; CREATE TABLE acme.theirs (id int)")

    document = shop.json("restore", archive["file"], "-t", "acme", "--register", *AGREED, exit_code=1)

    assert tenant_of(document, "acme")["error"]["type"] == "taken"
    assert fetch(shop.url, "SELECT count(*) FROM acme.theirs") == [(0,)]
    assert listed(shop) == ["globex"]


def test_purge(shop: Project) -> None:
    """What was set aside for a while is dropped when its day has come, not before, and only when agreed to."""
    shop.json("offboard", "acme", "--drop", "--after", "30d", *AGREED)
    shop.json("offboard", "globex", *AGREED)
    acme = next(each["name"] for each in events(shop, "set_aside") if each["was"] == "acme")

    early = shop.run("offboard", "--purge")
    assert (early.returncode, early.stderr.count("kept: ")) == (0, 2)
    make_due(shop, acme)
    refused = shop.run("offboard", "--purge")
    assert (refused.returncode, "to be dropped: acme" in refused.stderr, len(schemas(shop))) == (2, True, 2)

    document = shop.json("offboard", "--purge", *AGREED)
    assert (document["command"], statuses(document)) == ("purge", {"acme": "succeeded"})
    assert len(schemas(shop)) == 1
    assert statuses(shop.json("offboard", "--purge", *AGREED)) == {}
    assert statuses(shop.json("offboard", "globex", "--undo")) == {"globex": "succeeded"}


def test_purge_is_of_this_fleet(shop: Project) -> None:
    """What another fleet has set aside is neither shown, dropped nor brought back."""
    shop.json("offboard", "acme", "--drop", "--after", "1s", *AGREED)
    make_due(shop, schemas(shop)[0])
    yaml(shop).write_text("name: another\n" + yaml(shop).read_text())

    assert "acme" not in shop.run("offboard", "--purge", *AGREED).stderr
    assert_error(shop.run("offboard", "acme", "--undo"), "no tenant matches 'acme'")
    assert len(schemas(shop)) == 1


def test_purge_leaves_who_is_listed_again(shop: Project) -> None:
    """Somebody has written the tenant down by hand: what was set aside is all there is of it."""
    text = yaml(shop).read_text()
    shop.json("offboard", "acme", "--drop", "--after", "1s", *AGREED)
    make_due(shop, schemas(shop)[0])
    yaml(shop).write_text(text)

    error = tenant_of(shop.json("offboard", "--purge", *AGREED, exit_code=1), "acme")["error"]
    assert (error["type"], "--undo" in error["hint"]) == ("listed", True)
    upgraded = shop.json("upgrade", "--provision", exit_code=1)
    assert "set aside" in tenant_of(upgraded, "acme")["error"]["message"]
    assert schemas(shop, "acme") == []
    assert statuses(shop.json("offboard", "acme", "--undo")) == {"acme": "succeeded"}


def test_refused(shop: Project) -> None:
    """Another fleet's, unknown heads, tables that nobody knows, public: blocked, untouched; others are taken out."""
    shop.execute('CREATE SCHEMA "full"; CREATE TABLE "full".t (); CREATE SCHEMA strange; CREATE SCHEMA theirs')
    shop.execute("CREATE TABLE strange.alembic_version (version_num text); ")
    shop.execute("INSERT INTO strange.alembic_version VALUES ('ffff')")
    shop.execute("""COMMENT ON SCHEMA theirs IS 'orchestrator {"fleet": "other", "tenant": "theirs"}'""")
    shop.execute("CREATE SCHEMA empty")
    shop.fleet(
        "acme", '"full"', "strange", "theirs", "empty", "{id: everybody, schema: public}", "missing", schemas=False
    )
    before = shop.catalog()

    document = shop.json("offboard", "full", "strange", "theirs", "everybody", "--drop", *AGREED, exit_code=1)

    assert set(statuses(document).values()) == {"blocked"}
    assert tenant_of(document, "theirs")["error"]["type"] == "not_ours"
    assert "ffff" in tenant_of(document, "strange")["error"]["message"]
    assert "no version table" in tenant_of(document, "full")["error"]["message"]
    assert shop.catalog() == before
    gone = shop.json("offboard", "acme", "empty", "missing", "--drop", *AGREED)
    assert set(statuses(gone).values()) == {"succeeded"}
    assert listed(shop) == ["full", "strange", "theirs", "everybody"]
    assert "nothing to back up" not in json.dumps(gone)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["offboard", *AGREED], ["which tenants"]),
        (["offboard", "acme"], ["nobody is there to ask", "--allow-data-loss"]),
        (["offboard", "acme", "--yes"], ["--allow-data-loss"]),
        (["offboard", "amce", *AGREED], ["no tenant matches 'amce'", "acme"]),
        (["offboard", "acme", "--after", "30d", *AGREED], ["--drop"]),
        (["offboard", "acme", "--drop", "--after", "soon", *AGREED], ["--after"]),
        (["offboard", "acme", "--undo", "--drop"], ["--undo", "--drop"]),
        (["offboard", "--purge", "--undo"], ["--undo"]),
        (["offboard", "acme", "--purge", *AGREED], ["--purge"]),
        (["offboard", "acme", "--undo"], ["no tenant matches"]),
        (["offboard", "acme", "--archive", "tenants.yaml", *AGREED], ["tenants.yaml"]),
    ],
)
def test_bad_input(shop: Project, args: list[str], parts: list[str]) -> None:
    """A clear error, and nobody is touched."""
    before, text = shop.catalog(), yaml(shop).read_text()
    if args == ["offboard", "acme", "--undo"]:
        args = ["offboard", "initech", "--undo"]

    assert_error(shop.run(*args), *parts)
    assert (shop.catalog(), yaml(shop).read_text()) == (before, text)


def test_archive_that_cannot_be_made(shop: Project) -> None:
    """Where it cannot be written, the tenant is as it was, and works."""
    shop.execute("CREATE EXTENSION citext SCHEMA acme")

    document = shop.json("offboard", "acme", "--archive", "old", *AGREED, exit_code=1)

    assert "extension" in tenant_of(document, "acme")["error"]["message"]
    assert (listed(shop), shop.heads("acme"), schemas(shop)) == (["acme", "globex"], [THIRD], [])


def test_lost_archive(shop: Project) -> None:
    """What was set aside with an archive is not dropped with --archive once that is gone."""
    (archive,) = shop.json("offboard", "acme", "--archive", "old", *AGREED)["backups"]
    Path(archive["file"]).write_bytes(b"cut")

    document = shop.json("offboard", "acme", "--archive", "old", "--drop", *AGREED, exit_code=1)
    assert "--undo" in tenant_of(document, "acme")["error"]["hint"]
    assert len(schemas(shop)) == 1
    assert statuses(shop.json("offboard", "acme", "--drop", *AGREED)) == {"acme": "succeeded"}
    assert schemas(shop) == []


def test_sql_source(shop: Project) -> None:
    """A tenant of a SQL source is taken out there; one of a source without a way out is left alone."""
    shop.execute("CREATE TABLE public.tenants (id text); INSERT INTO public.tenants VALUES ('acme'), ('globex')")
    source = 'sql: "SELECT id FROM public.tenants", server: main, register: "INSERT INTO public.tenants VALUES (:id)"'
    head = f'servers:\n  main: {{url: "{shop.url}"}}\ndefaults: {{server: main}}\nsources:\n  - {{{source}'
    yaml(shop).write_text(head + "}\n")
    error = tenant_of(shop.json("offboard", "acme", *AGREED, exit_code=1), "acme")["error"]
    assert (error["type"], "unregister" in error["hint"]) == ("source", True)
    assert shop.heads("acme") == [THIRD]

    yaml(shop).write_text(head + ', unregister: "DELETE FROM public.tenants WHERE id = :id"}\n')
    shop.json("offboard", "acme", *AGREED)
    assert fetch(shop.url, "SELECT id FROM public.tenants") == [("globex",)]
    assert statuses(shop.json("offboard", "acme", "--undo")) == {"acme": "succeeded"}
    assert fetch(shop.url, "SELECT id FROM public.tenants ORDER BY id") == [("acme",), ("globex",)]
    assert shop.heads("acme") == [THIRD]


def test_pattern_source(shop: Project) -> None:
    """A tenant that a glob finds is out of the fleet once its schema is set aside, and in it once that is back."""
    head = f'servers:\n  main: {{url: "{shop.url}"}}\ndefaults: {{server: main}}\nsources:\n'
    yaml(shop).write_text(head + '  - {schemas: "[ag]*", server: main}\n')
    text = yaml(shop).read_text()

    shop.json("offboard", "acme", *AGREED)
    assert [each["tenant"] for each in shop.json("status")["tenants"]] == ["globex"]
    assert statuses(shop.json("offboard", "acme", "--undo")) == {"acme": "succeeded"}
    assert [each["tenant"] for each in shop.json("status")["tenants"]] == ["acme", "globex"]
    assert yaml(shop).read_text() == text


def test_databases(shop: Project) -> None:
    """A database takes no connections once it is set aside, and comes back from there and from its archive."""
    name = f"{shop.url.rpartition('/')[2]}_acme"
    url = f"{shop.url.rpartition('/')[0]}/{name}"
    shop.fleet(f"{{id: acme, isolation: database, database: {name}}}", schemas=False)
    try:
        shop.json("upgrade", "--provision")
        execute(url, "INSERT INTO notes (body) VALUES ('kept'); ")
        execute(url, f"COMMENT ON DATABASE \"{name}\" IS 'theirs'")
        shop.json("offboard", "acme", "--archive", "old", *AGREED)
        (aside,) = fetch(shop.url, f"SELECT datname, datallowconn FROM pg_database WHERE datname LIKE '{ASIDE}'")
        assert aside[1] is False
        shop.json("offboard", "acme", "--undo")
        assert fetch(url, "SELECT body FROM notes") == [("kept",)]

        document = shop.json("offboard", "acme", "--archive", "old", "--drop", *AGREED)
        assert fetch(shop.url, f"SELECT 1 FROM pg_database WHERE datname IN ('{name}', '{aside[0]}')") == []
        shop.json("restore", document["backups"][0]["file"], "-t", "acme", "--register", *AGREED)
        assert fetch(url, "SELECT body FROM notes") == [("kept",)]
        # What says that it was set aside is in no backup.
        execute(shop.url, f'DROP DATABASE "{name}" WITH (FORCE)')
        shop.json("restore", document["backups"][0]["file"], "-t", "acme", *AGREED)
        comment = fetch(
            url, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        )
        assert comment[0][0].startswith("theirs\norchestrator {")
        assert "departure" not in comment[0][0]
    finally:
        for (each,) in fetch(shop.url, f"SELECT datname FROM pg_database WHERE datname LIKE '{ASIDE}'"):
            execute(shop.url, f'DROP DATABASE IF EXISTS "{each}" WITH (FORCE)')
        execute(shop.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def test_whole_database_with_others_in_it(shop: Project) -> None:
    """A tenant that has a database to itself, with another tenant's schema in it, is not taken away with that."""
    name = shop.url.rpartition("/")[2]
    shop.fleet("acme", f"{{id: all, isolation: database, database: {name}}}", schemas=False)
    shop.execute("CREATE TABLE public.alembic_version (version_num text)")
    shop.execute(f"INSERT INTO public.alembic_version VALUES ('{THIRD}')")

    error = tenant_of(shop.json("offboard", "all", "--drop", *AGREED, exit_code=1), "all")["error"]

    assert error["type"] == "shared_database"
    assert rows(shop, "acme")


def test_sqlite(shop: Project) -> None:
    """The same verbs set files aside, bring them back, save, drop and restore them."""
    yaml(shop).write_text("servers: {main: 'sqlite:///data'}\ndefaults: {server: main}\ntenants: [acme, globex]\n")
    shop.json("upgrade", "--provision")
    file = shop.workspace.path / "data" / "acme.db"
    before = file.read_bytes()
    shop.json("offboard", "acme", *AGREED)
    assert (file.exists(), listed(shop)) == (False, ["globex"])
    shop.json("offboard", "acme", "--undo")
    assert (file.read_bytes(), sorted(listed(shop))) == (before, ["acme", "globex"])

    document = shop.json("offboard", "acme", "--archive", "old", "--drop", *AGREED)
    assert not list(file.parent.rglob("*offboarded_*"))
    shop.json("restore", document["backups"][0]["file"], "-t", "acme", "--register", *AGREED)
    assert [each["state"] for each in shop.json("status")["tenants"]] == ["current", "current"]


def test_upgrade_meets_one_that_is_taken_out(project: Project) -> None:
    """A run that meets tenants that were taken out meanwhile neither makes them again nor fails for them."""
    names = [f"t{number:02}" for number in range(8)]
    waves = "waves:\n  - {name: first, count: 4}\n  - {name: rest}\n"
    project.fleet(*names, more=f"{waves}hooks: {{before_wave: [{{python: 'leaving:some'}}]}}\n")
    project.workspace.write("leaving.py", "async def some(document): pass")
    project.json("upgrade", FIRST)
    project.workspace.write("leaving.py", LEAVING)

    document = project.json("upgrade", "--provision")

    ended = statuses(document)
    assert (ended.pop("t06"), ended.pop("t07"), ended.pop("t05")) == ("skipped", "skipped", "succeeded")
    assert set(ended.values()) == {"succeeded"}
    assert tenant_of(document, "t06")["error"]["type"] == "gone"
    assert schemas(project, "t0%") == names[:6]


def test_upgrade_meets_one_that_is_missing(project: Project) -> None:
    """A schema that somebody has dropped by hand meanwhile is told, and no empty one is made for the tenant."""
    project.fleet("a", "b")
    project.json("upgrade", FIRST)
    project.fleet("a", "b", more="hooks: {before_run: [{python: 'leaving:torn'}]}\n")
    project.workspace.write("leaving.py", LEAVING.replace("URL", repr(project.url)))

    document = project.json("upgrade", "--provision", exit_code=1)

    assert statuses(document) == {"a": "succeeded", "b": "blocked"}
    assert tenant_of(document, "b")["error"]["type"] == "gone"
    assert schemas(project, "b") == []


def test_half_done_is_forgotten_with_it(shop: Project) -> None:
    """Where a tenant was left partial and is dropped, a new one of its id is not."""
    shop.revision("d4d4d4d4d4d4", THIRD, OUTSIDE)
    assert statuses(shop.json("upgrade", "-t", "acme", exit_code=1)) == {"acme": "partial"}
    shop.json("offboard", "acme", "--drop", *AGREED)
    with closing(sqlite3.connect(shop.journal)) as connection:
        assert connection.execute("SELECT count(*) FROM orchestrator_steps WHERE done_at IS NULL").fetchone() == (0,)
    (shop.versions / "d4d4d4d4d4d4.py").unlink()
    shop.json("onboard", "acme")
    assert [each["state"] for each in shop.json("status", "-t", "acme")["tenants"]] == ["current"]
