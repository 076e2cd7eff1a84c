"""create plans

The price list, the same for every tenant, so its rows belong to the history. The key is the plan's code: rows
seeded with numbers would collide with the first number that the table's sequence hands out. Accounts that
exist already start on the free plan.

Revision ID: 58a6f4d19c02
Revises: e93c57a2041d
Create Date: 2024-05-06 14:55:33
"""

import sqlalchemy as sa
from alembic import op

revision = "58a6f4d19c02"
down_revision = "e93c57a2041d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    plans = op.create_table(
        "plans",
        sa.Column("code", sa.String(30), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("monthly_cents", sa.Integer(), nullable=False),
        sa.Column("seats", sa.Integer(), nullable=True),
        sa.CheckConstraint("monthly_cents >= 0", name=op.f("ck_plans_monthly_cents_not_negative")),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_plans")),
    )
    op.bulk_insert(
        plans,
        [
            {"code": "free", "name": "Free", "monthly_cents": 0, "seats": 3},
            {"code": "team", "name": "Team", "monthly_cents": 2900, "seats": 25},
            {"code": "business", "name": "Business", "monthly_cents": 9900, "seats": None},
        ],
    )
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("plan_code", sa.String(30), server_default="free", nullable=False))
        accounts.create_foreign_key(op.f("fk_accounts_plan_code_plans"), "plans", ["plan_code"], ["code"])


def downgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.drop_constraint(op.f("fk_accounts_plan_code_plans"), type_="foreignkey")
        accounts.drop_column("plan_code")
    op.drop_table("plans")
