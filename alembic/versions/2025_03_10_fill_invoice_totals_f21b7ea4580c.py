"""fill invoice totals

Second step of three: the total of every invoice that has none yet. It goes by 500 invoices at a time, to keep
each statement well under the statement timeout; with ``--sql``, where nothing can be read, the same statement
is written once for all. Going back leaves the totals: they are right, and go with their column.

Revision ID: f21b7ea4580c
Revises: 0c96d8e1f573
Create Date: 2025-03-10 10:48:55
"""

import sqlalchemy as sa
from alembic import op

revision = "f21b7ea4580c"
down_revision = "0c96d8e1f573"
branch_labels = None
depends_on = None

BATCH = 500

invoices = sa.table("invoices", sa.column("id"), sa.column("total_cents"))
lines = sa.table("invoice_lines", sa.column("invoice_id"), sa.column("quantity"), sa.column("unit_price_cents"))

fill = (
    sa.update(invoices)
    .where(invoices.c.total_cents.is_(None))
    .values(
        total_cents=sa.select(sa.func.coalesce(sa.func.sum(lines.c.quantity * lines.c.unit_price_cents), sa.text("0")))
        .where(lines.c.invoice_id == invoices.c.id)
        .scalar_subquery()
    )
)


def upgrade() -> None:
    if op.get_context().as_sql:
        op.execute(fill)
        return
    connection = op.get_bind()
    empty = sa.select(invoices.c.id).where(invoices.c.total_cents.is_(None)).order_by(invoices.c.id).limit(BATCH)
    while ids := connection.scalars(empty).all():
        connection.execute(fill.where(invoices.c.id.between(ids[0], ids[-1])))


def downgrade() -> None:
    pass
