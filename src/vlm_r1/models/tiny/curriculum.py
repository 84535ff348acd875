"""Training examples for the tiny base: the real prompts, on scenes that get harder by stage.

`locate` has one thing in the scene, `match` tells things apart by color, `find` has expressions of
both worlds, `obey` adds the injected errors. The order matters: trained on `find` alone, a model
this small learns where things are, but not which one is meant (docs/footguns.md).

Two methods can only be compared on a base that is neither perfect nor always wrong. Real instruct
models can ground, but make errors of form (boxes in another coordinate space, missing tags), and
the first steps of VLM-R1's training remove those. The base gets both kinds on purpose: most boxes
for expressions that begin with "the" are in the 0-1000 coordinate space, and a tenth of the answers
to the R1 prompt have no tags.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.synthetic.expressions import expression_for, sides_of
from vlm_r1.data.synthetic.scenes import WORLDS, Scene, Thing, sample_scene
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import from_original, smart_resize

WRONG_SPACE = "thousand"
WRONG_SPACE_OPENING = "the "  # expressions that begin so get most of the wrong boxes


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
        fewest, most: number of things in a scene.
        r1_share: share of examples with the R1 prompt, whose thought names the thing (0-1).
        pointing_share: share of expressions that give only a place ("left one"), so that color and
            kind in the thought have to be read from the image (0-1).
        by_color: the other expressions are of the form "red one", in studio scenes without two
            things of one color.
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
    """An image, the user turn and the target answer."""

    image: Image.Image
    user: str
    answer: str


@dataclass(frozen=True)
class InjectedErrors:
    """How often target answers have an error of form (shares, 0-1)."""

    wrong_space_after_the: float
    wrong_space_otherwise: float
    missing_tags: float


NO_INJECTED_ERRORS = InjectedErrors(
    wrong_space_after_the=0.0, wrong_space_otherwise=0.0, missing_tags=0.0
)


class Curriculum:
    """Draws examples; the same `rng` state gives the same examples.

    Args:
        injected_errors: used in the stage `obey` alone.
        street_share: share of scenes from the out-of-domain world (0-1).
        pixels: the processor's (min_pixels, max_pixels).
    """

    def __init__(
        self,
        injected_errors: InjectedErrors,
        street_share: float,
        pixels: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self.injected_errors = injected_errors
        self.street_share = street_share
        self.pixels = pixels
        self.rng = rng

    def examples(self, stage: str, count: int) -> list[Example]:
        """`count` examples: two for each scene, about different things, if it has two or more."""
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
        """The user turn about `scene.things[target]` and the target answer."""
        errors = self.injected_errors if stage == "obey" else NO_INJECTED_ERRORS
        thing = scene.things[target]
        expression = self._expression(STAGES[stage], scene, target)
        box = _box_in(self._coordinate_space(expression, errors), thing, scene, self.pixels)
        question = prompts.question_for(expression)
        if self.rng.random() >= STAGES[stage].r1_share:
            return prompts.fill_template("plain", question), prompts.box_answer(box, expression)
        answer = prompts.r1_answer(thought_about(thing, scene), box)
        if self.rng.random() < errors.missing_tags:
            answer = prompts.box_answer(box, expression)
        return prompts.fill_template("r1", question), answer

    def _expression(self, stage: Stage, scene: Scene, target: int) -> str:
        pointing = _pointing_expressions(scene, target)
        if pointing and self.rng.random() < stage.pointing_share:
            return str(self.rng.choice(pointing))
        if stage.by_color:
            return f"{scene.things[target].color} one"
        return expression_for(scene, target, self.rng)

    def _coordinate_space(self, expression: str, errors: InjectedErrors) -> str:
        """The coordinate space of the target box: the wrong one with the injected probability."""
        if expression.startswith(WRONG_SPACE_OPENING):
            share = errors.wrong_space_after_the
        else:
            share = errors.wrong_space_otherwise
        return WRONG_SPACE if self.rng.random() < share else "input"


def _pointing_expressions(scene: Scene, target: int) -> list[str]:
    """Expressions that identify a thing by its place alone; "one" if it is the only thing."""
    others = [thing for i, thing in enumerate(scene.things) if i != target]
    if not others:
        return ["one"]
    return [f"{side} one" for side in sides_of(scene.things[target], others)]


def _box_in(
    coordinate_space: str, thing: Thing, scene: Scene, pixels: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The thing's box in `coordinate_space`, rounded to whole numbers."""
    size = (scene.world.height, scene.world.width)
    input_size = smart_resize(*size, *pixels)
    box = from_original(np.array(thing.box), coordinate_space, np.array(size), np.array(input_size))
    x1, y1, x2, y2 = (int(side) for side in np.round(box))
    return x1, y1, x2, y2


def thought_about(thing: Thing, scene: Scene) -> str:
    """Color and kind of the thing, and the third of the image it is in: "red circle, top left"."""
    x, y = thing.center[0] / scene.world.width, thing.center[1] / scene.world.height
    row = ("top", "middle", "bottom")[min(int(y * 3), 2)]
    column = ("left", "middle", "right")[min(int(x * 3), 2)]
    return f"{thing.color} {thing.kind}, {row} {column}"
