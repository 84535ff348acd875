"""A training stage in a process of its own, so that a test can kill it. Nothing is tracked.

Usage: python tests/resume_process.py PROJECT METHOD
"""

import logging
import sys
from pathlib import Path

from tests.conftest import untracked_training
from vlm_r1.config import load_params

if __name__ == "__main__":
    root, method = Path(sys.argv[1]), sys.argv[2]
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    untracked_training(load_params(root / "params.yaml"), root, method)
