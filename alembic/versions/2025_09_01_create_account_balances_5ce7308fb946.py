"""create account balances

What each account still owes, for the reports. A later revision that changes a column of ``invoices`` named here
has to drop this view first and create it again.

Revision ID: 5ce7308fb946
Revises: 4b9e15d27fa0
Create Date: 2025-09-01 12:00:27
"""

from alembic import op

revision = "5ce7308fb946"
down_revision = "4b9e15d27fa0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE VIEW account_balances AS
        SELECT account_id, currency, count(*) AS open_invoices, sum(total_cents) AS open_cents
        FROM invoices
        WHERE status = 'sent'
        GROUP BY account_id, currency
        """
    )


def downgrade() -> None:
    op.execute("DROP VIEW account_balances")
