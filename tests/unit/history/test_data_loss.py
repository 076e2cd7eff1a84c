"""What throws data away, read from source and from SQL."""

from __future__ import annotations

import ast
from textwrap import dedent, indent

import pytest

from orchestrator.history.data_loss import Loss, in_script, in_source, in_sql


def told(body: str, more: str = "") -> list[tuple[str, str | None, str | None]]:
    """Verb, table and column of what a downgrade with this body throws away."""
    source = f"def downgrade():\n{indent(dedent(body).strip(), '    ')}\n\n{dedent(more)}"
    return [(loss.verb, loss.table, loss.column) for loss in in_source(ast.parse(source), "downgrade") if loss.loses]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('op.drop_table("users")', ("drop table", "users", None)),
        ('op.drop_column("users", "phone")', ("drop column", "users", "phone")),
        ("op.drop_table(name)", ("drop table", None, None)),
        ('batch.drop_column("phone")', ("drop column", None, "phone")),
        (
            'with op.batch_alter_table("users") as batch:\n    batch.drop_column("phone")',
            ("drop column", "users", "phone"),
        ),
        ('op.execute("DELETE FROM users WHERE old")', ("delete from", "users", None)),
        ('op.execute(sa.text("truncate table only users"))', ("truncate", "users", None)),
        ('op.execute(f"DROP TABLE IF EXISTS users CASCADE; SELECT {x}")', ("drop table", "users", None)),
        ('op.execute("DROP TABLE " + name)', ("drop table", None, None)),
        ('op.execute("ALTER TABLE users DROP phone")', ("drop column", "users", "phone")),
        ('users = sa.table("users")\nop.execute(users.delete().where(x))', ("delete from", "users", None)),
        ("op.execute(sa.delete(User))", ("delete from", None, None)),
        (
            'op.alter_column("users", "name", existing_type=sa.Text(), type_=sa.String(9))',
            ("type", "users", "name"),
        ),
        ('op.alter_column("users", "name", type_=sa.Integer())', ("type", "users", "name")),
        ('op.alter_column("t", "c", type_=sa.Text, postgresql_using="left(c, 3)")', ("type", "t", "c")),
        (
            'op.execute("CREATE FUNCTION f() AS $$ DELETE FROM a $$")\nop.execute("CALL f()")',
            ("delete from", "a", None),
        ),
        ('op.execute("WITH gone AS (DELETE FROM a RETURNING id) SELECT 1")', ("delete from", "a", None)),
    ],
)
def test_source(body: str, expected: tuple[str, str | None, str | None]) -> None:
    """Each way to write it: operations, batches, SQL, table objects, narrower types."""
    assert told(body) == [expected]


@pytest.mark.parametrize(
    "body",
    [
        'op.create_table("users")',
        'op.drop_index("ix")',
        'op.drop_constraint("users", "ck")',
        'op.execute("ALTER TABLE users DROP CONSTRAINT ck")',
        'op.execute("ALTER TABLE users ALTER COLUMN name DROP NOT NULL")',
        'op.execute("ALTER TABLE users ALTER COLUMN name DROP DEFAULT")',
        "op.execute(\"INSERT INTO notes VALUES ('; DROP TABLE users;')\")",
        'op.execute("-- DROP TABLE users\\nSELECT 1")',
        'op.execute("DROP INDEX ix; DROP VIEW v; DROP TYPE t")',
        'op.alter_column("users", "name", existing_type=sa.String(9), type_=sa.Text())',
        'op.alter_column("users", "name", nullable=True)',
        'op.alter_column("users", "name", type_=sa.Text)',
        'op.alter_column("users", "name", type_=sa.String(), postgresql_using="name::varchar")',
        'op.execute("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM a; END $$")',
        "cache.delete()",
    ],
)
def test_nothing_lost(body: str) -> None:
    """What takes away a rule, an index or a default keeps every row; words in texts and comments are no statements."""
    assert told(body) == []


