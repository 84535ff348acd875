"""Runs the stage `evaluate` without MLflow, as a process that a test can kill: ROOT METHOD."""

import logging
import sys
from pathlib import Path

import torch

from vlm_r1 import environment, tracking
from vlm_r1.config import load_params
from vlm_r1.stages import evaluate

if __name__ == "__main__":
    root, method = Path(sys.argv[1]), sys.argv[2]
    environment.set_defaults()
    torch.set_num_threads(1)  # the order of sums as in the test's own process
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tracking.after_evaluation = lambda *_: None
    evaluate.run(load_params(root / "params.yaml"), root, method)
