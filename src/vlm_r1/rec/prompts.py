"""The prompts a model is asked with, and the answers it is taught.

Question and R1 suffix are VLM-R1's own (om-ai-lab/VLM-R1, src/open-r1-multimodal, REC task). A
snapshot test freezes them, because even a changed space moves accuracy by points.
"""

import json

QUESTION = (
    "Please provide the bounding box coordinate of the region this sentence describes: "
    "{expression}."
)

PLAIN = "{question}"
R1 = (
    "{question} First output the thinking process in <think> </think> tags and then output the "
    "final answer in <answer> </answer> tags. Output the final answer in JSON format."
)
JSON_REQUEST = "{question} Please provide the bounding box coordinate in JSON format."

TEMPLATES = {"plain": PLAIN, "r1": R1, "json": JSON_REQUEST}


def question_for(expression: str) -> str:
    """VLM-R1's `problem` sentence for an expression."""
    return QUESTION.replace("{expression}", expression)


def expression_in(question: str) -> str | None:
    """The expression in a `problem` sentence; None for any other sentence."""
    before, after = QUESTION.split("{expression}")
    if question.startswith(before) and question.endswith(after):
        return question.removeprefix(before).removesuffix(after)
    return None


def fill_template(template_name: str, question: str) -> str:
    """The user turn: `question` in the template named `template_name` (plain, r1 or json)."""
    return TEMPLATES[template_name].replace("{question}", question)


def box_answer(box: tuple[int, int, int, int], label: str) -> str:
    """The answer SFT teaches: a fenced JSON list of one box, as in VLM-R1's mllm_rec_json.json."""
    entry = json.dumps({"bbox_2d": list(box), "label": label}, ensure_ascii=False)
    return f"```json\n[\n\t{entry}\n]\n```"


def r1_answer(thought: str, box: tuple[int, int, int, int]) -> str:
    """A completion in R1's format: a thought, then a box in answer tags."""
    entry = json.dumps({"bbox_2d": list(box)})
    return f"<think>{thought}</think><answer>{entry}</answer>"
