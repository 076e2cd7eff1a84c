"""How one tenant is migrated. ``orchestrator upgrade`` and ``alembic upgrade head`` both run this file."""

from alembic import context

from examples.saas import metadata
from orchestrator import for_each_tenant

# What `alembic check` and `alembic revision --autogenerate` compare a tenant with.
target_metadata = metadata


def migrate(connection, tenant):
    """Configure Alembic for one tenant and run its migrations; each revision is committed with its version."""
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        version_table_schema=tenant.schema,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


for_each_tenant(migrate)
