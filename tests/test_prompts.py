"""Prompts are frozen: a changed space moves accuracy by points."""

from vlm_r1.rec import prompts

QUESTION = (
    "Please provide the bounding box coordinate of the region this sentence describes: red dog."
)


def test_the_question_is_vlm_r1s():
    assert prompts.question_for("red dog") == QUESTION


def test_the_templates_are_frozen():
    assert prompts.fill_template("plain", QUESTION) == QUESTION
    assert prompts.fill_template("r1", QUESTION) == (
        QUESTION + " First output the thinking process in <think> </think> tags and then output "
        "the final answer in <answer> </answer> tags. Output the final answer in JSON format."
    )
    assert prompts.fill_template("json", QUESTION) == (
        QUESTION + " Please provide the bounding box coordinate in JSON format."
    )
    assert set(prompts.TEMPLATES) == {"plain", "r1", "json"}


def test_a_phrase_with_braces_is_asked_as_it_is():
    assert "{question} {0}" in prompts.fill_template("r1", prompts.question_for("{question} {0}"))


def test_the_answers_are_frozen():
    assert prompts.box_answer((1, 2, 3, 4), "red dog") == (
        '```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label": "red dog"}\n]\n```'
    )
    assert prompts.r1_answer("left", (1, 2, 3, 4)) == (
        '<think>left</think><answer>{"bbox_2d": [1, 2, 3, 4]}</answer>'
    )
