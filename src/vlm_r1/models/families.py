"""Everything that differs between families of image-text-to-text models. Loads no torch.

The coordinate spaces that a family was trained to write boxes in, how its processor is given a
pixel budget, and where its vision tower, projector and language model are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlm_r1.config import CoordinateSpace, Task
from vlm_r1.errors import ModelError
from vlm_r1.rec.boxes import smart_resize


def _set_area(image_processor: Any, task: Task) -> None:
    """Qwen: both numbers are areas in pixels, in spite of their names."""
    image_processor.size = {"shortest_edge": task.min_pixels, "longest_edge": task.max_pixels}


def _set_area_of_frames(image_processor: Any, task: Task) -> None:
    """GLM: areas in pixels, times the frames that a still image is repeated for."""
    frames = image_processor.temporal_patch_size
    image_processor.size = {
        "shortest_edge": frames * task.min_pixels,
        "longest_edge": frames * task.max_pixels,
    }


def _set_tiles(image_processor: Any, task: Task) -> None:
    """InternVL: a number of square tiles, in addition to the thumbnail that every image gets."""
    tile = image_processor.size["height"] * image_processor.size["width"]
    image_processor.crop_to_patches = task.max_pixels >= 3 * tile  # two tiles and a thumbnail
    image_processor.min_patches = 1
    image_processor.max_patches = max(1, task.max_pixels // tile - 1)


def _set_longest_edge(image_processor: Any, task: Task) -> None:
    """SmolVLM: squares that cover the image, and a thumbnail of the same size."""
    side = image_processor.max_image_size["longest_edge"]
    squares = max(1, task.max_pixels // side**2 - 1)
    image_processor.do_image_splitting = squares > 1
    image_processor.size = {"longest_edge": side * max(1, math.isqrt(squares))}


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as its authors write it.
        coordinate_spaces: those it may be asked to write boxes in, its native one first.
        vision, projector, language: modules of `model.model`, by path. The projector may be inside
            the vision tower.
        set_budget: sets `task.min_pixels` and `task.max_pixels` on an image processor.
        square_px: side of the image square behind one visual token, if the processor resizes to
            multiples of it; None if it cuts tiles of a fixed size.
    """

    name: str
    coordinate_spaces: tuple[CoordinateSpace, ...]
    vision: str
    projector: tuple[str, ...]
    language: str
    set_budget: Callable[[Any, Task], None] = _set_area
    square_px: int | None = None

    def input_size(self, height: int, width: int, task: Task) -> tuple[int, int]:
        """(height, width) after the processor's resize; unchanged for a family that cuts tiles."""
        if self.square_px is None:
            return height, width
        return smart_resize(height, width, task.min_pixels, task.max_pixels, self.square_px)


QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    coordinate_spaces=("input", "original"),  # QwenLM/Qwen3-VL #721: pixels after the resize
    vision="visual",
    projector=("visual.merger",),
    language="language_model",
    square_px=28,
)


def _glm(name: str) -> Family:
    return Family(
        name=name,
        coordinate_spaces=("thousand",),  # zai-org/GLM-V #114
        vision="visual",
        projector=("visual.downsample", "visual.merger"),
        language="language_model",
        set_budget=_set_area_of_frames,
        square_px=28,
    )


FAMILIES = {
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen2_vl": Family(
        name="Qwen2-VL",
        coordinate_spaces=("thousand",),
        vision="visual",
        projector=("visual.merger",),
        language="language_model",
        square_px=28,
    ),
    "qwen3_vl": Family(
        name="Qwen3-VL",
        coordinate_spaces=("thousand",),
        vision="visual",
        projector=("visual.merger", "visual.deepstack_merger_list"),
        language="language_model",
        square_px=32,  # 16 px patches, merged 2 x 2
    ),
    "internvl": Family(
        name="InternVL",
        coordinate_spaces=("thousand",),  # VLM-R1's rec_jsons_internvl.zip
        vision="vision_tower",
        projector=("multi_modal_projector",),
        language="language_model",
        set_budget=_set_tiles,
    ),
    "smolvlm": Family(
        name="SmolVLM",
        # It was not trained to ground, so it learns either one; whole numbers are easier to learn.
        coordinate_spaces=("unit", "thousand"),
        vision="vision_model",
        projector=("connector",),
        language="text_model",
        set_budget=_set_longest_edge,
    ),
    "glm4v": _glm("GLM-4.1V"),
    "glm4v_moe": _glm("GLM-4.5V"),
    "glm46v": _glm("GLM-4.6V"),
}


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`.

    Raises:
        ModelError: the type is not in `FAMILIES`.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            got=f"a model of type {model_type!r}",
            need=f"one of {', '.join(FAMILIES)}",
            because="its coordinate space, pixel budget and modules are unknown",
            do="add it to vlm_r1/models/families.py, with a tiny model in tests/test_families.py",
        )
    return FAMILIES[model_type]
