"""A new tenant comes to its target by the fastest way that makes what Alembic makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.actions.making import NotMade, Way, make, prepare
from orchestrator.actions.project import opened_project
from orchestrator.fleet.tenant import Limits
from tests.projects import ACCOUNTS, PROJECTS, make_project, schemas, tables


async def test_alembic_makes_it(tmp_path: Path, database: str) -> None:
    """A schema that is not there yet is made and brought to its target; again, there is nothing left to do."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, "acme"))
    async with opened_project(project.fleet) as opened:
        acme = opened.fleet.tenants[0]

        first = await make(opened, acme, "r1", application="test", limits=Limits(), ways=[Way.ALEMBIC])
        made = await make(opened, acme, "heads", application="test", limits=Limits(), ways=[Way.ALEMBIC])

    assert (first.way, first.heads, made.heads) == (Way.ALEMBIC, ("r1",), ("r2",))
    assert tables(database, "acme") == {"accounts", "alembic_version", "projects"}


async def test_a_revision_that_fails_is_named(tmp_path: Path, database: str) -> None:
    """Who cannot be made says in which revision, and where it is."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": ACCOUNTS}, schemas(database, "acme"))
    async with opened_project(project.fleet) as opened:
        with pytest.raises(NotMade, match="in revision r2") as raised:
            await make(opened, opened.fleet.tenants[0], "heads", application="test", limits=Limits())

    assert (raised.value.failure.sqlstate, raised.value.heads) == ("42P07", ("r1",))


async def test_tmp(tmp_path: Path, database: str) -> None:
    """tmp."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, "acme"))
    async with opened_project(project.fleet) as opened:
        acme = opened.fleet.tenants[0]
        print(await prepare(opened, acme, "heads"))
        print(await make(opened, acme, "heads", application="test", limits=Limits()))
