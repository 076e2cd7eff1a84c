"""Fixtures for the tests of the real command line."""

from __future__ import annotations

import pytest

from tests.command_line import Project
from tests.workspace import Workspace


@pytest.fixture
def project(workspace: Workspace, database: str) -> Project:
    """A small history and an empty database; tenants.yaml is the test's to write, with :meth:`Project.fleet`."""
    return Project.create(workspace, database)
