"""Hazards found by reading a revision's source."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from orchestrator.history.hazards import NO_WAY_BACK, ON_DOWNGRADE, ON_UPGRADE, HazardKind, find_hazards, has_global

HARMLESS = '''
"""Create accounts."""
from alembic import op

def upgrade():
    op.create_table("accounts")

def downgrade():
    op.rename_table("accounts", "old")
'''


def found(tmp_path: Path, source: str) -> list[tuple[str, str, int]]:
    """Kind, detail and line of every hazard in ``source``."""
    file = tmp_path / "r1.py"
    file.write_text(dedent(source).lstrip(), encoding="utf-8")
    return [(hazard.kind.value, hazard.detail, hazard.line) for hazard in find_hazards("r1", file)]


def with_upgrade(body: str) -> str:
    """A revision with a message, this upgrade and a way back."""
    return f'"""Message."""\n\ndef upgrade():\n    {body}\n\ndef downgrade():\n    op.create_table("x")\n'


def with_downgrade(body: str, upgrade: str = 'op.create_table("x")') -> str:
    """A revision with a message and this downgrade."""
    return f'"""Message."""\n\ndef upgrade():\n    {upgrade}\n\ndef downgrade():\n    {body}\n'


def test_harmless(tmp_path: Path) -> None:
    """An ordinary revision has none."""
    assert found(tmp_path, HARMLESS) == []


def test_global_state(tmp_path: Path) -> None:
    """`global` anywhere in the file, also in a function of a function."""
    source = """
        '''Message.'''
        def upgrade():
            def inner():
                global seen, counted
                seen = 1
            inner()
        def downgrade():
            inner()
    """
    assert found(tmp_path, source) == [("global_state", "global seen, counted", 4)]


@pytest.mark.parametrize(
    "body", ["with op.get_context().autocommit_block(): pass", "with context.autocommit_block(): op.f()"]
)
def test_autocommit(tmp_path: Path, body: str) -> None:
    """An autocommit block, however the context was reached."""
    assert found(tmp_path, with_upgrade(body)) == [("autocommit", "autocommit_block", 4)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('op.drop_table("users")', "drop_table users"),
        ('op.drop_column("users", "phone")', "drop_column users.phone"),
        ('op.execute("DROP TABLE users")', "DROP TABLE users"),
        ('op.execute("  truncate   users")', "truncate users"),
        ('op.execute(sa.text("DELETE FROM users WHERE old"))', "DELETE FROM users WHERE old"),
        ("op.drop_table(name)", "drop_table"),
        ('batch.drop_column("phone")', "drop_column phone"),
    ],
)
def test_lossy_upgrade(tmp_path: Path, body: str, detail: str) -> None:
    """Rows or columns thrown away, by an operation or by SQL."""
    assert found(tmp_path, with_upgrade(body)) == [("upgrade_loses_data", detail, 4)]


def test_lossy_downgrade(tmp_path: Path) -> None:
    """A downgrade that drops what the upgrade made loses what was stored since."""
    assert found(tmp_path, with_downgrade('op.drop_table("x")')) == [("downgrade_loses_data", "drop_table x", 7)]


def test_no_downgrade(tmp_path: Path) -> None:
    """No downgrade function at all."""
    assert found(tmp_path, '"""Message."""\n\ndef upgrade():\n    op.f()\n') == [("no_downgrade", "downgrade", 1)]


@pytest.mark.parametrize("line", ["downgrade = upgrade", "from common import down as downgrade"])
def test_downgrade_that_is_not_defined_here(tmp_path: Path, line: str) -> None:
    """A downgrade bound by assignment or import is one."""
    assert found(tmp_path, f'"""Message."""\n\ndef upgrade():\n    op.f()\n\n{line}\n') == []


@pytest.mark.parametrize(
    "body",
    [
        *("pass", "'''Nothing.'''", "...", "return", "return None\n    op.f()", "if False: op.f()", "print('no')"),
        *("op.execute('')", "op.execute(' ; ')"),
    ],
)
def test_empty_downgrade(tmp_path: Path, body: str) -> None:
    """A downgrade that does nothing would move the version and leave the tables."""
    assert found(tmp_path, with_downgrade(body)) == [("empty_downgrade", "downgrade", 6)]


def test_merge(tmp_path: Path) -> None:
    """A revision that does nothing in either direction is a merge."""
    assert found(tmp_path, with_downgrade("pass", "pass")) == []


def test_irreversible(tmp_path: Path) -> None:
    """A downgrade that begins by raising."""
    assert found(tmp_path, with_downgrade("raise NotImplementedError")) == [("irreversible", "downgrade", 6)]


def test_raises_in_the_end(tmp_path: Path) -> None:
    """One that raises whatever comes before it; not one that has returned by then."""
    late = found(tmp_path, with_downgrade('op.f()\n    raise ValueError("one way")'))
    never = found(tmp_path, with_downgrade('op.f()\n    return\n    raise ValueError("unreachable")'))

    assert (late, never) == ([("irreversible", "downgrade", 6)], [])


def test_downgrade_that_raises_on_a_condition(tmp_path: Path) -> None:
    """Only a downgrade that always raises is irreversible."""
    assert found(tmp_path, with_downgrade('op.f()\n    if odd:\n        raise ValueError("odd")')) == []


@pytest.mark.parametrize(
    "first",
    ["", '""" """\n', '"""empty message\n\nRevision ID: a\nRevises: b\n"""\n', '"""\n\nRevision ID: a\n"""\n'],
)
def test_no_message(tmp_path: Path, first: str) -> None:
    """Nothing says what the revision is for."""
    source = HARMLESS.split('"""')[2]

    assert [kind for kind, _, _ in found(tmp_path, first + source)] == ["no_message"]


def test_file_in_another_alphabet(tmp_path: Path) -> None:
    """Source is read as UTF-8, whatever the locale."""
    assert found(tmp_path, with_upgrade('op.drop_table("счета")'))[0][1] == "drop_table счета"


def test_what_matters_for_which_direction() -> None:
    """Loss is told for the direction in which it happens; what forbids going back is told for both."""
    assert HazardKind.UPGRADE_LOSES_DATA in ON_UPGRADE - ON_DOWNGRADE
    assert HazardKind.DOWNGRADE_LOSES_DATA in ON_DOWNGRADE - ON_UPGRADE
    assert NO_WAY_BACK <= ON_UPGRADE & ON_DOWNGRADE


@pytest.mark.parametrize(
    ("body", "expected"),
    [("global seen", True), ('op.execute("SET global x = 1")', False), ('op.create_table("x")', False)],
    ids=["a statement", "only the word", "nothing"],
)
def test_a_global_statement_is_told_from_the_word(tmp_path: Path, body: str, expected: bool) -> None:
    """Revisions that share state run one tenant at a time; one that only has the word in it does not."""
    file = tmp_path / "r1.py"
    file.write_text(with_upgrade(body), encoding="utf-8")
    assert has_global(file) is expected
