"""Who is migrated: tenants, servers and the sources that name them, as frozen values read from tenants.yaml.

Nothing here talks to a database or imports SQLAlchemy: a source is only declared, and whoever reads its rows passes
them to :func:`orchestrator.fleet.rows.read_rows`. This package re-exports nothing, so that importing one
part of it does not pay for pydantic and PyYAML, which only :mod:`orchestrator.fleet.load` needs.
"""
