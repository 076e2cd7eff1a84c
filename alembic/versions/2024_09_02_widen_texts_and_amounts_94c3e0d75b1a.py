"""widen texts and amounts

Customers ran into the limits: long project names, task descriptions cut off, prices in currencies with large
numbers. Going back fails, and changes nothing, where a value no longer fits: nothing is cut off in silence.

Revision ID: 94c3e0d75b1a
Revises: 2fd9146be870
Create Date: 2024-09-02 15:44:09
"""

import sqlalchemy as sa
from alembic import op

revision = "94c3e0d75b1a"
down_revision = "2fd9146be870"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("projects") as projects:
        projects.alter_column("name", existing_type=sa.String(80), type_=sa.String(200), existing_nullable=False)
    with op.batch_alter_table("tasks") as tasks:
        tasks.alter_column("description", existing_type=sa.String(500), type_=sa.Text(), existing_nullable=True)
    with op.batch_alter_table("invoice_lines") as lines:
        lines.alter_column(
            "unit_price_cents", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False
        )


def downgrade() -> None:
    with op.batch_alter_table("invoice_lines") as lines:
        lines.alter_column(
            "unit_price_cents", existing_type=sa.BigInteger(), type_=sa.Integer(), existing_nullable=False
        )
    with op.batch_alter_table("tasks") as tasks:
        tasks.alter_column("description", existing_type=sa.Text(), type_=sa.String(500), existing_nullable=True)
    with op.batch_alter_table("projects") as projects:
        projects.alter_column("name", existing_type=sa.String(200), type_=sa.String(80), existing_nullable=False)
