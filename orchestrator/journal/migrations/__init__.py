"""The journal's own Alembic history. schema.py applies it; env.py lets Alembic's commands work on it."""
