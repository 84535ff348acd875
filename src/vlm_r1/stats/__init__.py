"""Paired, clustered bootstrap and the statistics computed with it. Numpy and scipy only."""
