"""A run is taken back: each tenant to its own heads before it, with nothing left over and nobody else touched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.actions.project import opened_project
from orchestrator.fleet.fleet import FailureBudget
from tests.projects import (
    ALL,
    Project,
    files,
    held,
    make_project,
    one,
    schemas,
    statuses,
    tables,
    waiting_backend,
)
from tests.replays import EMPTY, paths
from tests.rollbacks import LINE, heads, table
from tests.servers import execute, fetch

IDS = ("a", "b", "c", "d", "e")
#: Where the second and later revisions of a test stop until the gate is opened.
GATE = 77


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


def none(*variables: str) -> str:
    """A revision that does nothing: a merge."""
    return "\n".join([*variables, "def upgrade():", "    pass", "def downgrade():", "    pass"])


#: Two lines that are joined and go on, and one that needs the first.
BRANCHED = {
    "a1": table("a1"),
    "a2": table("a2"),
    "b1": table("b1", "down_revision = None"),
    "b2": table("b2"),
    "m": none('down_revision = ("a2", "b2")'),
    "n": table("n"),
    "c1": table("c1", "down_revision = None", 'depends_on = ("a1",)'),
}
#: Heads that tenants may have there.
PLACES = [
    (),
    ("a1",),
    ("a2",),
    ("b1",),
    ("a1", "b2"),
    ("a2", "b2"),
    ("c1",),
    ("b1", "c1"),
    ("a2", "c1"),
    ("m",),
    ("n",),
]


async def shapes(project: Project) -> dict[str, str]:
    """The fingerprint of what every tenant holds."""
    found: dict[str, str] = {}
    async with opened_project(project.fleet) as opened:
        for name, database in opened.databases.items():
            here = [tenant for tenant in opened.fleet.tenants if tenant.server == name]
            found |= await database.fingerprints(here, opened.loop.version_table)
    return found


async def brought_to(project: Project, tenants: list[str], revisions: Iterable[str]) -> None:
    """Bring tenants to these heads."""
    for revision in revisions:
        result = await project.upgrade(revision, tenants=tenants)
        assert result.satisfied, result.as_json()


@pytest.mark.parametrize("replay", [True, False], ids=["replayed", "through Alembic"])
async def test_each_to_its_own_heads(tmp_path: Path, database: str, replay: bool) -> None:
    """Tenants that began at eleven places of a history with branches, a merge and a dependency are there again."""
    ids = [f"t{number}{kind}" for number in range(len(PLACES)) for kind in "xyz"]
    project = make_project(tmp_path, BRANCHED, schemas(database, *ids, "other"))
    # Their version tables are there in any case.
    await project.upgrade("a1")
    await project.downgrade("base", tenants=[*ids, "other"])
    for number, place in enumerate(PLACES):
        await brought_to(project, [f"t{number}{kind}" for kind in "xyz"], place)
    await brought_to(project, ["other"], ("n",))
    await project.upgrade(tenants=["other"])
    before, there = await shapes(project), await heads(project)
    rows = fetch(database, "SELECT xmin::text, ctid::text, version_num FROM other.alembic_version ORDER BY 3")

    up = await project.upgrade("heads", tenants=["t*"])
    back = await orchestrator.rollback(project.fleet, up.run.id, execution=Execution(replay=replay))

    assert set(statuses(up).values()) == {"succeeded"}
    assert set(statuses(back).values()) == {"succeeded"}
    assert await heads(project) == there
    assert await shapes(project) == before
    assert ("replay" in paths(back).values()) == replay
    assert "other" not in statuses(back)
    assert fetch(database, "SELECT xmin::text, ctid::text, version_num FROM other.alembic_version ORDER BY 3") == rows


async def test_files(tmp_path: Path) -> None:
    """SQLite tenants go back as well."""
    project = make_project(tmp_path, LINE, files(tmp_path / "files", *IDS))
    await project.upgrade("r1")
    before = await shapes(project)

    up = await project.upgrade("heads")
    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == dict.fromkeys(IDS, "succeeded")
    assert await shapes(project) == before


async def test_the_journal_tells(tmp_path: Path, database: str) -> None:
    """A rollback is a run of its own: what it took back, from where to where, revision by revision."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    await project.upgrade("r1", tenants=["a"])
    up = await project.upgrade("heads")
    back = await orchestrator.rollback(project.fleet, up.run.id)

    shown = await orchestrator.show_run(project.fleet, "last")

    assert shown.as_json() == back.as_json()
    assert (shown.run.command, shown.run.requested_target) == ("rollback", up.run.id)
    assert (one(shown, "a")["from"], one(shown, "a")["to"]) == (["r3"], ["r1"])
    assert (one(shown, "b")["from"], one(shown, "b")["to"]) == (["r3"], [])
    assert next(run.command for run, _ in (await orchestrator.list_runs(project.fleet)).runs) == "rollback"


