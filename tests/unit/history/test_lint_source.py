"""Rules that a revision's source answers."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from orchestrator.history.lint_source import source_hazards

CREATE = 'op.create_table("accounts")'
INDEX = 'op.create_index("ix", "accounts", ["name"], postgresql_concurrently=True)'


def found(upgrade: str, downgrade: str = "pass", module: str = "") -> list[tuple[str, int]]:
    """Rule and line of every finding; ``upgrade`` begins in line 3 where ``module`` is empty."""
    bodies = [dedent(body).strip().replace("\n", "\n    ") for body in (upgrade, downgrade)]
    source = f"{module}\ndef upgrade():\n    {bodies[0]}\n\ndef downgrade():\n    {bodies[1]}\n"
    return [(hazard.kind.value, hazard.line) for hazard in source_hazards("r1", ast.parse(source))]


@pytest.mark.parametrize(
    "upgrade",
    [
        CREATE,
        f"with op.get_context().autocommit_block():\n    {INDEX}",
        # Looking for the dialect is no work.
        f'if op.get_context().dialect.name == "x":\n    with op.get_context().autocommit_block():\n        {INDEX}',
        'op.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY totals")',
        'op.create_table("accounts", comment="whether it is public. Or not.")',
        'op.execute("SELECT 1 -- public.accounts")',
        "op.execute(\"UPDATE accounts SET kind = 'public.one'\")",
        'op.execute("UPDATE not_public.accounts SET x = 1")',
        "stack.enter_context(op.get_context().autocommit_block())\n" + INDEX,
    ],
)
def test_clean(upgrade: str) -> None:
    """What is as it should be, or cannot be told from the source, is no finding."""
    assert found(upgrade) == []


@pytest.mark.parametrize(
    ("upgrade", "line"),
    [
        (f"{CREATE}\nwith op.get_context().autocommit_block():\n    {INDEX}", 5),
        (f'with op.get_context().autocommit_block():\n    {INDEX}\nop.execute("UPDATE accounts SET x = 1")', 4),
        (INDEX, 3),
        ('op.execute("DROP INDEX CONCURRENTLY ix")', 3),
        ('op.execute(sa.text("create unique index concurrently ix on accounts (id)"))', 3),
        ('op.execute("COMMIT")\n' + INDEX, 3),
        ("helper()", 3),
    ],
)
def test_unguarded_autocommit(upgrade: str, line: int) -> None:
    """Steps outside transactions beside others, steps that cannot be inside, and a COMMIT by hand."""
    module = f"def helper():\n    {INDEX}\n" if upgrade == "helper()" else ""
    expected = 2 if module else line
    assert found(upgrade, module=module)[0] == ("unguarded_autocommit", expected)


def test_helper_in_a_block() -> None:
    """A function of the file that is called inside the block does its work there."""
    upgrade = "with op.get_context().autocommit_block():\n    helper()"
    assert found(upgrade, module=f"def helper():\n    {INDEX}\n") == []


@pytest.mark.parametrize(
    "statement",
    [
        INDEX.replace("postgresql_concurrently", "if_not_exists=True, postgresql_concurrently"),
        'op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON accounts (name)")',
    ],
)
def test_concurrent_if_not_exists(statement: str) -> None:
    """IF NOT EXISTS over a concurrent index, in either direction; without CONCURRENTLY it hides nothing."""
    block = f"with op.get_context().autocommit_block():\n    {statement}"
    assert found(block) == [("concurrent_if_not_exists", 4)]
    assert [rule for rule, _ in found("pass", block)] == ["concurrent_if_not_exists"]
    plain = statement.replace(", postgresql_concurrently=True", "").replace("CONCURRENTLY ", "")
    assert found(plain) == []


@pytest.mark.parametrize(
    "read",
    [
        'names = op.get_bind().execute("SELECT name FROM accounts").fetchall()',
        "columns = sa.inspect(op.get_bind()).get_columns('accounts')",
        'for row in op.get_bind().execute("SELECT 1"):\n    pass',
        "session = Session(bind=op.get_bind())",
    ],
)
def test_reads_with_ddl(read: str) -> None:
    """A read beside a change of tables; alone, each of them is as it should be."""
    assert ("reads_with_ddl", 3) in found(f"{read}\n{CREATE}")
    assert ("reads_with_ddl", 3) in found(f'{read}\nop.execute("ALTER TABLE accounts ADD x int")')
    assert found(read) == []


@pytest.mark.parametrize(
    "statement",
    [
        'op.create_table("plans", schema="public")',
        'op.execute("UPDATE public.accounts SET x = 1")',
        'op.execute(\'UPDATE "public"."accounts" SET x = 1\')',
        'op.create_foreign_key("fk", "a", "b", ["x"], ["id"], referent_schema="public")',
        'op.add_column("a", sa.Column("x", sa.ForeignKey("public.plans.code")))',
        'op.execute(f"DELETE FROM public.{table}")',
        "op.execute(\"ALTER TABLE a ALTER x SET DEFAULT nextval('public.a_x_seq')\")",
        "op.execute(\"SELECT 'public.a'::regclass\")",
        'op.execute("SET search_path TO public; CREATE TABLE b (id int)")',
    ],
)
def test_public_name(statement: str) -> None:
    """public is named in an argument, in SQL, in a key, or in a text that PostgreSQL reads as a name."""
    assert ("public_name", 3) in found(statement)
