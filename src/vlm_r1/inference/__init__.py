"""Asking checkpoints: batched generation, its cache, and result files. Loads torch."""
