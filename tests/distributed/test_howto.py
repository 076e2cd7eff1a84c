"""The page about distributed runs is followed, as tests/integration/test_docs.py does it with the others."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests import documents
from tests.documents import Reader, blocks
from tests.servers import execute
from tests.workspace import REPOSITORY, Workspace

PAGE = "docs/howto/distributed.md"


def test_page_can_be_followed(tmp_path: Path, database: str) -> None:
    """Every command on it ends as it says and prints what it shows; the workers that it starts end with their locks."""
    here = tmp_path / "app"
    here.mkdir()
    Workspace.create(here)
    shutil.copy(REPOSITORY / "tenants.yaml", here)
    path = documents.path_with(documents.programs(tmp_path / "bin"))
    reader = Reader(Workspace(here), Workspace.environment({"DATABASE_URL": database, "PATH": path}))
    try:
        for block in blocks(PAGE):
            if block.file is not None:
                reader.write(block)
            if block.language == "console":
                for command in block.commands():
                    reader.type(command)
    finally:
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^orchestrator worker'",
        )
