"""What a worker has in its hands, for tests of its parts with no worker there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import orchestrator
from orchestrator.actions.distributing.controlling import carry_out
from orchestrator.actions.distributing.jobs import RunJob
from orchestrator.actions.execution import Execution
from orchestrator.engine.client import Engine
from orchestrator.engine.queues import Queues
from orchestrator.fleet.load import load
from orchestrator.journal.journal import Journal
from orchestrator.rollout.result import RunResult
from tests.projects import Project

DBOS = Execution(executor="dbos")
DETACHED = replace(DBOS, detach=True)
THREE = ["a", "b", "c"]


@dataclass(frozen=True, slots=True)
class Hands:
    """What a worker has in its hands."""

    project: Project
    engine: Engine
    journal: Journal
    queues: Queues
    digest: str

    async def take_over(self, job: RunJob) -> dict[str, Any]:
        """What a worker does with a run that another one had, as far as it needs nobody else."""
        fleet = load(self.project.path / "tenants.yaml", may_be_empty=True)
        async with asyncio.timeout(30):
            given = {**job.as_json(), "id": job.run, "again": True}
            return await carry_out(fleet, self.engine, self.journal, self.queues, given)

    async def shown(self, run: str) -> RunResult:
        """The run as the journal has it."""
        return await orchestrator.show_run(self.project.fleet, run)
