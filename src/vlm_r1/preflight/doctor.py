"""`vlm-r1 doctor`: every check of the environment guard, on the base and the first record."""

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
from vlm_r1.preflight import checks as guard
from vlm_r1.preflight import probes
from vlm_r1.preflight.checks import require_rollouts
from vlm_r1.rec import prompts

NOISE_PX = (400, 300)  # width, height of the image that stands in where no data is prepared


def diagnose(params: Params, root: Path) -> list[guard.Finding]:
    """What every check saw or refuses; checks that need the base only where it can be opened."""
    base = base_path(params, root)
    found = guard.examine(guard.machine_checks(params) | {"rollouts": lambda: _rollouts(params)})
    try:
        model_type = model_type_at(base)
        found += guard.examine(guard.family_checks(params, model_type))
        if any(finding.fault for finding in found):
            return found  # the model would be opened on terms that cannot hold
        processor = load_processor(base, params.task)
        model = load_model(base, params.task).eval()
        sample = sample_of(params, root)
    except InputError as fault:
        return [*found, guard.Finding("base", str(base), fault)]
    family = family_of(model_type)
    return found + guard.examine(
        probes.processor_checks(processor, family, params.task, sample)
        | probes.model_checks(model, processor, params.task, sample)
    )


def _rollouts(params: Params) -> str:
    """vLLM in TRL's own process spoils images' placeholders (TRL #6294, #6718)."""
    require_rollouts(params.grpo, params.launch.processes)
    return params.grpo.rollouts


def sample_of(params: Params, root: Path) -> probes.Sample:
    """The first training record as GRPO asks it; noise where no data is prepared yet."""
    file = root / paths.records_file(params.train_dataset)
    if file.exists():
        first = read_records(file).iloc[0]
        images = root / params.datasets[params.train_dataset].images
        image, phrase = open_image(images / first["image"]), first["expression"]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (*NOISE_PX[::-1], 3), dtype=np.uint8)
        image, phrase = Image.fromarray(pixels), "red one"
    text = prompts.fill_template(params.task.prompts.grpo, prompts.question_for(phrase))
    return probes.Sample(image, text)


def finding_text(finding: guard.Finding) -> str:
    """One check for reading: a line, and where it refuses what to do."""
    if finding.fault is None:
        return f"ok     {finding.check}: {finding.seen}"
    told = str(finding.fault).replace("\n", "\n         ")
    return f"FAULT  {finding.check}: {told}"
