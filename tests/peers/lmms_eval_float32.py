"""Runs lmms-eval with its qwen2_5_vl model in float32, which 0.7.3 loads in bfloat16 only.

`python tests/peers/lmms_eval_float32.py ARGUMENTS`, in lmms-eval's environment. Nothing
but the dtype is changed: rows on which float32 agrees and bfloat16 does not differ by rounding.
"""

from functools import partial

import torch
from lmms_eval.__main__ import cli_evaluate
from lmms_eval.models.simple import qwen2_5_vl


def load(original, *args, **kwargs):
    """`from_pretrained` with another dtype."""
    return original(*args, **kwargs | {"torch_dtype": torch.float32})


def main() -> None:
    """Replace what the model's module calls, then run the command line."""
    model = qwen2_5_vl.Qwen2_5_VLForConditionalGeneration
    model.from_pretrained = partial(load, model.from_pretrained)
    cli_evaluate()


if __name__ == "__main__":
    main()
