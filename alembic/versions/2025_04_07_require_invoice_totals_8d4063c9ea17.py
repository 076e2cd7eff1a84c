"""require invoice totals

Third step of three: from now on every invoice has a total, and one without lines comes to nothing.

Revision ID: 8d4063c9ea17
Revises: f21b7ea4580c
Create Date: 2025-04-07 14:12:40
"""

import sqlalchemy as sa
from alembic import op

revision = "8d4063c9ea17"
down_revision = "f21b7ea4580c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("invoices") as invoices:
        invoices.alter_column("total_cents", existing_type=sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def downgrade() -> None:
    with op.batch_alter_table("invoices") as invoices:
        invoices.alter_column("total_cents", existing_type=sa.BigInteger(), nullable=True, server_default=None)
