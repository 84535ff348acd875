"""Data validation: the Great Expectations suite, leakage, the outcome and its page."""
