"""index audit log

The log is read by account and time, and it is written to all day: the index is built CONCURRENTLY, outside any
transaction. Should that fail, PostgreSQL keeps a half-built index that it never uses and that IF NOT EXISTS takes
for a good one; so a second run drops such a remainder first. SQLite builds the index in the ordinary way.

Revision ID: d05bc3987e41
Revises: 6a1785f2cd3e
Create Date: 2024-11-18 09:15:52
"""

from alembic import op

revision = "d05bc3987e41"
down_revision = "6a1785f2cd3e"
branch_labels = None
depends_on = None

# In the tenant's schema only: a plain DROP INDEX would look along the search path.
DROP_HALF_BUILT = """
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_index
        JOIN pg_class ON pg_class.oid = pg_index.indexrelid
        JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
        WHERE pg_class.relname = 'ix_audit_log_account_id_created_at'
        AND pg_namespace.nspname = current_schema()
        AND NOT pg_index.indisvalid
    ) THEN
        EXECUTE 'DROP INDEX ' || quote_ident(current_schema()) || '.ix_audit_log_account_id_created_at';
    END IF;
END
$$
"""


def upgrade() -> None:
    context = op.get_context()
    with context.autocommit_block():
        if context.dialect.name == "postgresql":
            op.execute(DROP_HALF_BUILT)
        op.create_index(
            op.f("ix_audit_log_account_id_created_at"),
            "audit_log",
            ["account_id", "created_at"],
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    # Not CONCURRENTLY: dropping takes a moment only, and in the transaction it is all or nothing.
    op.drop_index(op.f("ix_audit_log_account_id_created_at"), table_name="audit_log")