def test_what_it_calls() -> None:
    """A function of the file that downgrade calls, a text that has a name there; not a function that nobody calls."""
    more = """
        CLEAN = "DELETE FROM logs"

        def _tables():
            op.drop_table("users")

        def _other():
            op.drop_table("others")
    """
    found = told("_tables()\nop.execute(CLEAN)", more)

    assert sorted(found) == [("delete from", "logs", None), ("drop table", "users", None)]


@pytest.mark.parametrize(
    ("old", "new", "narrower"),
    [
        ("sa.String(200)", "sa.String(80)", True),
        ("sa.String(80)", "sa.String(length=200)", False),
        ("sa.Text()", "sa.String(500)", True),
        ("sa.String(500)", "sa.Text", False),
        ("sa.String()", "sa.String(80)", True),
        ("sa.String(80)", "sa.String(LENGTH)", True),
        ("sa.BigInteger()", "sa.Integer()", True),
        ("sa.Integer", "sa.BigInteger", False),
        ("sa.Numeric(10, 2)", "sa.Numeric(12, 2)", False),
        ("sa.Numeric(10, 2)", "sa.Numeric(10, 4)", True),
        ("sa.Numeric(12, 4)", "sa.Numeric(12, 2)", True),
        ("sa.Numeric()", "sa.Numeric(12, 2)", True),
        ("sa.Numeric(12, 2)", "sa.Numeric()", False),
        ("sa.Integer()", "sa.Numeric(12, 2)", False),
        ("sa.BigInteger()", "sa.Numeric(12, 2)", True),
        ("sa.Numeric(12, 2)", "sa.Integer()", True),
        ("sa.Integer()", "sa.Text()", False),
        ("postgresql.UUID()", "sa.Text()", False),
        ("sa.LargeBinary()", "sa.String()", False),
        ("sa.Text()", "sa.CHAR()", True),
        ("sa.Text()", "sa.Integer()", True),
        ("sa.Integer()", "sa.String(3)", True),
        ("sa.Date()", "sa.DateTime()", False),
        ("sa.DateTime()", "sa.Date()", True),
        ("sa.DateTime()", "sa.DateTime(timezone=True)", False),
        ("sa.DateTime(timezone=True)", "sa.DateTime()", True),
        ("postgresql.JSON()", "postgresql.JSONB()", False),
        ("Mood()", "Mood()", False),
        ("sa.Enum('a', 'b')", "sa.Enum('a')", True),
    ],
)
def test_types(old: str, new: str, narrower: bool) -> None:
    """A type that may not hold what the other one did; one that nobody can judge counts as such."""
    body = f'op.alter_column("t", "c", existing_type={old}, type_={new})'

    assert bool(told(body)) == narrower


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('DROP TABLE "Users", app.logs', [("drop table", "Users", None), ("drop table", "app.logs", None)]),
        ("ALTER TABLE t DROP COLUMN IF EXISTS a, DROP b", [("drop column", "t", "a"), ("drop column", "t", "b")]),
        ("ALTER TABLE t ALTER COLUMN a TYPE INTEGER USING a::integer", [("type", "t", "a")]),
        ("ALTER TABLE t ALTER a SET DATA TYPE INTEGER", [("type", "t", "a")]),
        ("ALTER TABLE t ALTER a TYPE TEXT, ALTER b TYPE VARCHAR USING b::text, ALTER c TYPE character varying", []),
        ("ALTER TABLE t ALTER a TYPE TEXT USING left(a, 3)", [("type", "t", "a")]),
        ("ALTER TABLE t ALTER a TYPE VARCHAR(3), ALTER b TYPE TEXT", [("type", "t", "a")]),
        ("WITH x AS (SELECT 1), gone AS MATERIALIZED (DELETE FROM t) SELECT 1", [("delete from", "t", None)]),
        ("WITH old AS (SELECT 1) DELETE FROM t USING old", [("delete from", "t", None)]),
        (
            "MERGE INTO t USING u ON t.a = u.a WHEN NOT MATCHED THEN INSERT VALUES (1) WHEN MATCHED THEN DELETE",
            [("delete from", "t", None)],
        ),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DO NOTHING; DROP INDEX i", []),
        ("ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES u (a) ON DELETE CASCADE", []),
        ("CREATE TRIGGER g AFTER DELETE ON t EXECUTE FUNCTION f()", []),
        ("CREATE FUNCTION f() RETURNS void AS $b$ BEGIN TRUNCATE t; END $b$ LANGUAGE plpgsql; SELECT 1", []),
        ("CREATE OR REPLACE PROCEDURE p(n int = 1) BEGIN ATOMIC DELETE FROM t; DELETE FROM u; END; SELECT 2", []),
        ("CREATE FUNCTION f() RETURNS int AS $$ DELETE FROM t $$; SELECT f()", [("delete from", "t", None)]),
        ("CREATE FUNCTION f() RETURNS int AS $$ SELECT 1 $$; DROP TABLE t", [("drop table", "t", None)]),
        ("DO $$ BEGIN IF x THEN DELETE FROM t; END IF; END $$", [("delete from", "t", None)]),
        ("DO $$ BEGIN EXECUTE format('DROP TABLE t', x); END $$", [("drop table", "t", None)]),
        ("/* why */ TRUNCATE t", [("truncate", "t", None)]),
        ("CREATE TABLE n (a int); DROP TABLE t; ALTER TABLE n RENAME TO t", []),
        ("UPDATE t SET a = 1", []),
    ],
)
def test_sql(sql: str, expected: list[tuple[str, str | None, str | None]]) -> None:
    """Statements, several in one text, bodies of blocks; a table that another one takes the place of is not lost."""
    assert [(loss.verb, loss.table, loss.column) for loss in in_sql(sql)] == expected


