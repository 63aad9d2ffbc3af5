"""Migrations: numbered plain SQL, forward only, run under a lock by `store/migrate.py`."""
