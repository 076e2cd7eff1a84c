"""add invoice total

Lists of invoices added up every line on every page. First step of three: the column may be empty, so that the
application's old version goes on working; the new version fills it for new invoices.

Revision ID: a8f4902d6c15
Revises: d05bc3987e41
Create Date: 2025-01-15 17:20:03
"""

import sqlalchemy as sa
from alembic import op

revision = "a8f4902d6c15"
down_revision = "d05bc3987e41"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("invoices", sa.Column("total_cents", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("invoices") as invoices:
        invoices.drop_column("total_cents")
