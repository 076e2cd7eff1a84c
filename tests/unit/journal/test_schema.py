"""The journal's own Alembic history."""

from __future__ import annotations

from pathlib import Path

import alembic.context
import alembic.op
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from orchestrator.journal import schema
from orchestrator.journal.journal import default_url
from orchestrator.journal.tables import VERSION_TABLE, metadata
from tests.unit.journal.samples import opened


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def test_the_constant_is_the_head_of_the_history() -> None:
    """Whoever adds a revision must raise HEAD, or no journal would ever get it."""
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_heads() == [schema.HEAD]


async def test_the_history_makes_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    """`alembic check`, on a journal that was opened the ordinary way and holds somebody else's table too."""
    async with opened(default_url(tmp_path), tmp_path):
        pass
    engine = create_engine(f"sqlite:///{default_url(tmp_path).database}")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE of_somebody_else (id INTEGER)")
        command.check(_config(connection))
    engine.dispose()


def test_the_history_goes_up_and_down_through_alembic(tmp_path: Path) -> None:
    """Its env.py and its revisions are ordinary ones."""
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        command.upgrade(_config(connection), "head")
        assert set(inspect(connection).get_table_names()) == {VERSION_TABLE, *metadata.tables}
        command.downgrade(_config(connection), "base")
        inspect(connection).clear_cache()
        assert inspect(connection).get_table_names() == [VERSION_TABLE]
    engine.dispose()


async def test_making_a_journal_leaves_alembic_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants may be migrating through Alembic's process-wide proxies while a journal is opened."""
    mine = object()
    monkeypatch.setattr(alembic.op, "_proxy", mine, raising=False)
    monkeypatch.setattr(alembic.context, "_proxy", mine, raising=False)
    async with opened(default_url(tmp_path), tmp_path):
        assert (alembic.op._proxy, alembic.context._proxy) == (mine, mine)  # type: ignore[attr-defined]
