"""Tenants in schemas and databases of PostgreSQL."""
