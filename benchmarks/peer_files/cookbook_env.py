"""env.py as Alembic's cookbook has it ("Rudimental Schema-Level Multi Tenancy for PostgreSQL Databases").

With ``-x tenant=NAME`` for that schema, as in the cookbook; else for all schemas in turn, over one connection.
"""

from alembic import context
from sqlalchemy import engine_from_config, pool, text

SCHEMAS = text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\\_%' ORDER BY 1")


def run_migrations_offline():
    """Print the SQL."""
    context.configure(dialect_name="postgresql", transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online():
    """Migrate one tenant, or all."""
    engine = engine_from_config(
        context.config.get_section(context.config.config_ini_section), prefix="sqlalchemy.", poolclass=pool.NullPool
    )
    with engine.connect() as connection:
        asked = context.get_x_argument(as_dictionary=True).get("tenant")
        for tenant in [asked] if asked else connection.execute(SCHEMAS).scalars().all():
            connection.execute(text(f'SET search_path TO "{tenant}"'))
            # SET is part of a transaction: without this, Alembic would find one open and leave the commit to us.
            connection.commit()
            connection.dialect.default_schema_name = tenant
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