async def test_twice(tmp_path: Path, database: str) -> None:
    """A second rollback of the run finds everybody back already, and that is no failure."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    up = await project.upgrade()
    await orchestrator.rollback(project.fleet, up.run.id)

    again = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(again) == dict.fromkeys(IDS, "already_current")
    assert again.satisfied


async def test_some_of_them(tmp_path: Path, database: str) -> None:
    """A selection narrows whom the run changed; whom it did not change cannot be selected."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    await project.upgrade(tenants=["e"])
    up = await project.upgrade()
    assert statuses(up)["e"] == "already_current"

    back = await orchestrator.rollback(project.fleet, up.run.id, tenants=["a", "e"])
    with pytest.raises(orchestrator.OrchestratorError, match="changed none of the selected tenants"):
        await orchestrator.rollback(project.fleet, up.run.id, tenants=["e"])

    assert statuses(back) == {"a": "succeeded"}
    assert await heads(project) == {"a": (), **dict.fromkeys(IDS[1:], ("r3",))}


async def test_moved_on(tmp_path: Path, database: str) -> None:
    """Whom a later run took further is blocked, by that run's name; the others go back. Told to, it goes along."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    first = await project.upgrade("r1")
    before = await shapes(project)
    second = await project.upgrade("r2")
    third = await project.upgrade("r3", tenants=["a"])

    back = await orchestrator.rollback(project.fleet, second.run.id)

    assert statuses(back) == {**dict.fromkeys(IDS, "succeeded"), "a": "blocked"}
    assert not back.satisfied
    error = one(back, "a")["error"]
    assert error["type"] == "moved_on"
    assert third.run.id in error["message"]
    assert f"orchestrator rollback {third.run.id} -t a" in error["hint"]
    assert f"orchestrator rollback {second.run.id} -t a --to-before" in error["hint"]
    assert (await heads(project))["a"] == ("r3",)

    along = await orchestrator.rollback(project.fleet, second.run.id, tenants=["a"], to_before=True)
    assert statuses(along) == {"a": "succeeded"}
    assert await shapes(project) == before

    # Whoever has gone back by the way of later runs, one after the other, is where the first one left it.
    assert statuses(await orchestrator.rollback(project.fleet, first.run.id)) == dict.fromkeys(IDS, "succeeded")


async def test_later_runs_one_by_one(tmp_path: Path, database: str) -> None:
    """A later run that was itself taken back, or changed nothing, is in nobody's way."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    first = await project.upgrade("r1")
    second = await project.upgrade("r2")
    await project.upgrade("r2")
    await orchestrator.rollback(project.fleet, second.run.id)

    assert statuses(await orchestrator.rollback(project.fleet, first.run.id)) == {"a": "succeeded"}


