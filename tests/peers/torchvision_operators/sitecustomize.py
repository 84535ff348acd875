"""Declares the operators that a torchvision without its compiled part lacks (PYTHONPATH).

PyPI's torchvision is built for CUDA and loads no operators beside torch's CPU build, after which
its import fails. vLLM and the processor of Qwen2.5-VL call none of them: they resize images.
"""

import torch

OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
