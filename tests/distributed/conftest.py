"""Fixtures of the tests of distributed runs: one project with workers for a whole file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from orchestrator.actions.distributing.given import opened_engine
from orchestrator.actions.distributing.place import Place
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.stop import Stop
from tests.projects import Project, make_project, schemas, until
from tests.servers import PostgresServer, execute
from tests.workers import Worker, steered_project, tenants, workers

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Stage:
    """A project in which one executor is at work, with tenants of the test's own."""

    project: Project
    url: str
    #: ``None`` for the local one.
    executor: str | None
    #: Empty for the local one.
    crew: list[Worker]
    #: Sets a test's tenants apart from those of others in the same database.
    prefix: str

    def name(self, *names: str) -> list[str]:
        """The test's tenants of these names."""
        return [f"{self.prefix}{name}" for name in names]

    def plain(self, result: RunResult) -> dict[str, str]:
        """How each tenant ended, by the name that the test gave it."""
        return {each.tenant.removeprefix(self.prefix): each.status.value for each in result.tenants}

    def fleet(self, *names: str, **keys: Any) -> None:
        """Write tenants.yaml: these tenants alone."""
        tenants(self.project, self.url, *self.name(*names), **keys)

    def steer(self, table: str, *names: str) -> None:
        """Have these tenants wait at the gate (``gated``), or fail (``broken``); nobody else any more."""
        values = ", ".join(f"('{name}')" for name in self.name(*names))
        execute(
            self.url, f"DELETE FROM public.{table}" + (f"; INSERT INTO public.{table} VALUES {values}" if names else "")
        )

    def how(self, **options: Any) -> Execution:
        """How a run is carried out here."""
        return Execution(executor=self.executor, **options)

    async def heeded(self, stop: Stop, run: str) -> None:
        """Wait until whoever is at work on ``run`` knows that it is to end."""
        if self.executor is None:
            await stop.within(60)
            return
        said = f"run {run} is about to end"

        async def heard() -> bool:
            return any(worker.has_said(said) for worker in self.crew)

        await until(heard, bool)

    async def upgrade(
        self, target: str | None = None, watch: Watch | None = None, *, provision: bool = True, **options: Any
    ) -> RunResult:
        """By the Python API."""
        return await self.project.upgrade(target, execution=self.how(**options), watch=watch, provision=provision)


@pytest.fixture(scope="session")
def _begun(pg: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = pg.create_database()
    fleet = make_project(tmp_path_factory.mktemp("begun"), {}, schemas(url, "a", journal=url)).fleet

    async def begin() -> None:
        async with opened_journal(fleet), opened_engine(Place.of(fleet)):
            pass

    # Unlike asyncio.run, it leaves the thread's event loop as pytest-asyncio set it.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(begin())
    yield url
    pg.drop_database(url)


@pytest.fixture
def begun_database(make_database: Callable[..., str], _begun: str) -> str:
    """Address of a database of the test's own, in which the engine's tables and the journal's are, and nothing in them.

    To make them is a second of DBOS's migrations; whoever tests that they are made begins with ``database``.
    """
    return make_database(_begun)


@pytest.fixture(scope="module")
def staged(pg: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, str, list[Worker]]]:
    """A project with two workers."""
    url = pg.create_database()
    project = steered_project(tmp_path_factory.mktemp("staged"), url)
    try:
        with workers(project, 2) as crew:
            yield project, url, crew
    finally:
        pg.drop_database(url)


@pytest.fixture(params=[None, "dbos"], ids=["local", "dbos"])
def stage(staged: tuple[Project, str, list[Worker]], request: pytest.FixtureRequest) -> Stage:
    """The same for each executor."""
    project, url, crew = staged
    made = Stage(project, url, request.param, [] if request.param is None else crew, f"s{next(_numbers)}_")
    for table in ("seen", "gated", "slow", "broken"):
        made.steer(table)
    return made