def test_script() -> None:
    """What Alembic renders is told by revision; its own table's rows are not lost."""
    script = """
BEGIN;
-- Running downgrade c -> a, b
DROP TABLE x;
DELETE FROM alembic_version WHERE alembic_version.version_num = 'c';
-- Running downgrade b -> a
ALTER TABLE y DROP COLUMN z;
DELETE FROM s.alembic_version WHERE s.alembic_version.version_num = 'b';
-- Running downgrade a ->
DELETE FROM alembic_version WHERE alembic_version.version_num = 'a';
COMMIT;
"""
    found = in_script(script, "alembic_version")

    assert {revision: [loss.table for loss in losses] for revision, losses in found.items()} == {"c": ["x"], "b": ["y"]}


def test_the_same_twice() -> None:
    """SQL that says what the source has said already; a batch operation that does not name its table."""
    in_file = Loss("drop column", None, "phone", "drop_column phone", 7)

    assert in_file.is_like(Loss("drop column", "users", "phone", "ALTER TABLE users DROP COLUMN phone"))
    assert not in_file.is_like(Loss("drop column", "users", "name", "ALTER TABLE users DROP COLUMN name"))
    assert not Loss("drop table", "a", None, "").is_like(Loss("drop table", "b", None, ""))


def test_batches_on_several_tables() -> None:
    """A variable that stands for one batch operation after the other means each table in its own block."""
    blocks = "".join(
        f'    with op.batch_alter_table("{table}") as batch:\n        batch.drop_column("{column}")\n'
        for table, column in (("users", "phone"), ("accounts", "note"))
    )
    found = in_source(ast.parse(f"def upgrade():\n{blocks}"), "upgrade")
    assert [(loss.table, loss.column) for loss in found] == [("users", "phone"), ("accounts", "note")]


def test_a_column_called_type() -> None:
    """Its name is not taken for a change of type, and a change of its type is one."""
    assert in_sql("ALTER TABLE pools ALTER COLUMN type SET NOT NULL") == []
    assert [loss.column for loss in in_sql("ALTER TABLE pools ALTER COLUMN type TYPE integer")] == ["type"]
    assert [loss.column for loss in in_sql("ALTER TABLE pools ALTER type TYPE integer")] == ["type"]
