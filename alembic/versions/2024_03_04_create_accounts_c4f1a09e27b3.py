"""create accounts

An account is a team that works together and gets one bill. The slug is what stands in its web address.

Revision ID: c4f1a09e27b3
Revises:
Create Date: 2024-03-04 10:12:41
"""

import sqlalchemy as sa
from alembic import op

revision = "c4f1a09e27b3"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("slug", sa.String(63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("slug", name=op.f("uq_accounts_slug")),
    )


def downgrade() -> None:
    op.drop_table("accounts")
