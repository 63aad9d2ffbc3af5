"""Tallystick: open, self-hosted, usage-based billing. `docs/architecture.md` shows the rooms."""

__version__ = "0.1.0"
