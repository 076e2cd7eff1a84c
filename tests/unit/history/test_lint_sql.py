"""Rules that a revision's rendered SQL answers, ENUM types among them."""

from __future__ import annotations

import ast

import pytest

from orchestrator.history.data_loss import Loss
from orchestrator.history.enum_types import left_over, left_over_in_source
from orchestrator.history.lint_sql import Statement, enum_hazards, sql_hazards


def found(*forward: str, known: tuple[Loss, ...] = ()) -> list[tuple[str, int]]:
    """Rule and line of every finding; each statement has a line of its own, from 1."""
    statements = [Statement(text, line) for line, text in enumerate(forward, 1)]
    return [(hazard.kind.value, hazard.line) for hazard in sql_hazards("r1", statements, [], known)]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["CREATE TABLE a (id int);"], []),
        (["CREATE INDEX CONCURRENTLY ix ON a (id);"], [("unguarded_autocommit", 1)]),
        (["COMMIT;", "CREATE INDEX CONCURRENTLY ix ON a (id);", "BEGIN;"], []),
        (
            ["COMMIT;", "SELECT 1;", "BEGIN;", "DROP INDEX CONCURRENTLY ix;"],
            [("unguarded_autocommit", 4)],
        ),
        (["REFRESH MATERIALIZED VIEW CONCURRENTLY v;"], []),
        (
            ["COMMIT;", "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON a (id);", "BEGIN;"],
            [("concurrent_if_not_exists", 2)],
        ),
        (["UPDATE public.a SET x = 'b';"], [("public_name", 1)]),
        (["UPDATE a SET x = 'public.b';"], []),
        (["SET search_path TO public; CREATE TABLE b (id int);"], [("public_name", 1)]),
        (["set local search_path = 'tenant', \"public\";"], [("public_name", 1)]),
        (["SELECT pg_catalog.set_config('search_path', 'a, public', false);"], [("public_name", 1)]),
        (["ALTER TABLE a SET SCHEMA public;"], [("public_name", 1)]),
        (["SET search_path TO extensions;", "SET lock_timeout = 5;", "SELECT 'public', public FROM a;"], []),
        (["CREATE FUNCTION f() RETURNS void AS $$ DELETE FROM a $$;", "DROP FUNCTION g;"], []),
        (
            ["CREATE FUNCTION f() RETURNS int AS $$ DELETE FROM a $$;", "SELECT f();"],
            [("upgrade_loses_data", 1)],
        ),
        (["DROP TABLE a;", "TRUNCATE b;"], [("upgrade_loses_data", 1), ("upgrade_loses_data", 2)]),
        # SQLite's way to change a table.
        (["CREATE TABLE _tmp (id int);", "DROP TABLE a;", "ALTER TABLE _tmp RENAME TO a;"], []),
    ],
)
def test_statements(statements: list[str], expected: list[tuple[str, int]]) -> None:
    """Each statement in the transaction that it is in."""
    assert found(*statements) == expected


def test_a_loss_that_the_source_tells() -> None:
    """It is not told twice, and a type that the source knows to lose nothing is not told at all."""
    wider = Loss("type", "a", "x", "alter_column a.x", 9, loses=False)
    assert found("ALTER TABLE a ALTER COLUMN x TYPE INTEGER;", known=(wider,)) == []
    assert found("ALTER TABLE a ALTER COLUMN y TYPE INTEGER;", known=(wider,)) == [("upgrade_loses_data", 1)]


MAKE = "CREATE TYPE mood AS ENUM ('sad', 'ok');"


@pytest.mark.parametrize(
    ("forward", "back", "left"),
    [
        ([MAKE], [], {"mood": 0}),
        ([MAKE], ["DROP TYPE mood;"], {}),
        ([MAKE], ["DROP TYPE IF EXISTS other, mood;"], {}),
        (["CREATE TYPE acme.\"Mood\" AS ENUM ('sad');"], ['DROP TYPE "Mood";'], {}),
        (["SELECT 1;", MAKE], ["DROP TABLE people;"], {"mood": 1}),
        # A type that takes another's place.
        (["ALTER TYPE mood RENAME TO mood_old;", MAKE, "DROP TYPE mood_old;"], ["DROP TABLE people;"], {}),
        ([MAKE, "ALTER TYPE mood RENAME TO feeling;"], ["DROP TYPE mood;"], {"feeling": 0}),
        ([MAKE, "DROP TYPE mood;"], [], {}),
        (["CREATE TYPE pair AS (a int, b int);"], [], {}),
    ],
)
def test_enum_types(forward: list[str], back: list[str], left: dict[str, int]) -> None:
    """What is left of the types that a revision makes."""
    assert left_over(forward, back) == left
    statements = [Statement(text, line) for line, text in enumerate(forward, 1)]
    hazards = list(enum_hazards("r1", statements, [Statement(text, 1) for text in back]))
    assert [hazard.line for hazard in hazards] == [number + 1 for number in left.values()]


ENUM = 'sa.Enum("sad", "ok", name="mood")'


@pytest.mark.parametrize(
    ("upgrade", "downgrade", "left"),
    [
        (f'op.create_table("p", sa.Column("m", {ENUM}))', 'op.drop_table("p")', {"mood"}),
        (f'op.create_table("p", sa.Column("m", {ENUM}))', 'op.execute("DROP TYPE mood")', set()),
        (f"{ENUM}.create(op.get_bind())", "mood.drop(op.get_bind())", set()),
        ("mood.create(op.get_bind())", "pass", {"mood"}),
        ('op.create_table("p", sa.Column("m", mood))', f"{ENUM}.drop(op.get_bind())", set()),
        (f'op.execute("{MAKE}")', "pass", {"mood"}),
        (
            'op.create_table("p", sa.Column("m", ENUM(name="mood", create_type=False)))',
            "pass",
            set(),
        ),
        # Its type is there already.
        (f'op.add_column("p", sa.Column("m", {ENUM}))', "pass", set()),
    ],
)
def test_enum_types_in_source(upgrade: str, downgrade: str, left: set[str]) -> None:
    """The same for a revision that cannot be rendered."""
    source = f"mood = {ENUM}\ndef upgrade():\n    {upgrade}\ndef downgrade():\n    {downgrade}\n"
    assert left_over_in_source(ast.parse(source)).keys() == left
