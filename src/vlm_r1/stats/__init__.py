"""Paired, clustered bootstrap and what is computed with it. Numpy and scipy only."""
