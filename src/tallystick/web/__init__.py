"""The HTML edge: pages for people.

Owns: templates, one frozen dataclass per page, formatting for humans.
Does not own: decisions; a page calls one flow and shows what it answers. Formatting never feeds back.
"""
