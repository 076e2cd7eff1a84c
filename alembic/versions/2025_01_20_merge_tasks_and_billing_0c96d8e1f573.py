"""merge tasks and billing

Two teams had each added a revision after the same one. This one joins them, so that there is one head again.

Revision ID: 0c96d8e1f573
Revises: 3e7a61f0b2d8, a8f4902d6c15
Create Date: 2025-01-20 09:05:14
"""

revision = "0c96d8e1f573"
down_revision = ("3e7a61f0b2d8", "a8f4902d6c15")
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
