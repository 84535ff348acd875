"""Floating point operations of a model: the project's one formula.

It counts what `torch.utils.flop_counter` counts: the products of weight matrices, convolutions and
attention, a multiplication and an addition each as two. Norms, activation functions and the
optimizer's step are left out. A test holds it against that counter, on trainings and generation.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from vlm_r1.models.families import Family


class Load(NamedTuple):
    """What one pass sends through a part: rows (tokens or patches), and pairs that attend."""

    rows: int
    pairs: float = 0.0  # (query, key), summed over sequences; a causal mask does not save any


@dataclass(frozen=True)
class Part:
    """A part of a model whose rows are of one kind.

    Attributes:
        weights: entries of its weight matrices; every row is multiplied with each.
        trained: those among them that get a gradient.
        passed: those that the backward pass goes through, to what is trained before them.
        again: those that gradient checkpointing runs forward again.
        width: of attention (heads x head size), summed over layers.
    """

    weights: int
    trained: int
    passed: int = 0
    again: int = 0
    width: int = 0

    def forward(self, load: Load) -> float:
        """FLOPs of a forward pass: 2 a weight and row; scores and values of attention 2 a pair."""
        return 2.0 * self.weights * load.rows + 4.0 * self.width * load.pairs

    def backward(self, load: Load) -> float:
        """FLOPs of a backward pass: gradients of activations, as much again, and of weights."""
        attention = 8.0 * self.width * load.pairs if self.passed else 0.0
        return 2.0 * (self.passed + self.trained) * load.rows + attention

    def recomputed(self, load: Load) -> float:
        """FLOPs of what gradient checkpointing runs again before a backward pass through it."""
        return 2.0 * self.again * load.rows + 4.0 * self.width * load.pairs if self.passed else 0.0


class Parts(NamedTuple):
    """The parts of an image-text-to-text model, in the order of a forward pass."""

    patches: Part  # the convolution that embeds image patches
    vision: Part
    projector: Part
    language: Part
    head: Part


class Loads(NamedTuple):
    """The load of each part in one pass, or in several together."""

    patches: Load = Load(0)
    vision: Load = Load(0)
    projector: Load = Load(0)
    language: Load = Load(0)
    head: Load = Load(0)


def forward_flops(parts: Parts, loads: Loads) -> float:
    """FLOPs of a forward pass, also of one that writes tokens."""
    return sum(part.forward(load) for part, load in zip(parts, loads, strict=True))


def training_flops(parts: Parts, loads: Loads, gradient_checkpointing: bool) -> float:
    """FLOPs of a forward and a backward pass."""
    total = forward_flops(parts, loads)
    for part, load in zip(parts, loads, strict=True):
        total += part.backward(load)
        if gradient_checkpointing:
            total += part.recomputed(load)
    return total


def parts_of(model: Any, family: Family) -> Parts:
    """Weights, trained weights and attention of each part; also on the meta device or sharded.

    Args:
        model: without a PEFT wrapper around it; adapters inside it are counted.
    """
    inner = model.model
    vision, language = inner.get_submodule(family.vision), inner.get_submodule(family.language)
    projectors = [inner.get_submodule(name) for name in family.projector]
    inside = {id(module) for projector in projectors for module in projector.modules()}
    tower = [module for module in vision.modules() if id(module) not in inside]
    patches = _count(m for m in tower if isinstance(m, nn.Conv2d | nn.Conv3d))
    blocks = _count(m for m in tower if isinstance(m, nn.Linear))
    joints = _count(m for projector in projectors for m in projector.modules())
    text, head = _count(language.modules()), _count([model.get_output_embeddings()])
    sees = patches.trained + blocks.trained > 0
    return Parts(
        patches=Part(*patches),
        vision=Part(
            *blocks,
            passed=blocks.weights if sees else 0,
            again=_run_again(vision),
            width=_vision_width(model.config),
        ),
        projector=Part(*joints, passed=joints.weights if sees or joints.trained else 0),
        language=Part(
            *text, passed=text.weights, again=_run_again(language), width=_text_width(model.config)
        ),
        head=Part(*head, passed=head.weights),
    )


def image_load(config: Any, patches: Iterable[tuple[int, int]]) -> Load:
    """The vision tower's load for images of (height, width) patches.

    In Qwen2.5-VL most blocks attend within windows; pairs are the mean over blocks.

    Example: 4 x 4 patches, no windows -> 16 rows, 256 pairs
    """
    vision, grids = config.vision_config, list(patches)
    rows = sum(height * width for height, width in grids)
    whole = float(sum((height * width) ** 2 for height, width in grids))
    full = getattr(vision, "fullatt_block_indexes", None)
    if full is None:
        return Load(rows, whole)
    side = vision.window_size // vision.patch_size
    windowed = float(sum(_squares(h, side) * _squares(w, side) for h, w in grids))
    share = len(set(full)) / vision.depth
    return Load(rows, share * whole + (1 - share) * windowed)


def written_load(prompt: int, completion: int, sharing: int = 1) -> Load:
    """The language model's load for writing completions, with a cache of keys and values.

    The prompt is read at once and yields the first token; each further token is read alone. Where
    several completions share the prompt, it is read without its last token, which each reads alone.

    Example: 3 tokens after 10 -> 12 rows, 10 x 10 + 11 + 12 = 123 pairs
    """
    read = prompt if sharing == 1 else prompt - 1
    lengths = range(read + 1, prompt + completion)
    return Load(read + sharing * len(lengths), float(read**2 + sharing * sum(lengths)))


class _Count(NamedTuple):
    weights: int
    trained: int


def _count(modules: Iterable[nn.Module]) -> _Count:
    """Entries of the weight matrices of linear layers and convolutions among `modules`."""
    found = list(_matrices(modules))
    return _Count(sum(n for n, _ in found), sum(n for n, trained in found if trained))


def _matrices(modules: Iterable[nn.Module]) -> Iterator[tuple[int, bool]]:
    """(entries, whether they are trained); by a module's sizes, as ZeRO-3 shards its tensors."""
    for module in modules:
        if isinstance(module, nn.Linear):
            yield module.in_features * module.out_features, module.weight.requires_grad
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            kernel = math.prod(module.kernel_size) * module.in_channels // module.groups
            yield kernel * module.out_channels, module.weight.requires_grad


def _run_again(part: nn.Module) -> int:
    """Entries that gradient checkpointing runs again: of each layer all but the last matrix.

    PyTorch stops a layer's second forward pass once it has every tensor that the backward pass
    needs, and the last product's result is none.
    """
    layers = [m for m in part.modules() if isinstance(m, GradientCheckpointingLayer)]
    return sum(sum(n for n, _ in list(_matrices(layer.modules()))[:-1]) for layer in layers)


def _text_width(config: Any) -> int:
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(text.num_hidden_layers * text.num_attention_heads * head)


def _vision_width(config: Any) -> int:
    vision = config.vision_config
    depth = getattr(vision, "depth", None) or vision.num_hidden_layers
    return int(depth * (getattr(vision, "embed_dim", None) or vision.hidden_size))


def _squares(length: int, side: int) -> int:
    """Sum of the squares of the pieces of `length` that windows of `side` cut."""
    whole, rest = divmod(length, side)
    return whole * side**2 + rest**2