async def test_moved_by_others(tmp_path: Path, database: str) -> None:
    """What moved the tenant may be in no journal; taken further back than the run began, it is told the way forward."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    await project.upgrade("r1")
    up = await project.upgrade("r2")
    execute(database, "UPDATE a.alembic_version SET version_num = 'r3'; DELETE FROM b.alembic_version")

    back = await orchestrator.rollback(project.fleet, up.run.id)
    along = await orchestrator.rollback(project.fleet, up.run.id, to_before=True, tenants=["b"])

    assert statuses(back) == {"a": "blocked", "b": "blocked"}
    assert "the journal does not know" in one(back, "a")["error"]["message"]
    assert "--to-before" in one(back, "a")["error"]["hint"]
    assert "orchestrator upgrade r1 -t b" in one(back, "b")["error"]["hint"]
    assert statuses(along) == {"b": "blocked"}


async def test_moved_on_meanwhile(tmp_path: Path, database: str) -> None:
    """Heads are judged again under the tenant's lock: who is moved on between plan and turn is left alone."""
    gated = {**LINE, "r2": table("r2", down=f'op.execute("SELECT pg_advisory_xact_lock({GATE})")')}
    project = make_project(tmp_path, gated, schemas(database, "a", "b"))
    await project.upgrade("r1")
    up = await project.upgrade("r2")
    async with held(database, GATE) as gate:
        running = asyncio.create_task(
            orchestrator.rollback(project.fleet, up.run.id, execution=Execution(jobs=1, replay=False))
        )
        await waiting_backend(gate)
        assert (await project.upgrade("r3", tenants=["b"])).satisfied
    back = await running

    assert statuses(back) == {"a": "succeeded", "b": "blocked"}
    assert one(back, "b")["error"]["type"] == "moved_on"
    assert tables(database, "b") == {"alembic_version", "r1", "r2", "r3"}


async def test_half_a_run(tmp_path: Path, database: str) -> None:
    """Tenants that failed after some of the run's revisions, and those that it did not reach, are as they were."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    await project.upgrade("r1")
    before = await shapes(project)
    execute(database, "CREATE TABLE b.r3 (id int)")
    up = await project.upgrade("r3", execution=Execution(jobs=1))
    assert statuses(up) == {"a": "succeeded", "b": "failed", "c": "not_started", "d": "not_started", "e": "not_started"}
    assert one(up, "b")["to"] == ["r2"]

    back = await orchestrator.rollback(project.fleet, up.run.id)

    execute(database, "DROP TABLE b.r3")
    assert statuses(back) == {"a": "succeeded", "b": "succeeded"}
    assert await shapes(project) == before


async def test_budget_and_resume(tmp_path: Path, database: str) -> None:
    """A failure stops it; after the fix, resume takes back what is left, also what was half way."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    await project.upgrade("r1")
    before = await shapes(project)
    up = await project.upgrade("r3")
    # Something of the operator's hangs on it in one tenant.
    execute(database, "CREATE VIEW b.mine AS SELECT * FROM b.r2")

    back = await orchestrator.rollback(project.fleet, up.run.id, execution=Execution(jobs=1, replay=False))

    assert statuses(back) == {
        "a": "succeeded", "b": "failed", "c": "not_started", "d": "not_started", "e": "not_started"
    }  # fmt: skip
    assert (one(back, "b")["to"], one(back, "b")["error"]["revision"]) == (["r2"], "r2")

    execute(database, "DROP VIEW b.mine")
    done = await orchestrator.resume(project.fleet)

    assert statuses(done) == dict.fromkeys(IDS, "succeeded")
    assert (done.run.id, done.run.command) == (back.run.id, "rollback")
    assert one(done, "a") == one(back, "a")
    assert (one(done, "b")["from"], one(done, "b")["to"]) == (["r3"], ["r1"])
    assert await shapes(project) == before


