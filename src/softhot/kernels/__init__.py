"""Faster ways to the row statistics of :mod:`softhot.core.row`, each held to that reference."""
