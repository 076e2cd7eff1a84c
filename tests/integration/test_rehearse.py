"""Rehearsals: clones of real tenants go up, down and up; what they lock is told, nothing is touched or kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from orchestrator import Clones
from orchestrator.errors import ServerUnreachable
from orchestrator.fleet.tenant import Limits
from orchestrator.rollout.rehearsal_telling import locks, verdict
from tests.command_line import FIRST, SECOND, THIRD, assert_error
from tests.command_line import Project as CommandLine
from tests.projects import ENV, files, make_project, schemas, with_role
from tests.rehearsing import NOTES, behind, contents, left
from tests.servers import PostgresServer, execute, fetch

#: Holds the strongest lock on a table for at least a fifth of a second, writes every row anew, and then some rows.
HEAVY = """
def upgrade():
    op.alter_column("notes", "id", type_=sa.BigInteger)
    op.create_index("ix_body", "notes", ["body"])
    op.execute("UPDATE notes SET body = 'x' WHERE id <= 10")
    op.execute("SELECT pg_sleep(0.2)")

def downgrade():
    op.drop_index("ix_body")
    op.alter_column("notes", "id", type_=sa.Integer)
"""
#: Builds an index beside the application; a function makes that take a while for the one row.
CONCURRENT = """
def upgrade():
    op.execute("CREATE FUNCTION slow(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS"
               " $$ BEGIN PERFORM pg_catalog.pg_sleep(0.2); RETURN $1; END $$")
    with op.get_context().autocommit_block():
        op.create_index("ix_slow", "notes", [sa.text("slow(id)")], postgresql_concurrently=True)
        op.execute("UPDATE notes SET body = 'y'")

def downgrade():
    op.drop_index("ix_slow")
    op.execute("DROP FUNCTION slow")
