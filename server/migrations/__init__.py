"""Migrations of the database, run by alembic (server/database.py)."""
