"""One image, one phrase, one checkpoint: the box, and the image with the box drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from vlm_r1.config import METHODS, Params
from vlm_r1.data.images import draw_boxes, open_image
from vlm_r1.inference.generate import ask_all
from vlm_r1.inference.questions import Completion, question_about
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.rec.parsing import Unparsed, box_in_original, parse_answer

BOX_RGB = (255, 0, 90)


def predict_box(
    params: Params,
    checkpoint: str | Path,
    image: Path,
    phrase: str,
    template: str | None,
    out: Path | None,
) -> dict:
    """Ask a checkpoint for the box of `phrase` in `image`.

    Args:
        params: `task` says coordinate space, pixel budget, dtype and attention.
        checkpoint: a folder or a hub name.
        template: a name of `prompts.TEMPLATES`; None takes the checkpoint's own.
        out: where to write the image with its box; nothing is written if there is no box.

    Returns:
        {box: [x1, y1, x2, y2] in original pixels or None, reason, completion}.

    Raises:
        DataError: the image is missing or broken.
        ModelError: the checkpoint cannot be used.
    """
    opened = open_image(image)
    question = question_about(template or _own_template(params, checkpoint), phrase, image)
    completion = ask_all(
        load_model(checkpoint, params.task),
        load_processor(checkpoint, params.task),
        [question],
        batch_tokens=params.evaluate.batch_tokens,
        max_new_tokens=params.evaluate.max_new_tokens,
    )[0]
    answer = _answer(completion, params.task.coordinate_space, (opened.height, opened.width))
    if out is not None and answer["box"] is not None:
        _draw(opened, answer["box"], out)
    return answer


def _own_template(params: Params, checkpoint: str | Path) -> str:
    """The prompt of the method whose folder the checkpoint lies in; the plain one otherwise."""
    method = Path(checkpoint).resolve().parent.name
    return getattr(params.task.prompts, method) if method in METHODS else "plain"


def _answer(completion: Completion, coordinate_space: str, image_size: tuple[int, int]) -> dict:
    parsed = parse_answer(completion.text, coordinate_space)
    if isinstance(parsed, Unparsed):
        return {"box": None, "reason": parsed.reason, "completion": completion.text}
    box = box_in_original(parsed, image_size, completion.input_size)
    return {"box": np.round(box, 2).tolist(), "reason": None, "completion": completion.text}


def _draw(image: Image.Image, box: list[float], out: Path) -> None:
    thickness = max(1, round(max(image.size) / 200))
    draw_boxes(image, [(box, BOX_RGB)], width_px=thickness)
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out)
