"""Synthetic datasets: scenes, referring expressions, drawings."""