async def test_again_instead_of_resume(tmp_path: Path, database: str) -> None:
    """Half way back is not moved on: another rollback of the run does the rest."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    up = await project.upgrade("r3")
    execute(database, "CREATE VIEW a.mine AS SELECT * FROM a.r2")
    await orchestrator.rollback(project.fleet, up.run.id)
    execute(database, "DROP VIEW a.mine")

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert (statuses(back), one(back, "a")["from"]) == ({"a": "succeeded"}, ["r2"])
    assert tables(database, "a") == {"alembic_version"}


async def test_failures_by_the_budget(tmp_path: Path, database: str) -> None:
    """The failure budget is the rollback's own."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    up = await project.upgrade("r2")
    execute(database, "CREATE VIEW b.mine AS SELECT * FROM b.r2; CREATE VIEW c.mine AS SELECT * FROM c.r2")

    one_may = Execution(jobs=1, max_failures=FailureBudget(count=1), replay=False)
    back = await orchestrator.rollback(project.fleet, up.run.id, execution=one_may)

    assert statuses(back) == {
        "a": "succeeded", "b": "failed", "c": "failed", "d": "not_started", "e": "not_started"
    }  # fmt: skip


async def test_no_way_back(tmp_path: Path, database: str) -> None:
    """A revision without a way back blocks those who have it, before anything is done to them; the others go back."""
    oneway = "def upgrade():\n    op.execute('SELECT 1')\ndef downgrade():\n    raise NotImplementedError\n"
    project = make_project(tmp_path, {**LINE, "r4": oneway, "r5": table("r5")}, schemas(database, "a", "b"))
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE b.r3 (id int)")
    up = await project.upgrade("heads", execution=ALL)
    assert one(up, "b")["to"] == ["r2"]

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked", "b": "succeeded"}
    error = one(back, "a")["error"]
    assert error["type"] == "irreversible"
    assert "r4.py" in error["message"]
    assert (await heads(project))["a"] == ("r5",)


async def test_gone_from_the_fleet(tmp_path: Path, database: str) -> None:
    """A tenant that tenants.yaml no longer has is reported and left alone."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    up = await project.upgrade()
    (tmp_path / "tenants.yaml").write_text(schemas(database, "b"))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "skipped", "b": "succeeded"}
    assert one(back, "a")["error"]["type"] == "gone"


@pytest.mark.parametrize("command", ["downgrade", "stamp", "rollback"])
async def test_only_upgrades(tmp_path: Path, database: str, command: str) -> None:
    """A run that took revisions back, or only wrote a version, is not rolled back: the way on is named."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    up = await project.upgrade()
    if command == "downgrade":
        await project.downgrade("r1", everyone=True)
    elif command == "stamp":
        await orchestrator.stamp(project.fleet, "r1", everyone=True)
    else:
        await orchestrator.rollback(project.fleet, up.run.id)

    with pytest.raises(orchestrator.OrchestratorError, match=f"is a {command}") as raised:
        await orchestrator.rollback(project.fleet, "last")
    assert raised.value.hint


