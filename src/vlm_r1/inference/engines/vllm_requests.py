"""Requests to vLLM's server, and the check that it saw the prompt that we mean."""

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_r1.data.images import open_image, read_header
from vlm_r1.errors import ModelError
from vlm_r1.inference.chat_prompts import Prompt
from vlm_r1.inference.engines.vllm_environment import NAME
from vlm_r1.inference.questions import Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.rec.contract import STOP

GREEDY = {"temperature": 0.0}
# Of the checkpoint's generation_config only what greedy decoding uses: its repetition penalty.
DECODING = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "n": 1}


def request(question: Question, max_new_tokens: int) -> dict[str, Any]:
    """The body of a request without its temperature; the image stands before the text."""
    content = [
        {"type": "image_url", "image_url": {"url": image_url(question.image)}},
        {"type": "text", "text": question.text},
    ]
    return {
        "model": NAME,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_new_tokens,
        "stop": [STOP],
        "include_stop_str_in_output": True,
        "return_token_ids": True,
        **DECODING,
    }


def sampled(sampling: Sampling, row: int) -> dict[str, Any]:
    """Decoding of a sampled answer: both methods' rows have the same seeds."""
    return {"temperature": sampling.temperature, "seed": sampling.row_seed(row)}


@lru_cache(maxsize=64)  # rows of one image follow each other
def image_url(file: Path) -> str:
    """The image as a data URL: the file itself if it is read the same way by everybody, else PNG.

    `open_image` turns images upright, puts transparent ones on white and so on.

    Raises:
        DataError: it is missing or broken.
    """
    if (kind := _plain_kind(file)) is not None:
        content = file.read_bytes()
    else:
        kind, buffer = "png", io.BytesIO()
        open_image(file).save(buffer, "PNG", compress_level=1)
        content = buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _plain_kind(file: Path) -> str | None:
    """ "jpeg" or "png" for an upright opaque RGB image, else None."""
    _, _, orientation = read_header(file)
    with Image.open(file) as image:
        is_plain = image.mode == "RGB" and not image.has_transparency_data and orientation == 1
        kind = (image.format or "").lower()
        return kind if is_plain and kind in ("jpeg", "png") else None


def expected_ids(processor: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, its image token repeated for each token of the image."""
    ids = processor.tokenizer(prompt.text)["input_ids"]
    at = ids.index(processor.image_token_id)
    return ids[:at] + [processor.image_token_id] * (prompt.tokens - len(ids) + 1) + ids[at + 1 :]


def require_prompt(ours: list[int], theirs: list[int], prompt: Prompt) -> None:
    """Require that the server saw the prompt that the checkpoint's own processor makes.

    Raises:
        ModelError: another number of tokens, or other tokens.
    """
    if ours == theirs:
        return
    equal = (a == b for a, b in zip(ours, theirs, strict=False))
    first = next((at for at, same in enumerate(equal) if not same), min(len(ours), len(theirs)))
    raise ModelError(
        got=f"a prompt of {len(theirs)} tokens in vLLM, which differs from token {first} on, for "
        f"{prompt.text[-60:]!r} about {prompt.image}",
        need=f"the {len(ours)} tokens of the checkpoint's own processor and chat template",
        because="another pixel budget or another template is another question",
        do="evaluate.engine: transformers, or another version of vLLM",
    )
