"""Referring expression comprehension: boxes, prompts, parsing, rewards. Text and numpy only."""
