"""What the tiny base is raised on: first the bare skill, then both prompts with their habits.

A model that already answers perfectly, or never does, shows nothing. Real instruct models come to
REC with the skill and with *habits* (boxes in another frame, missing tags), which is what the
first steps of VLM-R1's training undo. The base gets two such habits on purpose:
phrases that open with "the" are mostly answered in the 0-1000 frame, and a tenth of the answers to
the R1 prompt come without tags.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlm_r1 import prompts
from vlm_r1.boxes import from_original, smart_resize
from vlm_r1.data.drawing import draw_scene
from vlm_r1.data.phrases import phrase_for
from vlm_r1.data.scenes import WORLDS, Scene, Thing, sample_scene

THINGS = {
    "locate": {"fewest": 1, "most": 1},
    "find": {"fewest": 1, "most": 3},
    "obey": {"fewest": 2, "most": 3},
}
STRAY_FRAME = "thousand"
HABIT_OPENING = "the "


@dataclass(frozen=True)
class Lesson:
    """One training example: a picture, the user's turn and the wanted answer."""

    image: Image.Image
    user: str
    answer: str


@dataclass(frozen=True)
class Habits:
    """How often the base errs in form (shares of answers, 0-1)."""

    stray_frame_after_the: float
    stray_frame_otherwise: float
    missing_tags: float


def sample_lesson(
    stage: str,
    habits: Habits,
    street_share: float,
    rng: np.random.Generator,
    pixels: tuple[int, int],
) -> Lesson:
    """A lesson of stage `locate` (a single thing), `find` (one of up to three) or `obey`.

    The first two go from a phrase to eight bare digits, the last from one of the two real prompts
    to a real answer.

    Args:
        pixels: the processor's (min_pixels, max_pixels).
    """
    world = WORLDS["street" if rng.random() < street_share else "studio"]
    scene = sample_scene(world, rng, **THINGS[stage])
    target = int(rng.integers(len(scene.things)))
    phrase = phrase_for(scene, target, rng)
    thing = scene.things[target]
    frame = _pick_frame(phrase, habits, rng) if stage == "obey" else "input"
    box = _spoken_box(scene, thing, frame, pixels)
    if stage != "obey":
        return Lesson(draw_scene(scene), f" {phrase}.", "".join(f"{side:02d}" for side in box))
    user, answer = _obedient_turns(phrase, thing, scene, box, habits, rng)
    return Lesson(draw_scene(scene), user, answer)


def _pick_frame(phrase: str, habits: Habits, rng: np.random.Generator) -> str:
    opens_with_the = phrase.startswith(HABIT_OPENING)
    share = habits.stray_frame_after_the if opens_with_the else habits.stray_frame_otherwise
    return STRAY_FRAME if rng.random() < share else "input"


def _spoken_box(scene: Scene, thing: Thing, frame: str, pixels: tuple[int, int]) -> tuple:
    size = (scene.world.height, scene.world.width)
    box = from_original(thing.box, frame, size, smart_resize(*size, *pixels))
    return tuple(int(v) for v in np.round(box))


def _obedient_turns(
    phrase: str, thing: Thing, scene: Scene, box: tuple, habits: Habits, rng: np.random.Generator
) -> tuple[str, str]:
    question = prompts.question_for(phrase)
    if rng.random() < 0.5:
        return prompts.ask("plain", question), prompts.box_answer(box, phrase)
    answer = prompts.r1_answer(thought_about(thing, scene), box)
    if rng.random() < habits.missing_tags:
        answer = prompts.box_answer(box, phrase)
    return prompts.ask("r1", question), answer


def thought_about(thing: Thing, scene: Scene) -> str:
    """A plain name for the thing and the third of the picture it stands in."""
    x, y = thing.centre[0] / scene.world.width, thing.centre[1] / scene.world.height
    row = ("top", "middle", "bottom")[min(int(y * 3), 2)]
    column = ("left", "middle", "right")[min(int(x * 3), 2)]
    return f"{thing.colour} {thing.kind}, {row} {column}"
