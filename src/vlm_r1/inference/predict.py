"""Finds one thing in one image with one checkpoint: `vlm-r1 predict`."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_r1.config import METHODS, Params
from vlm_r1.config.sections import Prompts
from vlm_r1.data.images import draw_boxes, open_image
from vlm_r1.inference.generate import generate_completions
from vlm_r1.inference.questions import Completion, question_about
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.rec.parsing import Unparsed, box_in_original, parse_answer

BOX_RGB = (255, 0, 90)


def predict_box(
    params: Params,
    checkpoint: str | Path,
    image_file: Path,
    expression: str,
    template: str | None,
    out: Path | None,
) -> dict[str, Any]:
    """The box that a checkpoint gives for `expression`.

    Args:
        params: `task` gives coordinate space, pixel budget, dtype and attention.
        checkpoint: a folder, or the task's base by its name on the hub.
        template: a name of `prompts.TEMPLATES`; None: the one the checkpoint was trained with.
        out: where to write the image with its box; nothing is written if there is no box.

    Returns:
        {box: [x1, y1, x2, y2] in original pixels or None, reason, completion}.

    Raises:
        DataError: the image is missing or broken.
        ModelError: the checkpoint cannot be used.
    """
    image = open_image(image_file)
    template = template or _own_template(params.task.prompts, checkpoint)
    completion = generate_completions(
        load_model(checkpoint, params.task),
        load_processor(checkpoint, params.task),
        [question_about(template, expression, image_file)],
        batch_tokens=1,  # one row
        max_new_tokens=params.evaluate.max_new_tokens,
    )[0]
    answer = _parse(completion, params.task.coordinate_space, (image.height, image.width))
    if out is not None and answer["box"] is not None:
        _draw(image, answer["box"], out)
    return answer


def _own_template(prompts: Prompts, checkpoint: str | Path) -> str:
    """The template of the method whose folder the checkpoint is in; `plain` for any other."""
    method = Path(checkpoint).resolve().parent.name
    return getattr(prompts, method) if method in METHODS else "plain"


def _parse(
    completion: Completion, coordinate_space: str, image_size: tuple[int, int]
) -> dict[str, Any]:
    parsed = parse_answer(completion.text, coordinate_space)
    if isinstance(parsed, Unparsed):
        return {"box": None, "reason": parsed.reason, "completion": completion.text}
    box = box_in_original(parsed, image_size, completion.input_size)
    return {"box": np.round(box, 2).tolist(), "reason": None, "completion": completion.text}


def _draw(image: Image.Image, box: list[float], out: Path) -> None:
    line_px = max(1, round(max(image.size) / 200))
    draw_boxes(image, [(box, BOX_RGB)], width_px=line_px)
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out)
