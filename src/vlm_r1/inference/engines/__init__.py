"""Engines of evaluation: what answers the questions with a checkpoint (`evaluate.engine`)."""
