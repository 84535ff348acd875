"""Batched generation with a checkpoint, the cache of its completions, and result files. Torch."""
