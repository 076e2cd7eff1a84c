"""The journal in a SQLite file: the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator.journal.journal import default_url
from tests.unit.journal.contract import JournalContract


class TestOnSqlite(JournalContract):
    """Every promise of the contract, kept in the file that is used by default."""

    @pytest.fixture
    def address(self, tmp_path: Path) -> URL:
        """The file beside tenants.yaml."""
        return default_url(tmp_path)
