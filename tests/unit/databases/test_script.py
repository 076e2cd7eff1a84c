"""What a script says, as far as no server is needed to judge it."""

from __future__ import annotations

import pytest

from orchestrator.databases.postgresql.script import Place, Step, identifier, literal, script


def step(*statements: str, before: tuple[str, ...] = ("r1",), after: tuple[str, ...] = ("r2",)) -> Step:
    """One transaction."""
    return Step(("r2",), before, after, statements)


def place(schema: str | None = "a") -> Place:
    """One tenant."""
    return Place("app", schema, -5, "alembic_version", {"search_path": "a"})


@pytest.mark.parametrize(
    ("text", "written"),
    [("", "''"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("\\'", " E'\\\\'''"), ('"', "'\"'")],
)
def test_literal(text: str, written: str) -> None:
    """Quotes are doubled; a backslash makes it a constant in which every backslash is doubled."""
    assert literal(text) == written


def test_identifier() -> None:
    """A quote within is doubled."""
    assert identifier('we"ird') == '"we""ird"'


def test_each_step_is_a_transaction_of_its_own() -> None:
    """As many commits as steps, and every statement between the two that are its own."""
    written = script(place(), [step("ONE"), step("TWO", before=("r2",), after=("r3",))]).split(";\n")

    marks = [each.strip() for each in written if each.strip() in {"BEGIN", "COMMIT", "ONE", "TWO"}]
    assert marks == ["BEGIN", "ONE", "COMMIT", "BEGIN", "TWO", "COMMIT"]


def test_every_guard_is_there() -> None:
    """What is asked before, within and after the transactions, by the word that tells the operator."""
    words = ["database", "locked", "scope", "moved", "heads", "scope", "uncommitted", "unlocked"]
    said = script(place(), [step("ONE")])

    positions, start = [], 0
    for word in words:
        start = said.index(f"orchestrator refuses: {word}'", start)
        positions.append(start)
    begin, commit = said.index("BEGIN"), said.index("COMMIT")
    assert positions[2] < begin < positions[3] < said.index("ONE") < positions[4] < commit < positions[6]


def test_a_database_of_its_own_has_no_schema_to_guard() -> None:
    """Its version table is what the search path finds, as Alembic finds it."""
    said = script(place(schema=None), [step("ONE")])

    assert "refuses: scope" not in said
    assert 'FROM "alembic_version"' in said
