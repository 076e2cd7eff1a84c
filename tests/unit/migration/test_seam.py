"""Alembic per task: every tenant finds its own ``op`` and ``context``, or tenants go one at a time."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import alembic.context
import alembic.op
import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.util import await_only, greenlet_spawn

from orchestrator.actions.project import migrating, opened_project
from orchestrator.migration import seam
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus
from tests.projects import files, make_project, one, statuses

IDS = [f"t{number}" for number in range(50)]
#: Asks the database for its own name between all steps, and notes who each of Alembic's two modules speaks for.
WITNESS = """
def upgrade():
    import pathlib
    op.create_table("witness", sa.Column("tenant", sa.Text))
    for name in range(5):
        file = op.get_bind().exec_driver_sql("PRAGMA database_list").first()[2]
        tenant = pathlib.Path(file).stem
        op.execute(f"INSERT INTO witness VALUES ('{tenant}')")
        assert context.get_context() is op.get_context()
        assert context.get_context().opts["upgrade_token"] == tenant
        assert context.get_bind() is op.get_bind()
        assert context.config.get_main_option("script_location").endswith("alembic")
        assert context.script is not None

def downgrade():
    pass
"""
#: Marks each tenant's context with something that a migration can compare.
ENV = """
from alembic import context
from orchestrator import for_each_tenant


def migrate(connection, tenant):
    context.configure(connection=connection, transaction_per_migration=True, upgrade_token=tenant.id)
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
"""


class _Global:
    """A process global with a ContextVar's methods: what remains when tasks are not told apart."""

    def __init__(self) -> None:
        self.value: Any = None

    def get(self, default: Any = None) -> Any:
        return default if self.value is None else self.value

    def set(self, value: Any) -> Any:
        before, self.value = self.value, value
        return before

    def reset(self, before: Any) -> None:
        self.value = before


@pytest.fixture
def without_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatchers look into process globals, as Alembic's own proxies do."""
    monkeypatch.setattr(seam, "_environment", _Global())
    monkeypatch.setattr(seam, "_operations", _Global())


@pytest.fixture
def without_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alembic keeps its proxy somewhere else: what is put into its modules has no effect."""
    monkeypatch.setattr(seam, "_replaced", lambda namespace, name, value: closing(io.StringIO()))


@pytest.fixture
def stock(tmp_path: Path) -> EnvironmentContext:
    """A command of plain Alembic with a directory of its own, to be entered."""
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "stock"))
    return EnvironmentContext(config, ScriptDirectory(str(tmp_path)))


async def all_attempts(
    path: Path,
    concurrent: bool,
    body: str = WITNESS,
    ids: list[str] = IDS,
    inside: AbstractContextManager[Any] = nullcontext(),  # noqa: B008  does nothing
) -> dict[str, Outcome]:
    """Migrate a SQLite file for each id at once, through one Migrator, inside of something."""
    fleet = make_project(path, {"r1": body}, files(path / "data", *ids), ENV).fleet
    async with opened_project(fleet) as project:
        migrator = Migrator(
            project.fleet, project.history, project.loop, project.databases, provision=True, concurrent=concurrent
        )
        work = Work.of(project.history, "upgrade", "heads")
        with inside, migrating(migrator):
            outcomes = await asyncio.gather(*(migrator.attempt(tenant, work) for tenant in project.fleet.tenants))
    return dict(zip(ids, outcomes, strict=True))


def witnesses(path: Path) -> dict[str, set[str]]:
    """Whose statements each file has seen."""
    found = {}
    for id in IDS:
        with closing(sqlite3.connect(path / "data" / f"{id}.db")) as connection:
            found[id] = {row[0] for row in connection.execute("SELECT tenant FROM witness")}
    return found


async def test_self_check() -> None:
    """This Alembic can be taken apart, task by task."""
    assert await seam.self_check()


async def test_self_check_leaves_nothing_behind() -> None:
    """After the check Alembic's modules are as they were."""
    before = dict(vars(alembic.op)), dict(vars(alembic.context))

    await seam.self_check()

    assert (dict(vars(alembic.op)), dict(vars(alembic.context))) == before


async def test_self_check_inside_a_command(stock: EnvironmentContext) -> None:
    """Asked inside a command of plain Alembic the answer is the same, and its proxies stay."""
    with stock:
        assert await seam.self_check()
        assert alembic.context._proxy is stock


async def test_self_check_notices_tasks_that_share(without_tasks: None) -> None:
    """Where tasks overwrite each other's operations, the check says no."""
    assert not await seam.self_check()


async def test_self_check_notices_a_changed_alembic(without_dispatcher: None) -> None:
    """Where Alembic does not look at what was put into its modules, the check says no instead of raising."""
    assert not await seam.self_check()


