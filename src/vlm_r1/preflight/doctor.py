"""`vlm-r1 doctor`: runs every preflight check, on the base model and the first training record."""

from pathlib import Path

import numpy as np
from PIL import Image

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.data.images import open_image
from vlm_r1.data.records import read_records
from vlm_r1.errors import InputError
from vlm_r1.experiment import base_path
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import load_model, load_processor, model_type_at
from vlm_r1.preflight.checks import (
    PreflightResult,
    check_rollouts,
    family_checks,
    machine_checks,
    run_checks,
)
from vlm_r1.preflight.probes import Sample, model_checks, processor_checks
from vlm_r1.rec import prompts

NOISE_PX = (400, 300)  # width, height of the image used where no data is prepared


def diagnose(params: Params, root: Path) -> list[PreflightResult]:
    """The result of every check; those on the base run only if all earlier ones passed."""
    task = params.task
    rollouts = {"rollouts": lambda: check_rollouts(params.grpo, params.launch.processes)}
    results = run_checks(machine_checks(params) | rollouts)
    try:
        base = base_path(params, root)
        model_type = model_type_at(base)
        results += run_checks(family_checks(task, model_type))
        if any(result.fault for result in results):
            return results  # the model would be loaded with settings that are known to fail
        processor = load_processor(base, task)
        model = load_model(base, task).eval()
        sample = sample_of(params, root)
    except InputError as fault:
        return [*results, PreflightResult("base", task.base_model, fault)]
    return results + run_checks(
        processor_checks(processor, family_of(model_type), task, sample)
        | model_checks(model, processor, task, sample)
    )


def sample_of(params: Params, root: Path) -> Sample:
    """The first training record in GRPO's prompt; a noise image where no data is prepared yet."""
    name = params.train_datasets[0]
    file = root / paths.records_file(name)
    if file.exists():
        first = read_records(file).iloc[0]
        images = root / params.datasets[name].images
        image, expression = open_image(images / first["image"]), first["expression"]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (*NOISE_PX[::-1], 3), dtype=np.uint8)
        image, expression = Image.fromarray(pixels), "red one"
    text = prompts.fill_template(params.task.prompts.grpo, prompts.question_for(expression))
    return Sample(image, text)


def result_text(result: PreflightResult) -> str:
    """One result as text: a line, and what to do if the check refused."""
    if result.fault is None:
        return f"ok     {result.check}: {result.seen}"
    fault = str(result.fault).replace("\n", "\n         ")
    return f"FAULT  {result.check}: {fault}"
