"""How far a revision reaches, found by reading its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.history.directory import History
from orchestrator.history.reach import Reach, find_reach
from tests.projects import ACCOUNTS, ENV, PROJECTS, files, make_project

SOURCE = '''"""About invoices."""
from alembic import op

TABLES = ["my table"]

def upgrade():
    op.create_table("accounts")
    op.execute("CREATE TABLE plans (id int); create  table if not exists prices (id int)")
    op.execute(f"ALTER TABLE tasks_{1} ADD x int REFERENCES users")

def downgrade():
    op.drop_table("projects")
'''


def test_words_and_new_tables(tmp_path: Path) -> None:
    """Every word and text that the way up may use, and each CREATE TABLE; not the docstring, not the way back."""
    file = tmp_path / "r1.py"
    file.write_text(SOURCE, encoding="utf-8")

    reach = find_reach("r1", file)

    assert reach.words >= {"accounts", "plans", "prices", "users", "my table"}
    assert not reach.words & {"invoices", "projects"}
    assert reach.created == 3


@pytest.mark.parametrize(("env", "count"), [(ENV, 2), (ENV.replace(", transaction_per_migration=True", ""), 1)])
def test_transactions(tmp_path: Path, env: str, count: int) -> None:
    """A revision is a transaction where env.py says so; otherwise all of them are one, with all that they touch."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, files(tmp_path, "a"), env)

    found = History.beside(project.path).transactions(["r1", "r2"])

    assert (len(found), Reach.together(found).created) == (count, 2)
    assert History.beside(project.path).transactions([]) == ()
