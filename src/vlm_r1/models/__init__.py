"""Checkpoints and model families; the tiny Qwen2.5-VL and its pretraining."""
