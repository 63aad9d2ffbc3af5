"""Months and accidents, lived through."""
