"""log invoice status changes

A change of status reaches the audit log whatever program made it. The function finds the log in the schema of
the table that fired it: it works for the tenant it belongs to, whatever search path the caller has.

Revision ID: 4b9e15d27fa0
Revises: 8d4063c9ea17
Create Date: 2025-06-16 16:29:18
"""

from alembic import op

revision = "4b9e15d27fa0"
down_revision = "8d4063c9ea17"
branch_labels = None
depends_on = None

POSTGRESQL = (
    """
    CREATE FUNCTION log_invoice_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE 'INSERT INTO ' || quote_ident(TG_TABLE_SCHEMA) || '.audit_log (account_id, action, details)'
            ' VALUES ($1, $2, $3)'
        USING NEW.account_id, 'invoice.' || NEW.status, jsonb_build_object('invoice', NEW.number, 'was', OLD.status);
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER log_invoice_status AFTER UPDATE OF status ON invoices
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION log_invoice_status()
    """,
)
SQLITE = (
    """
    CREATE TRIGGER log_invoice_status AFTER UPDATE OF status ON invoices
    FOR EACH ROW WHEN OLD.status <> NEW.status
    BEGIN
        INSERT INTO audit_log (account_id, action, details)
        VALUES (NEW.account_id, 'invoice.' || NEW.status, json_object('invoice', NEW.number, 'was', OLD.status));
    END
    """,
)


def upgrade() -> None:
    for statement in POSTGRESQL if op.get_context().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TRIGGER log_invoice_status ON invoices")
        op.execute("DROP FUNCTION log_invoice_status()")
    else:
        op.execute("DROP TRIGGER log_invoice_status")
