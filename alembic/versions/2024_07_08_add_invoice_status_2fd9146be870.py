"""add invoice status

On PostgreSQL the status is an ENUM type of the tenant's own. It is created and dropped by hand: SQLAlchemy's
``checkfirst`` looks along the whole search path, finds a type of that name in another schema, and binds the
column to that one. SQLite has no such types and keeps plain text.

Revision ID: 2fd9146be870
Revises: b07e2395ad6c
Create Date: 2024-07-08 13:18:47
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2fd9146be870"
down_revision = "b07e2395ad6c"
branch_labels = None
depends_on = None

STATUSES = ("draft", "sent", "paid", "void")
invoice_status = sa.Enum(*STATUSES, name="invoice_status").with_variant(
    postgresql.ENUM(*STATUSES, name="invoice_status", create_type=False), "postgresql"
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE TYPE invoice_status AS ENUM ('draft', 'sent', 'paid', 'void')")
    op.add_column("invoices", sa.Column("status", invoice_status, server_default="draft", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("invoices") as invoices:
        invoices.drop_column("status")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TYPE invoice_status")