async def test_fifty_tenants_at_once(tmp_path: Path) -> None:
    """Fifty interleaved migrations each speak to their own tenant through op and context."""
    outcomes = await all_attempts(tmp_path, concurrent=True)

    assert {id: outcome.status for id, outcome in outcomes.items()} == dict.fromkeys(IDS, TenantStatus.SUCCEEDED)
    assert witnesses(tmp_path) == {id: {id} for id in IDS}


async def test_fifty_tenants_one_at_a_time(tmp_path: Path, without_dispatcher: None) -> None:
    """Without the seam the same migrations run one after the other and are as right."""
    outcomes = await all_attempts(tmp_path, concurrent=False)

    assert {id: outcome.status for id, outcome in outcomes.items()} == dict.fromkeys(IDS, TenantStatus.SUCCEEDED)
    assert witnesses(tmp_path) == {id: {id} for id in IDS}


async def test_two_tasks_of_tenants(tmp_path: Path) -> None:
    """Two tasks that work through 25 tenants each, switching at every statement, keep their operations apart."""
    turns = [asyncio.Event(), asyncio.Event()]
    written: dict[int, list[str]] = {0: [], 1: []}

    async def turn(number: int) -> None:
        turns[1 - number].set()
        await turns[number].wait()
        turns[number].clear()

    def steps(number: int, tenant: int) -> Callable[..., list[Any]]:
        def run(_heads: Any, _context: Any) -> list[Any]:
            for _ in range(3):
                await_only(turn(number))
                alembic.op.execute(f"SELECT {number}, {tenant}")
            return []

        return run

    def migrate(number: int) -> None:
        for tenant in range(25):
            buffer = io.StringIO()
            options = {"as_sql": True, "output_buffer": buffer, "fn": steps(number, tenant)}
            with seam.TaskEnvironment(Config(), ScriptDirectory(str(tmp_path)), **options):
                alembic.context.configure(dialect_name="sqlite")
                await_only(turn(number))
                alembic.context.run_migrations()
            written[number].append(buffer.getvalue())

    async def task(number: int) -> None:
        try:
            await greenlet_spawn(migrate, number)
        finally:
            turns[1 - number].set()

    with seam.installed():
        await asyncio.gather(task(0), task(1))

    for number in (0, 1):
        for tenant, text in enumerate(written[number]):
            assert text.split(";")[:3] == [f"SELECT {number}, {tenant}", *[f"\n\nSELECT {number}, {tenant}"] * 2]


@pytest.mark.parametrize("surround", [seam.installed, seam.one_at_a_time])
def test_surrounding_command_gets_its_proxies_back(stock: EnvironmentContext, surround: Callable[..., Any]) -> None:
    """Inside a command of plain Alembic, op and context are put back, also after an error."""
    kind = seam.TaskEnvironment if surround is seam.installed else EnvironmentContext
    with stock:
        before = dict(vars(alembic.op)), dict(vars(alembic.context))

        with pytest.raises(ZeroDivisionError), surround(), kind(Config(), stock.script):
            raise ZeroDivisionError

        assert (dict(vars(alembic.op)), dict(vars(alembic.context))) == before
        assert alembic.context._proxy is stock
        assert alembic.context.config is stock.config


@pytest.mark.parametrize("concurrent", [True, False])
async def test_migration_inside_a_command(tmp_path: Path, stock: EnvironmentContext, concurrent: bool) -> None:
    """A migration that runs inside a command of plain Alembic sees its own config, script, op and context."""
    body = """
        assert context.config.get_main_option("script_location").endswith("alembic"), context.config
        assert context.script.dir.endswith("alembic")
        assert context.get_context() is op.get_context()
    """
    outcomes = await all_attempts(tmp_path, concurrent, body, ["a", "b"], inside=stock)

    assert [(each.status, each.failure) for each in outcomes.values()] == [(TenantStatus.SUCCEEDED, None)] * 2


def test_outside_of_a_migration_there_is_no_op() -> None:
    """While tenants are migrated, whoever is none of them cannot use op by mistake."""
    with seam.installed(), pytest.raises(NameError, match="outside of a tenant's migration"):
        alembic.op.execute("SELECT 1")


def test_outside_of_a_migration_there_is_no_config() -> None:
    """The same holds for the attributes of alembic.context."""
    with seam.installed(), pytest.raises(AttributeError, match="config"):
        alembic.context.config  # noqa: B018  the reading is what raises


async def test_upgrade_falls_back(tmp_path: Path, without_tasks: None) -> None:
    """A run whose self-check says no migrates every tenant, and rightly, one at a time."""
    project = make_project(tmp_path, {"r1": WITNESS}, files(tmp_path / "data", *IDS), ENV)

    result = await project.upgrade()

    assert statuses(result) == dict.fromkeys(IDS, "succeeded")
    assert witnesses(tmp_path) == {id: {id} for id in IDS}
    spans = sorted((each.started_at, each.finished_at) for each in result.tenants)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    assert one(result, "t0")["path"] == "alembic"
