"""Runs, the attempts in them, and their events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "orchestrator_runs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("requested_target", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT),
        sa.Column("actor_user", sa.Text(), nullable=False),
        sa.Column("actor_host", sa.Text(), nullable=False),
        sa.Column("actor_pid", sa.Integer(), nullable=False),
        sa.Column("actor_process_started", sa.Text()),
        sa.Column("actor_git_commit", sa.Text()),
        sa.Column("directory_digest", sa.Text()),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("heartbeat_at", _MOMENT),
    )
    op.create_index("orchestrator_runs_started_at", "orchestrator_runs", ["started_at"])
    op.create_table(
        "orchestrator_attempts",
        sa.Column("run", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("position", sa.Integer()),
        sa.Column("wave", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("from_heads", sa.JSON()),
        sa.Column("to_heads", sa.JSON()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("path", sa.Text()),
        sa.Column("error", sa.JSON()),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
    )
    op.create_index("orchestrator_attempts_tenant", "orchestrator_attempts", ["tenant"])
    op.create_table(
        "orchestrator_events",
        sa.Column("run", sa.Text(), primary_key=True),
        sa.Column("writer", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.Text()),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text()),
        sa.Column("direction", sa.Text()),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("detail", sa.JSON()),
    )


def downgrade() -> None:
    op.drop_table("orchestrator_events")
    op.drop_table("orchestrator_attempts")
    op.drop_table("orchestrator_runs")
