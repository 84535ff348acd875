"""Opening checkpoints; the tiny Qwen2.5-VL and how it is raised."""
