"""How other tools write boxes: two corners (xyxy), or COCO's corner and size (xywh)."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_r1.errors import ConfigError
from vlm_r1.rec.boxes import Xyxy
from vlm_r1.rec.parsing import Parsed, Unparsed, parse_answer, parse_boxes
from vlm_r1.rec.vlm_r1_parsers import STANDARD, Preset

XYWH = "xywh"


@dataclass(frozen=True)
class BoxFormats:
    """Format of a log's true boxes and of its answers: `xyxy` or `xywh`."""

    truth: str = "xyxy"
    answer: str = "xyxy"


XYXY = BoxFormats()


def as_corners(box: Sequence[float], box_format: str) -> Sequence[float]:
    """A box in `box_format` as xyxy. Holds in every coordinate space, as the change is linear.

    Example: (10, 20, 5, 6) in xywh -> (10, 20, 15, 26)
    """
    if box_format != XYWH:
        return box
    x, y, width, height = box
    return x, y, x + width, y + height


def parse_xywh(completion: str, coordinate_space: str = "original") -> Parsed | Unparsed:
    """Read a completion as `parse_answer` does, its numbers as x, y, width, height.

    A width or height that is not positive counts as `reversed_corners`.
    """
    boxes = parse_boxes(completion)
    if not boxes:
        return parse_answer(completion, coordinate_space)  # the reason
    box: Xyxy = tuple(as_corners(boxes[0], XYWH))  # type: ignore[assignment]  # four numbers
    if box[0] >= box[2] or box[1] >= box[3]:
        return Unparsed("reversed_corners")
    where = "answer" if "<answer>" in completion else "text"
    return Parsed(box, coordinate_space, where, len(boxes))


STANDARD_XYWH = Preset("standard, boxes as xywh", parse_xywh)


def require_readable(formats: BoxFormats, preset: str | None, repair: bool) -> None:
    """Refuse to read xywh answers by a preset of VLM-R1's, or to repair them.

    Raises:
        ConfigError: the answers are xywh, and a preset other than `standard`, or repair, is asked.
    """
    if formats.answer == XYWH and (repair or preset not in (None, STANDARD.name)):
        raise ConfigError(
            got=f"answers as xywh with {'repaired corners' if repair else f'preset {preset!r}'}",
            need="preset standard, without repair",
            because="VLM-R1's presets read corners, as VLM-R1 did, and a size has none to reorder",
            do="drop --preset and --repair, or the box format",
        )
