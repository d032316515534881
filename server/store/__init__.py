"""State: the database's tables, stored objects, jobs, keys and tenants."""