"""
#: Leaves something behind on its way back.
LEAVES = """
def upgrade():
    op.add_column("notes", sa.Column("colour", sa.Text))
    op.create_table("extras", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("extras")
"""
NO_WAY_BACK = """
def upgrade():
    op.add_column("notes", sa.Column("colour", sa.Text))

def downgrade():
    raise NotImplementedError("colours cannot be taken back")
"""


async def test_everything_that_a_revision_does_is_told(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """Locks with mode and time, rows, WAL, tables and indexes made anew; the tenant stays as it was, to the row."""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": HEAVY}, "acme")
    execute(database, "INSERT INTO acme.notes SELECT g FROM generate_series(1, 5000) g")
    before = contents(database, "acme")
    told: list[str] = []
    report = await orchestrator.rehearse(project.fleet, told=told.append)
    document = report.as_json()
    (clone,) = document["clones"]
    assert (document["ok"], clone["tenant"], clone["from"], clone["way"]) == (True, "acme", ["r1"], "pg_dump")
    (one,) = clone["revisions"]
    assert (one["revision"], one["back"], clone["again_same"]) == ("r2", "same", True)
    for up in (one["up"], one["again"]):
        strongest = up["locks"][0]
        assert (strongest["table"], strongest["mode"]) == ("notes", "AccessExclusiveLock")
        assert strongest["blocks"] == "reads and writes"
        assert up["transaction_ms"] >= strongest["held_ms"] >= 200
        assert {"table": "notes", "index": None} in [
            {"table": each["table"], "index": each["index"]} for each in up["rewritten"]
        ]
        assert up["wal_bytes"] > 5000 * 8
    assert one["up"]["rows_written"] == one["up"]["rows_changed"] == {"notes": 10}
    assert [each["rows"] for each in one["up"]["rewritten"]] == [5000]
    assert one["down"]["locks"]
    # Ten of them were changed, and the way back does not know what they were.
    assert clone["changed_rows"] == ["notes: 5,000 rows before, 5,000 after, not the same"]
    assert contents(database, "acme") == before
    assert left(pg) == []
    assert any(line.startswith("acme: up 1/1 r2") for line in told)
    assert document["estimate"]["tenants"] == 1


async def test_what_follows_a_lock_counts_for_it_alone(tmp_path: Path, database: str) -> None:
    """A lock counts from the statement that took it to the commit: one that comes last is held a moment."""
    late = """
def upgrade():
    op.execute("SELECT pg_sleep(0.3)")
    op.execute("LOCK TABLE notes IN SHARE MODE")
    op.create_table("mine", sa.Column("id", sa.Integer))

def downgrade():
    op.drop_table("mine")
"""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": late}, "acme")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    up = clone["revisions"][0]["up"]
    # On what the migration has made itself, nobody else waits.
    assert [(lock["table"], lock["mode"], lock["blocks"]) for lock in up["locks"]] == [("notes", "ShareLock", "writes")]
    assert up["locks"][0]["held_ms"] < 300 <= up["transaction_ms"]


async def test_rows_that_a_revision_updates_keep_their_writers_waiting(tmp_path: Path, database: str) -> None:
    """An UPDATE locks its rows to the commit, and what was inserted locks nobody out."""
    updates = """
def upgrade():
    op.execute("INSERT INTO notes VALUES (-1)")
    op.execute("UPDATE notes SET body = 'x' WHERE id > 0")
    op.execute("SELECT pg_sleep(0.2)")
    op.add_column("notes", sa.Column("colour", sa.Text))

def downgrade():
    op.drop_column("notes", "colour")
    op.execute("DELETE FROM notes WHERE id = -1")
"""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": updates}, "acme")
    execute(database, "INSERT INTO acme.notes SELECT g FROM generate_series(1, 300) g")
    report = (await orchestrator.rehearse(project.fleet)).as_json()
    told = [(each.table, each.mode, each.blocks, each.held_ms >= 200) for each in locks(report)]
    assert told == [
        ("notes", "row locks", "writes to 300 rows", True),
        ("notes", "AccessExclusiveLock", "reads and writes", False),
    ]


async def test_outside_a_transaction(tmp_path: Path, database: str) -> None:
    """What is run outside any transaction is seen while it runs: its locks, its rows, the index that it builds."""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": CONCURRENT}, "acme")
    execute(database, "INSERT INTO acme.notes VALUES (1)")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert clone["ok"], json.dumps(clone, indent=1)
    up = clone["revisions"][0]["up"]
    assert up["outside_transaction"]
    assert up["rows_written"] == {"": 1}
    assert [each["index"] for each in up["rewritten"]] == ["ix_slow"]
    (lock,) = [lock for lock in up["locks"] if lock["mode"] == "ShareUpdateExclusiveLock"]
    assert lock["held_ms"] >= 200
    assert lock["blocks"] is None
    # The UPDATE is over before anybody could look by chance.
    assert "RowExclusiveLock" in {lock["mode"] for lock in up["locks"]}


async def test_what_a_downgrade_leaves(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """What is not as it was after going back is told for the revision that left it, once; others are the same."""
    more = 'op.create_table("more", sa.Column("id", sa.Integer))'
    below = f'def upgrade():\n    {more}\n\ndef downgrade():\n    op.drop_table("more")'
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": below, "r3": LEAVES}, "acme")
    report = await orchestrator.rehearse(project.fleet)
    (clone,) = report.as_json()["clones"]
    assert [(one["revision"], one["back"]) for one in clone["revisions"]] == [("r2", "same"), ("r3", "different")]
    (line,) = clone["revisions"][1]["difference"]
    assert line.startswith("extra column notes.colour")
    assert (clone["error"], clone["again_same"]) == (None, False)
    assert clone["again_error"]["revision"] == "r3"
    assert report.exit_code == 1
    assert left(pg) == []


async def test_no_way_back_is_told_and_no_failure(tmp_path: Path, database: str) -> None:
    """A revision that says itself that it cannot be taken back is told; that it is so was known before."""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": NO_WAY_BACK}, "acme")
    report = await orchestrator.rehearse(project.fleet)
    (clone,) = report.as_json()["clones"]
    assert [(one["back"], one["again"]) for one in clone["revisions"]] == [("none", None)]
    assert report.exit_code == 0


async def test_what_does_not_go_up(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """A revision that fails on one tenant's rows is found on its clone, with the statement; others' clones go up."""
    unique = 'op.create_unique_constraint("uq_body", "notes", ["body"])'
    body = f'def upgrade():\n    {unique}\n\ndef downgrade():\n    op.drop_constraint("uq_body", "notes")'
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": body}, "acme", "globex")
    execute(database, "INSERT INTO globex.notes VALUES (1, 'same'), (2, 'same')")
    report = await orchestrator.rehearse(project.fleet, tenants=["acme", "globex"])
    acme, globex = report.as_json()["clones"]
    assert acme["ok"]
    assert (globex["error"]["revision"], globex["error"]["sqlstate"]) == ("r2", "23505")
    assert "uq_body" in globex["error"]["statement"]
    assert "same" not in globex["error"]["message"]
    assert report.exit_code == 1
    assert left(pg) == []


async def test_all_in_one_transaction(tmp_path: Path, database: str) -> None:
    """Clones stop after each revision; where a run does not, locks are told as long as it holds them, with a note."""
    sleeps = 'def upgrade():\n    op.execute("SELECT pg_sleep(0.3)")\n\ndef downgrade():\n    pass'
    revisions = {"r1": NOTES, "r2": HEAVY, "r3": sleeps}
    env = ENV.replace(", transaction_per_migration=True", "")
    project = make_project(tmp_path, revisions, schemas(database, "acme"), env)
    await project.upgrade("r1")
    (clone,) = (await orchestrator.rehearse(project.fleet, tenants=["acme"])).as_json()["clones"]
    assert any("one transaction" in note for note in clone["notes"])
    first, second = clone["revisions"]
    for up in ("up", "again"):
        held = {lock["held_ms"] for lock in first[up]["locks"] if lock["mode"] == "AccessExclusiveLock"}
        # r2 takes it, and r3 sleeps before anything is committed.
        assert max(held) >= 500
        assert first[up]["transaction_ms"] >= 500 > second[up]["transaction_ms"] >= 300


async def test_who_is_picked(tmp_path: Path, database: str) -> None:
    """Without a word, the largest, the oldest and the most drifted are cloned; a glob says among whom."""
    ids = ("acme", "bluebird", "cobalt", "dunes")
    # In this order: who is made first by a run depends on how busy the machine is.
    execute(database, "; ".join(f"CREATE SCHEMA {name}" for name in ids))
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": HEAVY}, *ids)
    execute(database, "INSERT INTO cobalt.notes SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
    execute(database, "CREATE INDEX odd ON bluebird.notes (body); ANALYZE cobalt.notes")
    report = await orchestrator.rehearse(project.fleet)
    picked = {clone["tenant"]: clone["picked"] for clone in report.as_json()["clones"]}
    assert picked == {"cobalt": ["largest"], "acme": ["oldest"], "bluebird": ["most drifted"]}
    assert report.as_json()["estimate"]["tenants"] == 4
    among = await orchestrator.rehearse(project.fleet, tenants=["d*"], clones=Clones(down=False))
    assert [clone["tenant"] for clone in among.as_json()["clones"]] == ["dunes"]
    every = await orchestrator.rehearse(project.fleet, tenants=["d*"], clones=Clones(pick=("all",), schema_only=True))
    assert [clone.picked for clone in every.clones] == [("all",)]


async def test_what_is_put_off_to_the_commit(tmp_path: Path, database: str) -> None:
    """Constraints and triggers that are deferred count for the locks that are held meanwhile, and for the estimate."""
    late = """
def upgrade():
    op.execute("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS"
               " $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$")
    op.execute("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED"
               " FOR EACH ROW EXECUTE FUNCTION late()")
    op.execute("INSERT INTO notes VALUES (7)")

def downgrade():
    op.execute("DELETE FROM notes")
    op.execute("DROP FUNCTION late CASCADE")
"""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": late}, "acme")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert clone["ok"], json.dumps(clone, indent=1)
    for up in (clone["revisions"][0]["up"], clone["revisions"][0]["again"]):
        assert {lock["held_ms"] >= 300 for lock in up["locks"]} == {True}
        assert min(up["sql_ms"], up["duration_ms"], up["transaction_ms"]) >= 300


async def test_extensions(tmp_path: Path, database: str) -> None:
    """Extensions that the tenant uses are in its clone; one that reaches other servers is not, unless allowed."""
    execute(database, "CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION dblink SCHEMA public")
    mails = 'op.execute("CREATE TABLE mails (mail public.citext)")'
    calls = 'op.execute("SELECT public.dblink_get_connections() FROM mails")'
    project = await behind(tmp_path, database, {"r1": mails, "r2": calls}, "acme")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert "dblink_get_connections() does not exist" in clone["error"]["message"]
    report = await orchestrator.rehearse(project.fleet, clones=Clones(allow_outside=True))
    assert report.as_json()["clones"][0]["error"] is None
    file = tmp_path / "alembic" / "versions" / "r2.py"
    file.write_text(file.read_text().replace("FROM mails", "/* dblink */"))
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert "may reach other servers by dblink" in clone["error"]["message"]


async def test_shared_tables_come_along(tmp_path: Path, database: str) -> None:
    """Tables of other schemas that the tenant refers to come with rows, others of these without; both are copies."""
    execute(database, "CREATE TABLE public.plans (code text PRIMARY KEY); INSERT INTO public.plans VALUES ('free')")
    execute(database, "CREATE TABLE public.secrets (name text); INSERT INTO public.secrets VALUES ('x')")
    refers = """
def upgrade():
    op.create_table("accounts", sa.Column("plan", sa.Text, sa.ForeignKey("public.plans.code")))
    op.execute("INSERT INTO accounts VALUES ('free')")
"""
    counts = """
def upgrade():
    op.execute("DELETE FROM public.secrets")
    op.execute("UPDATE public.plans SET code = code || '!' WHERE code NOT IN (SELECT plan FROM accounts)")
    op.execute("ALTER TABLE accounts ADD CONSTRAINT seen CHECK (plan = 'free')")

def downgrade():
    op.drop_constraint("seen", "accounts")
"""
    project = await behind(tmp_path, database, {"r1": refers, "r2": counts}, "acme", "globex")
    (clone,) = (await orchestrator.rehearse(project.fleet, tenants=["acme"])).as_json()["clones"]
    assert clone["error"] is None, clone
    # Not globex, whom the shared table leads to as well.
    assert clone["notes"] == ["of the schemas that it shares (public), only tables that it refers to have rows"]
    assert clone["revisions"][0]["up"]["rows_written"] == {}
    assert "public.plans" in {lock["table"] for lock in clone["revisions"][0]["up"]["locks"]}
    assert [row[0] for row in fetch(database, "SELECT name FROM public.secrets")] == ["x"]


async def test_no_row_leaves_a_tenant(tmp_path: Path, database: str) -> None:
    """With schema_only a clone has none of the tenant's rows, and stands where the tenant does; rows are made up."""
    parts = """
def upgrade():
    op.execute("CREATE TYPE colour AS ENUM ('red', 'blue')")
    op.execute('''CREATE TABLE owners (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name varchar(8) UNIQUE,
        since timestamptz NOT NULL, shade colour NOT NULL, price numeric(6, 2), tags text[] NOT NULL,
        doc jsonb NOT NULL, key uuid NOT NULL UNIQUE, twice integer GENERATED ALWAYS AS (id * 2) STORED)''')
    op.execute('''CREATE TABLE pets (id bigserial PRIMARY KEY, owner integer NOT NULL REFERENCES owners,
        mother bigint REFERENCES pets, born date)''')
    op.execute("CREATE TABLE strict (id integer CHECK (id < 0))")
"""
    counts = """
def upgrade():
    op.execute("UPDATE owners SET price = 1")
    op.execute("INSERT INTO pets (owner) SELECT min(id) FROM owners HAVING count(*) > 0")

def downgrade():
    pass
"""
    project = await behind(tmp_path, database, {"r1": parts, "r2": counts}, "acme")
    execute(database, "INSERT INTO acme.owners SELECT 1, 'mine', now(), 'red', 1, '{}', '{}', gen_random_uuid()")
    empty = (await orchestrator.rehearse(project.fleet, clones=Clones(schema_only=True))).as_json()["clones"][0]
    assert empty["error"] is None, empty
    assert empty["revisions"][0]["up"]["rows_written"] == {}
    made = (await orchestrator.rehearse(project.fleet, clones=Clones(schema_only=True, rows=300))).as_json()["clones"][
        0
    ]
    assert made["error"] is None, made
    assert made["revisions"][0]["up"]["rows_written"] == {"owners": 300, "pets": 1}
    assert any("no rows were made up for strict" in note for note in made["notes"])


async def test_databases(tmp_path: Path, make_database: Callable[..., str], pg: PostgresServer) -> None:
    """A tenant's database is dumped, or copied where nobody is connected; its settings hold in the clone."""
    url = make_database()
    name = url.rsplit("/", 1)[1]
    execute(url, f"ALTER DATABASE \"{name}\" SET app.colour = 'green'")
    asks = """
def upgrade():
    op.execute("INSERT INTO notes SELECT 1 WHERE current_setting('app.colour') = 'green'")

def downgrade():
    op.execute("DELETE FROM notes")
"""
    tenant = {"id": "acme", "isolation": "database", "database": name}
    text = json.dumps({"servers": {"main": {"url": pg.url}}, "tenants": [tenant]})
    project = make_project(tmp_path, {"r1": NOTES, "r2": asks}, text)
    await project.upgrade("r1")
    for clones, way, connected in (
        (Clones(), "pg_dump", False),
        (Clones(template=True), "template", False),
        (Clones(template=True), "pg_dump", True),
    ):
        held = await asyncpg.connect(url) if connected else None
        (clone,) = (await orchestrator.rehearse(project.fleet, clones=clones)).as_json()["clones"]
        if held is not None:
            await held.close()
            assert "somebody is connected" in clone["notes"][0]
        assert (clone["error"], clone["ok"], clone["way"]) == (None, True, way)
        assert clone["revisions"][0]["up"]["rows_written"] == {"notes": 1}
    assert left(pg) == []


async def test_files(tmp_path: Path) -> None:
    """A SQLite tenant is copied beside its file; what SQLite does not tell is said, and the file stays as it was."""
    heavy = """
def upgrade():
    with op.batch_alter_table("notes") as batch:
        batch.alter_column("body", type_=sa.String(100))
    op.execute("UPDATE notes SET body = 'x'")

def downgrade():
    with op.batch_alter_table("notes") as batch:
        batch.alter_column("body", type_=sa.Text)
"""
    data = tmp_path / "data"
    project = make_project(tmp_path, {"r1": NOTES, "r2": heavy}, files(data, "acme", "globex"))
    await project.upgrade("r1")
    with sqlite3.connect(data / "acme.db") as connection:
        connection.executemany("INSERT INTO notes (id) VALUES (?)", [(number,) for number in range(100)])
    connection.close()
    before = (data / "acme.db").read_bytes()
    left_behind = data / ".orchestrator_scratch_0123456789abcdef"
    left_behind.mkdir()
    (left_behind / "acme.db").write_bytes(before)
    report = await orchestrator.rehearse(project.fleet, tenants=["acme"])
    (clone,) = report.as_json()["clones"]
    assert (clone["ok"], clone["way"]) == (True, "copy"), clone
    up = clone["revisions"][0]["up"]
    assert [each["table"] for each in up["rewritten"]] == ["notes"]
    assert up["rows_written"][""] >= 200  # copied by Alembic, then updated
    assert (up["locks"], up["wal_bytes"]) == ([], None)
    assert up["transaction_ms"] > 0
    assert any("whoever writes has the whole file" in each for each in clone["not_measured"])
    assert report.as_json()["estimate"]["tenants"] == 2
    assert (data / "acme.db").read_bytes() == before
    assert [path.name for path in data.glob(".orchestrator_scratch*")] == []


async def test_a_run_is_compared(tmp_path: Path, database: str) -> None:
    """A rehearsal is in the journal, and the run that follows it says how it compared; status is not misled by it."""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": HEAVY}, "acme", "globex")
    rehearsal = await orchestrator.rehearse(project.fleet)
    kept = await orchestrator.show_run(project.fleet, rehearsal.run.id)
    assert kept.rehearsal == rehearsal.as_json()
    assert (await orchestrator.status(project.fleet)).noticed == {}
    run = await orchestrator.upgrade(project.fleet)
    shown = (await orchestrator.show_run(project.fleet, run.run.id)).as_json()
    assert shown["rehearsed"]["rehearsal"] == rehearsal.run.id
    assert shown["rehearsed"]["tenants"] == 2
    assert shown["rehearsed"]["measured_s"] >= 0.2
    assert shown["rehearsed"]["s"] >= 0.2
    # What rehearsed other files has nothing to say of this run.
    (tmp_path / "alembic" / "versions" / "r2.py").write_text(
        (tmp_path / "alembic" / "versions" / "r2.py").read_text() + "\n# edited\n"
    )
    await orchestrator.downgrade(
        project.fleet, "r1", tenants=["*"], execution=orchestrator.Execution(accept_edited=("r2",))
    )
    again = await orchestrator.upgrade(project.fleet, execution=orchestrator.Execution(accept_edited=("r2",)))
    assert "rehearsed" not in (await orchestrator.show_run(project.fleet, again.run.id)).as_json()


async def test_nothing_pending(tmp_path: Path, database: str) -> None:
    """Where nobody has anything pending, nothing is cloned, and what a killed rehearsal left is cleared anyway."""
    project = await behind(tmp_path, database, {"r1": NOTES}, "acme")
    execute(database, 'CREATE SCHEMA "orchestrator_scratch_0123456789abcdef"')
    execute(database, 'CREATE DATABASE "orchestrator_scratch_fedcba9876543210"')
    findings = {each.check: each for each in (await orchestrator.doctor(project.fleet)).findings}
    assert "orchestrator_scratch_fedcba9876543210" in findings["scratch"].message
    report = await orchestrator.rehearse(project.fleet)
    assert (report.clones, report.exit_code) == ((), 0)
    assert fetch(database, "SELECT 1 FROM pg_namespace WHERE starts_with(nspname, 'orchestrator')") == []
    assert fetch(database, "SELECT 1 FROM pg_database WHERE starts_with(datname, 'orchestrator')") == []


async def test_who_is_not_reached_is_not_known_to_have_nothing_pending(tmp_path: Path, database: str) -> None:
    """A server that is away is no answer: not "nothing pending", neither beside tenants that are current nor alone."""
    project = await behind(tmp_path, database, {"r1": NOTES}, "acme")
    tenants = [{"id": "acme"}, {"id": "away", "url": "postgresql://postgres@127.0.0.1:1/app"}]
    text = json.dumps({"servers": {"main": {"url": database}}, "tenants": tenants})
    (tmp_path / "tenants.yaml").write_text(text, encoding="utf-8")
    report = await orchestrator.rehearse(project.fleet)
    document = report.as_json()
    assert (report.exit_code, document["ok"], document["not_reached"]) == (1, False, ["away"])
    assert verdict(document) == "nothing was rehearsed: what is pending to r1 for away is not known: not reached"
    kept = await orchestrator.show_run(project.fleet, report.run.id)
    assert kept.run.status.value == "failed"
    with pytest.raises(ServerUnreachable, match="what is pending is not known") as caught:
        await orchestrator.rehearse(project.fleet, tenants=["aw*"])
    assert caught.value.exit_code == 2


async def test_who_would_be_left_alone_is_not_rehearsed(tmp_path: Path, database: str) -> None:
    """Where everybody concerned is at a revision that nobody knows, nothing was rehearsed, and that is not fine."""
    project = await behind(tmp_path, database, {"r1": NOTES}, "acme")
    execute(database, "UPDATE acme.alembic_version SET version_num = 'feed'")
    report = await orchestrator.rehearse(project.fleet)
    assert (report.exit_code, report.as_json()["left_alone"]) == (1, ["acme"])
    assert verdict(report.as_json()) == "nothing was rehearsed: an upgrade to r1 would leave alone acme"


async def test_all_revisions_in_one_transaction(tmp_path: Path, database: str) -> None:
    """Where all revisions are one transaction, a lock counts to the end of the last one."""
    first = 'op.add_column("notes", sa.Column("a", sa.Text))'
    revisions = {
        "r1": NOTES,
        "r2": f'def upgrade():\n    {first}\n\ndef downgrade():\n    op.drop_column("notes", "a")',
        "r3": 'def upgrade():\n    op.execute("SELECT pg_sleep(0.3)")\n\ndef downgrade():\n    pass',
    }
    project = await behind(tmp_path, database, revisions, "acme")
    env = tmp_path / "alembic" / "env.py"
    env.write_text(env.read_text().replace("transaction_per_migration=True", "transaction_per_migration=False"))
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    again = clone["revisions"][0]["again"]
    assert again["locks"][0]["held_ms"] >= 300 > again["duration_ms"]


async def test_rights(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """A role that may not make databases is told so; one that does not own the tenant's tables, what that means."""
    execute(database, "CREATE ROLE rehearser LOGIN PASSWORD 'x'; GRANT pg_read_all_data TO rehearser")
    try:
        project = await behind(tmp_path, database, {"r1": NOTES, "r2": HEAVY}, "acme")
        execute(database, "GRANT ALL ON SCHEMA acme TO rehearser; GRANT ALL ON ALL TABLES IN SCHEMA acme TO rehearser")
        (tmp_path / "tenants.yaml").write_text(schemas(with_role(database, "rehearser", "x"), "acme"))
        (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
        assert "may not make one" in clone["error"]["message"]
        assert "CREATEDB" in clone["error"]["hint"]
        execute(database, "ALTER ROLE rehearser CREATEDB")
        (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
        assert clone["ok"], json.dumps(clone, indent=1)
        assert any("acme.notes (owner:" in note for note in clone["notes"])
    finally:
        execute(database, "DROP OWNED BY rehearser; DROP ROLE rehearser")


async def test_a_busy_tenant(tmp_path: Path, database: str) -> None:
    """Who writes is not waited for; a table that somebody has for himself is waited for no longer than told."""
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": HEAVY}, "acme")
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            await other.execute("INSERT INTO acme.notes VALUES (1)")
            (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
            assert clone["ok"], json.dumps(clone, indent=1)
            await other.execute("LOCK TABLE acme.notes IN ACCESS EXCLUSIVE MODE")
            limits = orchestrator.Execution(limits=Limits(lock_timeout=0.2))
            (clone,) = (await orchestrator.rehearse(project.fleet, execution=limits)).as_json()["clones"]
            assert "waited longer than 0.2 s for a lock" in clone["error"]["message"]
    finally:
        await other.close()


def test_the_command(project: CommandLine) -> None:
    """The command tells people the verdict and the estimate first; --json is the whole; runs show has both."""
    project.fleet("acme", "globex")
    project.json("upgrade", FIRST)
    before = project.catalog()
    result = project.run("rehearse", "-t", "acme")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"rehearsed to {THIRD} on 1 clone: up, down and up, each time the same"
    assert lines[1].startswith("a run over 2 tenants takes about ")
    assert "AccessExclusiveLock" in result.stdout
    assert "acme (named): cloning" in result.stderr
    document = project.json("rehearse", "-t", "acme")
    assert [one["revision"] for one in document["clones"][0]["revisions"]] == [SECOND, THIRD]
    assert project.heads("acme") == [FIRST]
    assert project.catalog() == before
    assert project.run("runs", "show", document["run"]).stdout.startswith("rehearsed to")
    assert project.run("rehearse", "-t", "acme", "--md").stdout.startswith("# Rehearsal ")
    assert project.json("runs", "list")["runs"][0]["command"] == "rehearse"


def test_bad_input(project: CommandLine) -> None:
    """Mistakes are told before anything is cloned, with what to type."""
    project.fleet("acme")
    project.json("upgrade", FIRST)
    assert_error(project.run("rehearse", "-t", "acmee"), "did you mean 'acme'?")
    assert_error(project.run("rehearse", "--pick", "biggest"), "largest, oldest, drifted, all")
    assert_error(project.run("rehearse", "--rows", "5"), "add --schema-only")
    assert_error(project.run("rehearse", "nonsense"), "nonsense")
