"""add task priority and due date

For the board that sorts by urgency: 1 is most urgent, 5 least, and what exists already is in the middle.

Revision ID: 3e7a61f0b2d8
Revises: d05bc3987e41
Create Date: 2025-01-13 11:36:29
"""

import sqlalchemy as sa
from alembic import op

revision = "3e7a61f0b2d8"
down_revision = "d05bc3987e41"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tasks") as tasks:
        tasks.add_column(sa.Column("priority", sa.SmallInteger(), server_default="3", nullable=False))
        tasks.add_column(sa.Column("due_on", sa.Date(), nullable=True))
        tasks.create_check_constraint(op.f("ck_tasks_priority_in_range"), "priority BETWEEN 1 AND 5")
    op.create_index(op.f("ix_tasks_due_on"), "tasks", ["due_on"])


def downgrade() -> None:
    op.drop_index(op.f("ix_tasks_due_on"), table_name="tasks")
    with op.batch_alter_table("tasks") as tasks:
        tasks.drop_constraint(op.f("ck_tasks_priority_in_range"), type_="check")
        tasks.drop_column("due_on")
        tasks.drop_column("priority")
