"""The prompts a model is asked with, and the answers it is taught.

Question and R1 suffix are VLM-R1's own (om-ai-lab/VLM-R1, src/open-r1-multimodal, REC task). A
snapshot test freezes them, because even a changed space moves accuracy by points.
"""

import json
from collections.abc import Sequence

QUESTION = (
    "Please provide the bounding box coordinate of the region this sentence describes: "
    "{expression}."
)

# VLM-R1's question for open-vocabulary detection (OVD)
DETECTION_QUESTION = (
    "Please carefully check the image and detect the following objects: {targets}. Output each "
    "detected target's bbox coordinates in JSON format. The format of the bbox coordinates is:\n"
    '```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "target name"}, '
    '{"bbox_2d": [x1, y1, x2, y2], "label": "target name"}]\n```. '
    "If there are no such targets in the image, simply respond with None."
)

PLAIN = "{question}"
R1 = (
    "{question} First output the thinking process in <think> </think> tags and then output the "
    "final answer in <answer> </answer> tags. Output the final answer in JSON format."
)
JSON_REQUEST = "{question} Please provide the bounding box coordinate in JSON format."

TEMPLATES = {"plain": PLAIN, "r1": R1, "json": JSON_REQUEST}


def question_for(expression: str, detects: bool = False) -> str:
    """VLM-R1's `problem` sentence for an expression, or its question for a list of targets."""
    if detects:
        return DETECTION_QUESTION.replace("{targets}", expression)
    return QUESTION.replace("{expression}", expression)


def expression_in(question: str) -> str | None:
    """The expression in a `problem` sentence, or the targets to detect; None for any other text."""
    targets = targets_in(question)
    return _between(question, *QUESTION.split("{expression}")) if targets is None else targets


def targets_in(question: str) -> str | None:
    """The list of targets in VLM-R1's question for detection; None for any other text.

    How the format of the answer is described may differ.
    """
    asks, describes = DETECTION_QUESTION.split("{targets}")
    targets, found, _ = question.partition(describes.partition(". The")[0])
    return _between(targets, asks, "") if found else None


def _between(text: str, before: str, after: str) -> str | None:
    if text.startswith(before) and text.endswith(after):
        return text.removeprefix(before).removesuffix(after)
    return None


def fill_template(template_name: str, question: str) -> str:
    """The user turn: `question` in the template named `template_name` (plain, r1 or json)."""
    return TEMPLATES[template_name].replace("{question}", question)


def box_answer(box: tuple[int, int, int, int], label: str) -> str:
    """The answer SFT teaches: a fenced JSON list of one box, as in VLM-R1's mllm_rec_json.json."""
    return boxes_answer([(box, label)])


def boxes_answer(boxes: Sequence[tuple[Sequence[float], str]]) -> str:
    """The same with a line for each (box, label); None, as the question asks, without any."""
    if not boxes:
        return "None"
    entries = [
        json.dumps({"bbox_2d": list(box), "label": label}, ensure_ascii=False)
        for box, label in boxes
    ]
    lines = ",\n\t".join(entries)
    return f"```json\n[\n\t{lines}\n]\n```"


def r1_answer(thought: str, box: tuple[int, int, int, int]) -> str:
    """A completion in R1's format: a thought, then a box in answer tags."""
    entry = json.dumps({"bbox_2d": list(box)})
    return f"<think>{thought}</think><answer>{entry}</answer>"
