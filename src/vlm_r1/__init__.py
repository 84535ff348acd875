"""vlm_r1: a fair, repeatable comparison of GRPO and SFT for referring expression comprehension.

The library knows nothing of Prefect or DVC. Rooms, from the ground up:
boxes / prompts / answers / rewards (text and numpy only) - data - models - training -
evaluation - report - tracking, registry (the only importers of mlflow) - stages - cli.
"""
