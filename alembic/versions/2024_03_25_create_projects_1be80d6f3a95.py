"""create projects

A project's name is unique within its account only. Finished projects are archived, never deleted.

Revision ID: 1be80d6f3a95
Revises: 7d52be10c8f4
Create Date: 2024-03-25 09:40:05
"""

import sqlalchemy as sa
from alembic import op

revision = "1be80d6f3a95"
down_revision = "7d52be10c8f4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_projects_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_projects_account_id_name")),
    )


def downgrade() -> None:
    op.drop_table("projects")
