"""Fixtures of the tests of a worker's parts: a project of three tenants, and nobody at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.actions.distributing.given import opened_engine
from orchestrator.actions.distributing.place import Place, queues_of
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import opened_project
from orchestrator.engine.queues import PLACES
from tests.hands import THREE, Hands
from tests.projects import Project
from tests.workers import steered_project, tenants


@pytest.fixture
def database(begun_database: str) -> str:
    """Where all of it is; runs have been carried out there before."""
    return begun_database


@pytest.fixture
def project(tmp_path: Path, database: str) -> Project:
    """Three tenants, and nobody at work."""
    made = steered_project(tmp_path, database)
    tenants(made, database, *THREE)
    return made


@pytest.fixture
async def hands(project: Project) -> AsyncIterator[Hands]:
    """A worker's, in this process."""
    fleet = project.fleet
    async with opened_engine(Place.of(fleet)) as engine, opened_journal(fleet) as journal:
        async with opened_project(fleet) as opened:
            queues, digest = queues_of(opened), opened.history.digest
        await asyncio.to_thread(engine.register, queues, PLACES, 1)
        yield Hands(project, engine, journal, queues, digest)