async def test_nobody_changed(tmp_path: Path, database: str) -> None:
    """A run that changed nobody is taken back by doing nothing."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    await project.upgrade()
    idle = await project.upgrade()

    back = await orchestrator.rollback(project.fleet, idle.run.id)

    assert (statuses(back), back.satisfied) == ({}, True)
    assert (await heads(project))["a"] == ("r3",)


async def test_plan(tmp_path: Path, database: str) -> None:
    """The plan says who goes back how, in whose SQL, and who is blocked; nothing is touched."""
    project = make_project(tmp_path, BRANCHED, schemas(database, *IDS))
    await project.upgrade("a2", tenants=["a", "b"])
    up = await project.upgrade("m")
    await project.upgrade("heads", tenants=["e"])
    before = await shapes(project)

    document = (await orchestrator.plan_rollback(project.fleet, up.run.id, sql=True)).as_json()

    assert [(each["from"], each["to"], each["revisions"]) for each in document["cohorts"]] == [
        (["m"], ["a2"], ["m", "b2", "b1"]),
        (["m"], [], ["m", "a2", "a1", "b2", "b1"]),
    ]
    assert "DROP TABLE b1" in document["cohorts"][0]["sql"]
    assert [each["tenant"] for each in document["blocked"]] == ["e"]
    assert {hazard["revision"] for hazard in document["hazards"]} == {"a1", "a2", "b1", "b2"}
    assert await shapes(project) == before
    assert [run.command for run, _ in (await orchestrator.list_runs(project.fleet)).runs] == ["upgrade"] * 3


async def test_what_is_lost(tmp_path: Path, database: str) -> None:
    """What going back throws away is found in source and SQL, and told with the largest table and the sum of all."""
    narrower = """
        NAMES = ("body",)

        def upgrade():
            op.alter_column("r1", "body", existing_type=sa.Text(), type_=sa.String(500))
        def downgrade():
            op.alter_column("r1", "body", existing_type=sa.String(500), type_=sa.String(5))
            for name in NAMES:
                op.execute(" ".join(["DELETE FROM", "r1"]))
    """
    nothing = "def upgrade():\n    op.execute('SELECT 1')\ndef downgrade():\n    pass"
    revisions = {"r0": "pass", "r1": table("r1"), "r2": narrower, "r3": nothing}
    project = make_project(tmp_path, revisions, schemas(database, *IDS))
    await project.upgrade("r0")
    await project.upgrade("r1", tenants=["e"])
    up = await project.upgrade("r3")
    execute(database, "INSERT INTO a.r1 SELECT generate_series(1, 1000); ANALYZE a.r1")
    execute(database, "INSERT INTO b.r1 SELECT generate_series(1, 10); ANALYZE b.r1")

    report = await orchestrator.plan_rollback(project.fleet, up.run.id)

    hazards = report.as_json()["hazards"]
    assert [(each["revision"], each["kind"]) for each in hazards] == [
        ("r3", "empty_downgrade"),
        ("r2", "downgrade_loses_data"),
        ("r2", "downgrade_loses_data"),
        ("r1", "downgrade_loses_data"),
    ]
    typed, rows, dropped = hazards[1:]
    assert (typed["detail"], typed["table"]) == ("alter_column r1.body: String(500) to String(5)", "r1")
    assert (rows["detail"], rows["table"], rows["line"]) == ("DELETE FROM r1", "r1", 0)
    assert (dropped["detail"], dropped["tenants"], typed["tenants"]) == ("drop_table r1", 4, 5)
    assert dropped["largest"] == {"tenant": "a", "rows": 1000, "bytes": dropped["largest"]["bytes"]}
    assert dropped["total"]["rows"] == 1010
    assert dropped["total"]["bytes"] > dropped["largest"]["bytes"] > 1000


async def test_the_size_of_what_is_partitioned(tmp_path: Path, database: str) -> None:
    """A partitioned table is as large as its partitions."""
    partitioned = """
        def upgrade():
            op.execute("CREATE TABLE p (id int) PARTITION BY RANGE (id)")
            op.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000)")
        def downgrade():
            op.drop_table("p")
    """
    project = make_project(tmp_path, {"r1": partitioned}, schemas(database, "a"))
    up = await project.upgrade()
    execute(database, "INSERT INTO a.p SELECT generate_series(1, 500); ANALYZE a.p1")

    (loss,) = (await orchestrator.plan_rollback(project.fleet, up.run.id)).losses

    assert loss.largest is not None
    assert (loss.largest[0], loss.largest[1].rows) == ("a", 500)
    assert (loss.largest[1].bytes or 0) > 8000


#: Its downgrade leaves a table behind.
LEAVING = """
def upgrade():
    op.create_table("kept", sa.Column("id", sa.Integer))
    op.create_table("gone", sa.Column("id", sa.Integer))
def downgrade():
    op.drop_table("gone")
