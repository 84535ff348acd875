"""Evaluation: generation, scoring, statistics, choice of a checkpoint."""
