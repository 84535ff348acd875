"""Evaluation tasks for other evaluators: our prompts, records, parser and scores."""
