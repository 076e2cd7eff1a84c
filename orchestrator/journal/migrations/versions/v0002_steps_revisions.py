"""Steps outside transactions, and the files that revisions were applied from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "orchestrator_steps",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("heads", sa.JSON(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("begun_at", _MOMENT, nullable=False),
        sa.Column("done_at", _MOMENT),
    )
    op.create_table(
        "orchestrator_revisions",
        sa.Column("revision", sa.Text(), primary_key=True),
        sa.Column("checksum", sa.Text(), primary_key=True),
        sa.Column("first_run", sa.Text(), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("applied_at", _MOMENT),
    )


def downgrade() -> None:
    op.drop_table("orchestrator_revisions")
    op.drop_table("orchestrator_steps")
