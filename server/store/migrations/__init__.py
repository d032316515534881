"""Migrations of the database, run by alembic (server/store/database.py)."""
