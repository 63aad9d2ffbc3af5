"""Flows against a real PostgreSQL and a real server."""
