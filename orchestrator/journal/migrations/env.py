"""Alembic's way into the journal's history: for ``revision --autogenerate`` and ``check`` while developing it.

A journal in use is never migrated through here but by orchestrator/journal/schema.py, which leaves Alembic's
process-wide proxies alone.
"""

from alembic import context

from orchestrator.journal.tables import VERSION_TABLE, metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether autogenerate may look at this object: the database may be shared with others."""
    return kind != "table" or name in metadata.tables


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
)
with context.begin_transaction():
    context.run_migrations()
