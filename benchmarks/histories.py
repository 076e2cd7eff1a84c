"""The Alembic histories that are measured: one first revision with the tables, and one kind of work after it each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent, indent

#: The revision that every tenant stands at before.
FIRST = "b0000"
#: Seconds of server time that the data-reading revision takes.
READING_S = 0.25

#: Takes back what ``ONE`` and ``READING`` do, or nothing; in the schema that is current.
UNDO = f"""
ALTER TABLE projects DROP COLUMN IF EXISTS archived_at;
ALTER TABLE accounts DROP COLUMN IF EXISTS projects_then;
UPDATE alembic_version SET version_num = '{FIRST}' WHERE version_num <> '{FIRST}';
"""

_FILE = '''"""{name}"""

import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = {down!r}


def upgrade():
{body}
'''
_TABLES = """
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
    )
    op.create_index("ix_projects_account_id", "projects", ["account_id"])
"""
_COLUMN_AND_INDEX = """
    op.add_column("projects", sa.Column("archived_at", sa.DateTime(timezone=True)))
    op.create_index("ix_projects_archived_at", "projects", ["archived_at"])
"""
_READING = """
    query = "SELECT pg_sleep({seconds}), count(*) AS projects FROM projects"
    row = op.get_bind().execute(sa.text(query)).one()
    op.add_column("accounts", sa.Column("projects_then", sa.Integer, server_default=str(row.projects)))
"""
#: Four revisions of 15 statements; five times they make the twenty of the goals' table.
_FOUR = (
    """
    op.create_table(
        "orders_{n}",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("number", sa.String(40), nullable=False),
    )
    op.create_index("ix_orders_{n}_account_id", "orders_{n}", ["account_id"])
    op.create_unique_constraint("uq_orders_{n}_number", "orders_{n}", ["number"])
    op.create_check_constraint("ck_orders_{n}_number", "orders_{n}", "number <> ''")
    """,
    """
    op.add_column("orders_{n}", sa.Column("total", sa.Numeric(12, 2)))
    op.add_column("orders_{n}", sa.Column("currency", sa.String(3)))
    op.create_index("ix_orders_{n}_total", "orders_{n}", ["total"])
    op.create_check_constraint("ck_orders_{n}_total", "orders_{n}", "total >= 0")
    """,
    """
    op.execute("UPDATE orders_{n} SET total = 0, currency = 'EUR' WHERE total IS NULL")
    op.alter_column("orders_{n}", "total", nullable=False)
    op.alter_column("orders_{n}", "currency", server_default="EUR")
    """,
    """
    op.create_table(
        "lines_{n}",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("order_id", sa.Integer, sa.ForeignKey("orders_{n}.id", ondelete="CASCADE"), nullable=False),
        sa.Column("quantity", sa.Integer, server_default="1", nullable=False),
    )
    op.create_index("ix_lines_{n}_order_id", "lines_{n}", ["order_id"])
    op.drop_index("ix_orders_{n}_total", "orders_{n}")
    op.create_index("ix_orders_{n}_currency_total", "orders_{n}", ["currency", "total"])
    """,
)


def _grown(number: int) -> str:
    """One of many small revisions: every fifth makes a table, the others change the newest one."""
    table = f"things_{number // 5:03}"
    bodies = (
        f"""
        op.create_table(
            "{table}",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
            sa.Column("name", sa.String(80), nullable=False),
        )
        op.create_index("ix_{table}_project_id", "{table}", ["project_id"])
        """,
        f'op.add_column("{table}", sa.Column("state", sa.String(20), server_default="new", nullable=False))',
        f'op.create_index("ix_{table}_state", "{table}", ["state"])',
        f'op.create_check_constraint("ck_{table}_name", "{table}", "name <> \'\'")',
        f'op.add_column("{table}", sa.Column("seen_at", sa.DateTime(timezone=True)))',
    )
    # The first ones come before the first table of this kind.
    return bodies[number % 5] if number >= 5 else f'op.add_column("accounts", sa.Column("more_{number}", sa.Text))'


@dataclass(frozen=True, slots=True)
class History:
    """A versions directory."""

    #: Name for directories and files.
    name: str
    #: Bodies of ``upgrade()``, oldest first; the first makes the tables.
    bodies: tuple[str, ...]
    #: An index that its last revision makes, if it makes one.
    index: str | None = None
    #: Whether :data:`UNDO` takes it back; else it wants a fresh copy of the tables.
    undone: bool = True

    @property
    def revisions(self) -> list[str]:
        """Identifiers, oldest first."""
        return [FIRST, *(f"b{number:04}" for number in range(1, len(self.bodies)))]

    @property
    def head(self) -> str:
        """The last one."""
        return self.revisions[-1]

    def files(self) -> dict[str, str]:
        """Text of each revision file by its name."""
        names: Sequence[str | None] = [None, *self.revisions]
        return {
            f"{name}.py": _FILE.format(name=name, down=down, body=indent(dedent(body).strip(), "    "))
            for name, down, body in zip(self.revisions, names, self.bodies, strict=False)
        }


#: Nothing after the tables: for what has nothing to do.
NONE = History("none", (_TABLES,))
#: A column and an index.
ONE = History("one", (_TABLES, _COLUMN_AND_INDEX), "ix_projects_archived_at")
#: Twenty revisions, 75 statements.
TWENTY = History(
    "twenty",
    (_TABLES, *(body.replace("{n}", str(number)) for number in range(1, 6) for body in _FOUR)),
    "ix_orders_5_currency_total",
    undone=False,
)
#: Twenty tables and nothing after them: for what looks at all of a tenant.
TABLES = History("tables", ("\n".join([_TABLES, *(_FOUR[0].replace("{n}", str(number)) for number in range(1, 19))]),))
#: Asks the database and uses the answer: cannot be replayed.
READING = History("reading", (_TABLES, _READING.format(seconds=READING_S)))
#: As a product that has grown for years has them: sixty tables, and a column, an index or a rule at a time.
MANY = History("many", (_TABLES, *(_grown(number) for number in range(1, 300))), undone=False)
#: A third of it, with one in the middle that asks the database.
UNREPLAYABLE = History(
    "unreplayable", (*MANY.bodies[:50], _READING.format(seconds=0), *MANY.bodies[50:100]), undone=False
)
