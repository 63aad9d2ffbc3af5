"""The time edge: what happens because time passed, and how often we look.

Owns: the clock of recurring acts. Does not own: the acts; each is a flow that finds its due work in the rows
themselves (`closes_at`, `collect_at`, an unfinished clock run), so a crash forgets nothing and a repeat is a no-op.
"""
