"""Validation of datasets before training: expectations, images, leakage, the outcome's files."""
