"""The command line: every verb an operator needs, with exit codes that scripts can trust.

0 done · 1 it could not be done, and the message says why · 2 the command was not understood.
With --json one document goes to stdout and everything else to stderr.
"""

from tallystick.cli.main import main

__all__ = ["main"]
