"""Stage `candidate`: trains with one learning rate -> its validation score in results/search.

The weights are removed once they are scored: a search of k candidates would else take k times the
disk. The chosen one is trained again by the stage `sft` or `grpo`, with every checkpoint kept.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.errors import ConfigError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.evaluation.search import Candidate
from vlm_r1.evaluation.selection import pooled_score
from vlm_r1.files import write_text
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.launch import require_world
from vlm_r1.training import grpo, sft
from vlm_r1.training.cost import read_cost
from vlm_r1.training.job import TrainingJob, load_job


def run(params: Params, root: Path, method: Method, learning_rate: float) -> None:
    """Train `method` with this learning rate and score its last checkpoint on validation.

    Raises:
        ConfigError: the search has no such candidate, or `launch` asks for another number of
            processes than run this.
    """
    if learning_rate not in params.candidates(method):
        raise ConfigError(
            got=f"learning rate {learning_rate} for {method}",
            need=f"one of {params.candidates(method)}, as in search.{method}.learning_rate",
            because="the report shows every candidate that was tried, and how many",
            do="add it to `search` in params.yaml",
        )
    require_world(params.launch)
    candidate = params.as_candidate(method, learning_rate)
    output = root / paths.SEARCHED / f"{method}-{learning_rate}"
    job = replace(load_job(candidate, root, method), output=output)
    (sft if method == "sft" else grpo).train(job)
    _score(job)


def _score(job: TrainingJob) -> None:
    """Write the score of the last checkpoint, then remove the training's folder."""
    params, method = job.params, job.method
    step = params.steps_of(method)
    checkpoint = job.output / f"checkpoint-{step}"
    evaluator = make_evaluator(params, job.root, method, datasets=params.names("validation"))
    results = evaluator.evaluate_checkpoint(step, checkpoint)
    if evaluator.distributed.is_main_process:
        score = pooled_score([score_results(one.result) for one in results])
        cost = read_cost(checkpoint)
        found = Candidate(
            method=method,
            learning_rate=getattr(params, method).learning_rate,
            step=step,
            accuracy=score.accuracy,
            mean_iou=score.mean_iou,
            seconds=cost["seconds"],
            flops=cost["flops"],
        )
        file = job.root / paths.candidate_file(method, found.learning_rate)
        write_text(file, found.model_dump_json(indent=1))
        shutil.rmtree(job.output)
    evaluator.distributed.destroy_process_group()
