"""Fixtures for the tests of the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client_programs import Programs
from tests.command_line import Project
from tests.servers import PostgresServer
from tests.workspace import Workspace


@pytest.fixture
def project(workspace: Workspace, database: str) -> Project:
    """A small history and an empty database; tenants.yaml is the test's to write, with :meth:`Project.fleet`."""
    return Project.create(workspace, database)


@pytest.fixture
def programs(tmp_path: Path, pg: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """pg_dump, pg_restore and psql of this test."""
    return Programs(tmp_path / "programs", pg, monkeypatch)
