"""Scoring, comparing and diagnosing results, and choosing a checkpoint. Numpy and scipy only."""
