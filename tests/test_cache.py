"""The cache of completions: truncated at any byte, several writers, broken lines."""

import threading

import pytest

from vlm_r1.errors import ResultError
from vlm_r1.inference.cache import CompletionKey, CompletionStore
from vlm_r1.inference.questions import Completion, Question, questions_digest

KEY = {
    "checkpoint_digest": "c",
    "base_digest": "b",
    "questions_digest": "q",
    "min_pixels": 3136,
    "max_pixels": 12_845_056,
    "dtype": "float32",
    "attention": "eager",
    "max_new_tokens": 72,
    "decoding": "greedy",
    "engine": "transformers",
    "torch": "2",
    "transformers": "5",
}
OTHER = {
    "checkpoint_digest": "d",
    "base_digest": "c",
    "questions_digest": "r",
    "min_pixels": 784,
    "max_pixels": 784,
    "dtype": "bfloat16",
    "attention": "sdpa",
    "max_new_tokens": 71,
    "decoding": "sampled",
    "engine": "vllm 0.32.0",
    "torch": "3",
    "transformers": "6",
}
COMPLETIONS = [
    Completion(text, (56, 84), 7 + i, i == 3)
    for i, text in enumerate(("[1, 2, 3, 4]", 'é "\n\u2028', "", "<answer>"))
]
BATCHES = ([2, 0], [1, 3])


@pytest.fixture
def store(tmp_path) -> CompletionStore:
    return CompletionStore(tmp_path, CompletionKey(**KEY))


def write(store: CompletionStore, rank: int = 0) -> None:
    """Append every batch that is not complete yet, as an evaluation does."""
    with store.appending(rank) as append:
        cached = store.read().keys()
        for rows in BATCHES:
            if not cached >= set(rows):
                append(rows, [COMPLETIONS[row] for row in rows])


def test_completions_are_read_in_row_order(store):
    write(store)
    assert store.read_all(4) == COMPLETIONS


def test_a_file_truncated_at_any_byte_is_read_up_to_there_and_completed(store):
    write(store)
    file = store.folder / "rank-0.jsonl"
    whole = file.read_bytes()
    assert whole.count(b"\n") == len(COMPLETIONS)
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        rows = [2, 0, 1, 3][: whole[:size].count(b"\n")]
        assert store.read() == {row: COMPLETIONS[row] for row in rows}
        write(store)
        assert store.read_all(4) == COMPLETIONS


def test_each_process_writes_its_own_file(store):
    for rank, rows in enumerate(BATCHES):
        with store.appending(rank) as append:
            append(rows, [COMPLETIONS[row] for row in rows])
    assert store.read_all(4) == COMPLETIONS
    assert len(list(store.folder.glob("rank-*.jsonl"))) == 2


def test_a_second_writer_waits_for_the_first(store):
    done = []

    def second():
        write(store)
        done.append(True)

    with store.appending(0) as append:
        other = threading.Thread(target=second)
        other.start()
        for rows in BATCHES:
            append(rows, [COMPLETIONS[row] for row in rows])
        other.join(0.2)
        assert done == []
    other.join(10)
    assert done == [True]
    assert (store.folder / "rank-0.jsonl").read_bytes().count(b"\n") == len(COMPLETIONS)


def test_a_missing_row_is_named(store):
    with store.appending(0) as append:
        append([0, 2], [COMPLETIONS[0], COMPLETIONS[2]])
    with pytest.raises(ResultError, match="no completion of row 1"):
        store.read_all(4)


@pytest.mark.parametrize(
    "line", ["", "not json", "[]", '{"row": 1}', '{"row": 1, "text": "", "input_size": [1]}']
)
def test_a_broken_line_is_named(store, line):
    write(store)
    file = store.folder / "rank-0.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ResultError, match=r"rank-0\.jsonl: line 5: not a completion"):
        store.read()


@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_the_key_changes_its_digest(field):
    other = CompletionKey(**KEY | {field: OTHER[field]})
    assert other.digest != CompletionKey(**KEY).digest
    assert set(OTHER) | {"version"} == set(CompletionKey.model_fields)


def test_the_folder_holds_the_key_that_its_name_is_the_digest_of(store):
    write(store)
    text = (store.folder / "key.json").read_text()
    assert CompletionKey.model_validate_json(text).digest == store.folder.name
    assert store.folder.parent.parts[-2:] == (".cache", "completions")


def test_the_digest_of_questions_follows_text_and_image_bytes_not_file_names(image, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(image.read_bytes())
    asked = questions_digest([Question("Where?", image)])
    assert questions_digest([Question("Where?", copy)]) == asked
    assert questions_digest([Question("What?", image)]) != asked
    copy.write_bytes(image.read_bytes() + b"\0")
    assert questions_digest([Question("Where?", copy)]) != asked
    two = [Question("a", image), Question("b", image)]
    assert questions_digest(two) != questions_digest(two[::-1])
