"""Tenants of PostgreSQL saved, put back and cloned."""
