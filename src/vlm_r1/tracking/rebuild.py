"""MLflow rebuilt from the files: `vlm-r1 track`."""

import logging
from itertools import product
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.tracking.evaluations import track_evaluation
from vlm_r1.tracking.reports import track_report
from vlm_r1.tracking.runs import read_contract
from vlm_r1.tracking.trainings import track_training

logger = logging.getLogger(__name__)


def rebuild(root: Path, params: Params) -> None:
    """Record all trainings, evaluations and the report that the files hold and MLflow lacks.

    Raises:
        ModelError, ContractError, ResultError: files that do not belong together.
    """
    for method, seed in product(METHODS, params.all_seeds):
        run = params.run_name(method, seed)
        if (root / paths.RESULTS / run).exists():
            track_evaluation(root, params, method, seed)
            logger.info("%s: training and evaluation recorded", run)
        elif (root / paths.run_dir(run)).exists():
            track_training(root, params, read_contract(root, params, method, seed), method)
            logger.info("%s: training recorded, no results yet", run)
        else:
            logger.info("%s: not trained yet", run)
    if (root / paths.REPORT / "report.json").exists():
        contract = read_contract(root, params, METHODS[0])
        track_report(root, params, contract)
        logger.info("report recorded")
