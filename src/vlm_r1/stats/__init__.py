"""Standard errors over images, tests, and statistics of curves. Numpy and scipy only."""