"""


@pytest.mark.parametrize("verify_all", [True, False], ids=["all looked at", "some looked at"])
async def test_not_as_before(tmp_path: Path, database: str, verify_all: bool) -> None:
    """Heads that are back do not prove that tables are: who is not as before has failed, until it is."""
    project = make_project(tmp_path, {"r1": table("r1"), "r2": LEAVING}, schemas(database, *IDS))
    await project.upgrade("r1")
    up = await project.upgrade("r2", execution=Execution(verify_all=verify_all))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == dict.fromkeys(IDS, "failed")
    assert {one(back, id)["error"]["type"] for id in IDS} == {"not_as_before"}
    assert await heads(project) == dict.fromkeys(IDS, ("r1",))
    assert (await orchestrator.show_run(project.fleet, "last")).as_json() == back.as_json()
    assert statuses(await orchestrator.resume(project.fleet)) == statuses(back)
    execute(database, "".join(f"DROP TABLE {id}.kept;" for id in IDS[1:]))

    again = await orchestrator.resume(project.fleet)

    assert statuses(again) == {"a": "failed", **dict.fromkeys(IDS[1:], "already_current")}


async def test_as_before_where_it_was_changed_by_hand(tmp_path: Path, database: str) -> None:
    """A tenant that its operator has changed since the run is not held to what it looked like before it."""
    project = make_project(tmp_path, LINE, schemas(database, *IDS))
    await project.upgrade("r1")
    up = await project.upgrade("r2", execution=Execution(verify_all=True))
    execute(database, "CREATE INDEX mine ON a.r1 (body)")

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == dict.fromkeys(IDS, "succeeded")


async def test_partly_replayed(tmp_path: Path, database: str) -> None:
    """Where one revision's downgrade reads the database, the others of the way back are replayed all the same."""
    reading = table("r2", down='assert op.get_bind().execute(sa.text("SELECT 1")).scalar() == 1')
    project = make_project(tmp_path, {**LINE, "r2": reading, "r4": table("r4")}, schemas(database, *IDS))
    await project.upgrade("r1")
    before = await shapes(project)
    up = await project.upgrade("r4")

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == dict.fromkeys(IDS, "succeeded")
    assert sorted(str(path) for path in paths(back).values()) == ["alembic", "alembic", "mixed", "mixed", "mixed"]
    assert await shapes(project) == before


async def test_half_done_by_many(tmp_path: Path, database: str) -> None:
    """Failures of three kinds in 8 % of a run over 120 tenants at three places; taken back, everybody is as before."""
    ids = [f"t{number:03}" for number in range(120)]
    broken = {id: number % 3 for number, id in enumerate(ids) if number % 13 == 5}
    project = make_project(tmp_path, BRANCHED, schemas(database, *ids, "other"))
    await project.upgrade("n", tenants=["other"])
    await project.upgrade("a1", tenants=ids[:84])
    await project.upgrade("b2", tenants=ids[:42])
    await project.upgrade("b1", tenants=ids[84:])
    before, there = await shapes(project), await heads(project)
    for id, kind in broken.items():
        # A table that is in the way, at the second revision and at the last; a type that is, at the merge's child.
        execute(
            database, (f"CREATE TABLE {id}.a2 ()", f"CREATE TABLE {id}.c1 ()", f"CREATE TYPE {id}.n AS ENUM ()")[kind]
        )
    up = await project.upgrade("heads", tenants=["t*"], execution=ALL)
    assert {id for id, status in statuses(up).items() if status == "failed"} == set(broken)

    back = await orchestrator.rollback(project.fleet, up.run.id, execution=ALL)

    for id, kind in broken.items():
        execute(database, (f"DROP TABLE {id}.a2", f"DROP TABLE {id}.c1", f"DROP TYPE {id}.n")[kind])
    assert back.satisfied
    assert await heads(project) == there
    assert await shapes(project) == before


async def test_back_to_nothing(tmp_path: Path, database: str) -> None:
    """Going back to base leaves an empty version table; a tenant that had none is not held to that."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    execute(database, "CREATE SCHEMA a")
    up = await project.upgrade(execution=Execution(verify_all=True))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert (statuses(back), tables(database, "a")) == ({"a": "succeeded"}, {"alembic_version"})
