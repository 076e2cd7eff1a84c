"""What keeps the SQL that a revision renders to from being all that it does."""

from __future__ import annotations

import ast
from textwrap import dedent, indent

import pytest

from orchestrator.history.offline import hidden


def upgrade(body: str) -> ast.Module:
    """A file with this upgrade(); a function beside it reads, and nobody calls it."""
    return ast.parse(f"def other():\n    inspect(op.get_bind())\n\ndef upgrade():\n{indent(dedent(body), '    ')}\n")


@pytest.mark.parametrize(
    "body",
    [
        'op.create_table("a")',
        "mood.create(op.get_bind(), checkfirst=True)",
        "bind = op.get_bind()\nmood.create(bind=bind)",
        'bind = op.get_bind()\nif bind.dialect.name == "postgresql":\n    op.execute("SELECT 1")',
        'op.get_bind().execute("UPDATE a SET x = 1")',
        "if op.get_context().dialect.name:\n    pass",
    ],
)
def test_all_is_seen(body: str) -> None:
    """Asking for the dialect, and telling the connection something, is the same without a database."""
    assert hidden(upgrade(body), "upgrade") is None


@pytest.mark.parametrize(
    ("body", "what", "line"),
    [
        ("if op.get_context().as_sql:\n    return", "uses as_sql", 5),
        ("if context.is_offline_mode():\n    return", "uses is_offline_mode", 5),
        ('rows = op.get_bind().execute("SELECT 1")', "reads by get_bind", 5),
        ('bind = op.get_bind()\nif bind.execute("SELECT 1"):\n    pass', "reads by bind", 6),
        ("bind = op.get_bind()\nhelper(bind)", "reads by bind", 6),
        ("Session(bind=op.get_bind())", "uses Session", 5),
        ("other()", "uses inspect", 2),
        ("try:\n    f()\nexcept Exception:\n    pass", "catches errors", 7),
    ],
)
def test_more_may_be_done(body: str, what: str, line: int) -> None:
    """Whatever may go another way where rows can be read."""
    found = hidden(upgrade(body), "upgrade")
    assert found is not None
    assert found[0].startswith(what)
    assert found[1] == line
