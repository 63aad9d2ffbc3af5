"""The SQL room: every statement in the system, and nothing that decides.

Owns: connections, migrations, the embedded PostgreSQL, and one function per statement.
Does not own: rules; a function takes keyword arguments, runs one statement, and returns plain values.
Promises: every query is scoped by organization or by an id that was found in its scope; nothing commits here.
"""
