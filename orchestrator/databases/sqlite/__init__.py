"""Tenants in SQLite files."""
