"""Which words of a revision file may be tables that it touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.history.mentioned import mentioned

_FILE = '''"""about docstrings"""
revision = "rev"
down_revision = None
preflight = ["SELECT checked FROM asked"]
table = sa.table("module_level")


def fill(kind):
    op.execute(f"UPDATE filled SET kind = {kind}")


def upgrade():
    """about functions"""
    op.add_column("forward", sa.Column("name", sa.Text))
    op.create_foreign_key("fk", "forward", "referent", ["a"], ["b"])
    fill(1)


def downgrade():
    op.drop_column("back", "name")
'''


@pytest.mark.parametrize(
    ("direction", "own", "other"), [("upgrade", "forward", "back"), ("downgrade", "back", "forward")]
)
def test_words(tmp_path: Path, direction: str, own: str, other: str) -> None:
    """Names and SQL of the direction and of what it may call; no docstrings, checks and identifiers of revisions."""
    file = tmp_path / "rev.py"
    file.write_text(_FILE)
    words = mentioned(file, direction)
    assert {own, "module_level", "filled"} <= words
    assert not {other, "about", "asked", "rev"} & words
