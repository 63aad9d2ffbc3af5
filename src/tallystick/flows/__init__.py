"""The verbs: open a transaction, read store, ask core, write store, promise what follows.

Owns: the order in which things are locked, written and promised.
Does not own: rules (core), statements (store), clocks (edges hand down `now`).
Promises: what a flow writes commits together; the head row is locked last; no network inside a transaction.
"""
