"""What the tiny base is raised on: the real prompts over ever harder scenes, at last with injected_errors.

`locate` names the one thing there is, `match` tells things apart by color, `find` hears every
phrase of both worlds, `obey` adds the injected_errors. The order matters: trained on `find` alone,
a model this small learns where things are and never which one is meant (docs/footguns.md).

A model that already answers perfectly, or never does, shows nothing. Real instruct models come to
REC with the skill and with *injected_errors* (boxes in another coordinate space, missing tags),
which is what the first steps of VLM-R1's training undo. The base gets two such injected_errors on
purpose: phrases that open with "the" are mostly answered in the 0-1000 coordinate space, and a
tenth of the answers to the R1 prompt come without tags.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.synthetic.expressions import expression_for, sides_of
from vlm_r1.data.synthetic.scenes import WORLDS, Scene, Thing, sample_scene
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import from_original, smart_resize

STRAY_FRAME = "thousand"
HABIT_OPENING = "the "


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
        fewest, most: things in a scene.
        r1_share: of the examples with the R1 prompt, whose thought names the thing; 0-1.
        pointing_share: of the phrases that only point ("left one"), so that the thought has to
            read color and kind off the image; 0-1.
        by_color: the other phrases are "red one", in studio scenes where no color comes twice.
    """

    fewest: int
    most: int
    r1_share: float
    pointing_share: float = 0.0
    by_color: bool = False


STAGES = {
    "locate": Stage(fewest=1, most=1, r1_share=1.0, pointing_share=0.8),
    "match": Stage(fewest=2, most=3, r1_share=0.5, pointing_share=0.3, by_color=True),
    "find": Stage(fewest=1, most=3, r1_share=0.5, pointing_share=0.2),
    "obey": Stage(fewest=2, most=3, r1_share=0.5),
}


@dataclass(frozen=True)
class Example:
    """One training example: an image, the user's turn and the wanted answer."""

    image: Image.Image
    user: str
    answer: str


@dataclass(frozen=True)
class InjectedErrors:
    """How often the base errs in form (shares of answers, 0-1)."""

    wrong_space_after_the: float
    wrong_space_otherwise: float
    missing_tags: float


NO_INJECTED_ERRORS = InjectedErrors(
    wrong_space_after_the=0.0, wrong_space_otherwise=0.0, missing_tags=0.0
)


class Curriculum:
    """Draws examples without end; the same `rng` state gives the same examples.

    Args:
        injected_errors: of the stage `obey`.
        street_share: of the scenes from the out-of-domain world (0-1).
        pixels: the processor's (min_pixels, max_pixels).
    """

    def __init__(
        self,
        injected_errors: InjectedErrors,
        street_share: float,
        pixels: tuple[int, int],
        rng: np.random.Generator,
    ):
        self.injected_errors = injected_errors
        self.street_share = street_share
        self.pixels = pixels
        self.rng = rng

    def examples(self, stage: str, count: int) -> list[Example]:
        """`count` examples; two about different things of each scene that has two or more."""
        examples: list[Example] = []
        while len(examples) < count:
            scene = self._scene(STAGES[stage])
            image = draw_scene(scene)
            for target in self.rng.permutation(len(scene.things))[:2]:
                examples.append(Example(image, *self._turns(stage, scene, int(target))))
        return examples[:count]

    def _scene(self, stage: Stage) -> Scene:
        street_share = 0.0 if stage.by_color else self.street_share
        world = WORLDS["street" if self.rng.random() < street_share else "studio"]
        while True:
            scene = sample_scene(world, self.rng, stage.fewest, stage.most)
            colors = {thing.color for thing in scene.things}
            if not stage.by_color or len(colors) == len(scene.things):
                return scene

    def _turns(self, stage: str, scene: Scene, target: int) -> tuple[str, str]:
        """The user's turn and the answer about `scene.things[target]`."""
        injected_errors = self.injected_errors if stage == "obey" else NO_INJECTED_ERRORS
        thing = scene.things[target]
        phrase = self._phrase(STAGES[stage], scene, target)
        box = _spoken_box(scene, thing, self._space(phrase, injected_errors), self.pixels)
        question = prompts.question_for(phrase)
        if self.rng.random() >= STAGES[stage].r1_share:
            return prompts.fill_template("plain", question), prompts.box_answer(box, phrase)
        answer = prompts.r1_answer(thought_about(thing, scene), box)
        if self.rng.random() < injected_errors.missing_tags:
            answer = prompts.box_answer(box, phrase)
        return prompts.fill_template("r1", question), answer

    def _phrase(self, stage: Stage, scene: Scene, target: int) -> str:
        pointing = _pointing_phrases(scene, target)
        if pointing and self.rng.random() < stage.pointing_share:
            return str(self.rng.choice(pointing))
        if stage.by_color:
            return f"{scene.things[target].color} one"
        return expression_for(scene, target, self.rng)

    def _space(self, phrase: str, injected_errors: InjectedErrors) -> str:
        after_the = phrase.startswith(HABIT_OPENING)
        share = (
            injected_errors.wrong_space_after_the
            if after_the
            else injected_errors.wrong_space_otherwise
        )
        return STRAY_FRAME if self.rng.random() < share else "input"


def _pointing_phrases(scene: Scene, target: int) -> list[str]:
    """All that can be said about a thing by its place alone; "one" where it stands alone."""
    others = [thing for i, thing in enumerate(scene.things) if i != target]
    if not others:
        return ["one"]
    return [f"{side} one" for side in sides_of(scene.things[target], others)]


def _spoken_box(
    scene: Scene, thing: Thing, coordinate_space: str, pixels: tuple[int, int]
) -> tuple:
    size = (scene.world.height, scene.world.width)
    box = from_original(thing.box, coordinate_space, size, smart_resize(*size, *pixels))
    return tuple(int(v) for v in np.round(box))


def thought_about(thing: Thing, scene: Scene) -> str:
    """A plain name for the thing and the third of the image it stands in."""
    x, y = thing.center[0] / scene.world.width, thing.center[1] / scene.world.height
    row = ("top", "middle", "bottom")[min(int(y * 3), 2)]
    column = ("left", "middle", "right")[min(int(x * 3), 2)]
    return f"{thing.color} {thing.kind}, {row} {column}"
