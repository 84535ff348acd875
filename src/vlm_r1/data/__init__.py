"""Drawn worlds, readers, records, and the checks that data must pass."""
