"""Checks before a long run starts: will it work, will it fit in memory."""
