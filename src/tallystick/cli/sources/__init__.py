"""Files of events, row by row.

Owns: opening a file, its format, gzip, encodings and types; a module a format.
Does not own: which column is what (`core.mapping`), whether an event is acceptable (`core.events`).
Promises: rows come numbered and in order, memory holds a few of them however long the file is, no float is born,
and where a file is damaged everything before the damage was given.
"""
