"""How completions of a rollout end: at `</answer>`, and by leaving the batch that is being written.

Both reach `generate` through its own arguments (`stopping_criteria`, `custom_generate`), which TRL
1.16 does not pass on: `generate_with` puts a `generate` with them in the place of the model's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from vlm_r1.models.decoding import draw, scores_of_all
from vlm_r1.rec.contract import STOP

# what `generate` keeps a row of for each sequence, besides the cache
ROWS = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")


@contextmanager
def generate_with(model: PreTrainedModel, generate: Callable[..., Tensor]) -> Iterator[None]:
    """Within, `model.generate` is `generate`, whoever calls it."""
    own: Any = model
    before = vars(own).get("generate")
    own.generate = generate
    try:
        yield
    finally:
        del own.generate
        if before is not None:
            own.generate = before


class StopAtAnswer(StoppingCriteria):
    """Ends a completion at `</answer>`, and knows afterwards how long it was there.

    TRL finds the end of a completion by an end of turn, which such a completion does not have: the
    padding after it would be trained on.

    Attributes:
        lengths: (rows,) tokens up to the tag of each completion that it has ended, else 0; of one
            call of `generate`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._at_stop = StopStringCriteria(tokenizer, [STOP])
        self._prompt_tokens: int | None = None
        self.lengths = torch.zeros(0, dtype=torch.long)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows of `input_ids` (rows, tokens) end with their last token."""
        rows, tokens = input_ids.shape
        if self._prompt_tokens is None:
            self._prompt_tokens = tokens - 1  # called first after the first token
            self.lengths = torch.zeros(rows, dtype=torch.long, device=input_ids.device)
        done = self._at_stop(input_ids, scores)
        self.lengths[done & (self.lengths == 0)] = tokens - self._prompt_tokens
        return done

    def cut(self, completions: list[list[int]]) -> list[list[int]]:
        """Each completion up to its tag, where it was ended there."""
        lengths = self.lengths.tolist()
        return [ids[:n] if n else ids for ids, n in zip(completions, lengths, strict=True)]


def sample_unfinished(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **kwargs: Any,
) -> Tensor:
    """Sampling for `generate(custom_generate=...)` from which rows leave when they have ended.

    Random numbers are drawn for all rows as `generate` does, so that the same seed gives the same
    tokens, but for the last bit of logits: products of fewer rows may be summed in another order.

    Args:
        input_ids: (rows, tokens) prompts, left-padded.

    Returns:
        Prompts and completions, (rows, tokens), right-padded.
    """
    own: Any = model  # `generate`'s own steps; its type does not declare them
    pad: Any = generation_config._pad_token_tensor
    process_logits: Any = logits_processor  # declared for LongTensor, called with any Tensor
    live = torch.arange(len(input_ids), device=input_ids.device)  # rows that have not ended
    outputs = own._prefill(input_ids, generation_config, kwargs)
    while True:
        kwargs = own._update_model_kwargs_for_generation(outputs, kwargs)
        scores = scores_of_all(outputs.logits[:, -1], live, len(input_ids))
        drawn = draw(process_logits(input_ids, scores))
        tokens = torch.full_like(drawn, int(pad))
        tokens[live] = drawn[live]
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        unfinished = ~stopping_criteria(input_ids, None)[live]
        if not unfinished.any():
            return input_ids
        if not unfinished.all():
            live = live[unfinished]
            _keep_rows(kwargs, unfinished.nonzero().squeeze(1))
        inputs = own.prepare_inputs_for_generation(
            input_ids[live], next_sequence_length=1, **kwargs
        )
        outputs = model(**inputs, return_dict=True)


def _keep_rows(kwargs: dict[str, Any], rows: Tensor) -> None:
    """Keep `rows` of the cache and of what grows with each token, the last two axes of which are
    (rows, tokens)."""
    kwargs["past_key_values"].batch_select_indices(rows)
    for name in ROWS:
        values = kwargs.get(name)
        if values is not None:
            kwargs[name] = values.index_select(values.dim() - 2, rows)
