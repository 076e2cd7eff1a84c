"""How one tenant is migrated. ``orchestrator upgrade`` and ``alembic upgrade head`` both run this file."""

from alembic import context

from orchestrator import for_each_tenant

# What `orchestrator revision --autogenerate` and `alembic check` compare a tenant with: the MetaData of your tables.
#     from myapp.tables import Base
#     target_metadata = Base.metadata
target_metadata = None


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
