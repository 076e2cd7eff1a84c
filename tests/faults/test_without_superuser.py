"""The suite itself, on a server where its role is no superuser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.projects import with_role
from tests.servers import PostgresServer, execute, fetch, start_own_server
from tests.workspace import REPOSITORY

#: What CI runs of it.
SOME = (
    "tests/integration/test_cli_contract.py",
    "tests/integration/test_python_api.py",
    "tests/contract/test_databases.py",
)
#: The roads that an operator goes, each by its own tests.
ALL = (
    *SOME,
    "tests/contract/test_script.py",
    "tests/contract/test_lanes.py",
    "tests/contract/test_dumping.py",
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            "cli_execution", "cli_selection", "replay", "traps", "traps_truth", "traps_faults", "traps_secrets",
            "plain_alembic", "labelled_branches", "not_replayed", "partial_status", "concurrent_index", "budgets",
            "doctor", "names", "revision", "sample_history", "backup",
        )
    ),
)  # fmt: skip
#: Tests that need a superuser to make what they test: other roles, and `SET ROLE pg_monitor`.
MAKE_ROLES = (
    "test_the_session_is_left_clean",
    "test_what_alembic_left_in_a_session",
    "test_what_a_replay_left_in_a_session",
    "test_no_more_connections_than_the_server_was_given",
    "test_a_listener_on_every_engine",
    "test_journal_that_cannot_be_written",
    "test_rights_that_are_missing",
)


@pytest.fixture
def ordinary() -> Iterator[str]:
    """Address of a server of our own for a role that may make databases, and nothing more."""
    server: PostgresServer = start_own_server()
    execute(server.url, "CREATE ROLE migrator LOGIN PASSWORD 'x' NOSUPERUSER CREATEDB")
    yield with_role(server.url, "migrator", "x")
    assert server.embedded is not None
    server.embedded.stop()


def test_suite_without_superuser(thorough: bool, ordinary: str) -> None:
    """Provisioning, upgrade, replay, downgrade, stamp, resume, status, doctor and backup need no superuser."""
    assert fetch(ordinary, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0][0] is False
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", "--tb=short",
            *(ALL if thorough else SOME), "-k", " and ".join(f"not {name}" for name in MAKE_ROLES),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "TEST_PG_URL": ordinary},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
