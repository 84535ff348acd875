"""What each world says about a thing: short labels in the studio, long relations in the street.

Every phrase means exactly one thing of its scene. The street uses none of the studio's words for
colors and kinds, so what carries over from one world to the other is the skill.
"""

import numpy as np

from vlm_r1.data.synthetic.scenes import COLORS, KINDS, Scene, Thing

STREET_KINDS = {
    "circle": ("disc", "ball"),
    "square": ("block", "crate"),
    "triangle": ("wedge", "pyramid"),
}
STREET_COLORS = {
    "red": ("crimson", "scarlet"),
    "green": ("emerald", "jade"),
    "blue": ("azure", "cobalt"),
    "yellow": ("golden", "amber"),
}
STREET_OPENINGS = ("the {}", "a {}", "that {} over there", "somebody's {}")
RELATIONS = {
    "left": ("to the left of", "on the left side of"),
    "right": ("to the right of", "on the right side of"),
    "above": ("higher up than", "somewhere above"),
    "below": ("lower down than", "somewhere below"),
}
CLEAR_OFFSET_PX = 6  # two centers closer than this along an axis have no clear order there


def phrase_for(scene: Scene, target: int, rng: np.random.Generator) -> str:
    """One phrase that means `scene.things[target]` and nothing else in the scene."""
    speak = {"studio": _studio_phrase, "street": _street_phrase}[scene.world.name]
    return speak(scene, target, rng)


def _studio_phrase(scene: Scene, target: int, rng: np.random.Generator) -> str:
    thing = scene.things[target]
    others = [t for i, t in enumerate(scene.things) if i != target]
    name = f"{thing.color} {thing.kind}"
    choices = [name, name, f"the {name}"]
    if all(t.color != thing.color for t in others):
        choices.append(f"{thing.color} one")
    if all(t.kind != thing.kind for t in others):
        choices.append(thing.kind)
    same_kind = [t for t in others if t.kind == thing.kind]
    if same_kind:
        choices += [f"{side} {thing.kind}" for side in sides_of(thing, same_kind)]
    return str(rng.choice(choices))


def sides_of(thing: Thing, others: list[Thing]) -> list[str]:
    """The directions in which `thing` clearly lies beyond all `others`."""
    x, y = thing.center
    beyond = {
        "left": all(o.center[0] - x > CLEAR_OFFSET_PX for o in others),
        "right": all(x - o.center[0] > CLEAR_OFFSET_PX for o in others),
        "top": all(o.center[1] - y > CLEAR_OFFSET_PX for o in others),
        "bottom": all(y - o.center[1] > CLEAR_OFFSET_PX for o in others),
    }
    return [side for side, holds in beyond.items() if holds]


def _street_phrase(scene: Scene, target: int, rng: np.random.Generator) -> str:
    thing = scene.things[target]
    others = [t for i, t in enumerate(scene.things) if i != target]
    opening = str(rng.choice(STREET_OPENINGS)).format(_street_name(thing, rng))
    if not others:
        return opening
    anchor = others[int(rng.integers(len(others)))]
    return f"{opening} {_relation(thing, anchor, rng)} the {_street_name(anchor, rng)}"


def _street_name(thing: Thing, rng: np.random.Generator) -> str:
    return f"{rng.choice(STREET_COLORS[thing.color])} {rng.choice(STREET_KINDS[thing.kind])}"


def _relation(thing: Thing, anchor: Thing, rng: np.random.Generator) -> str:
    """How `thing` lies to `anchor`, along the axis on which their centers differ most."""
    dx = thing.center[0] - anchor.center[0]
    dy = thing.center[1] - anchor.center[1]
    if abs(dx) >= abs(dy):
        side = "left" if dx < 0 else "right"
    else:
        side = "above" if dy < 0 else "below"
    return str(rng.choice(RELATIONS[side]))


def vocabulary() -> list[str]:
    """Every word the two worlds use: the corpus of the tiny tokenizer."""
    words = [*KINDS, *COLORS, "one", "the", "left", "right", "top", "bottom"]
    for table in (STREET_KINDS, STREET_COLORS, RELATIONS):
        words += [word for group in table.values() for word in group]
    return words + [opening.format("") for opening in STREET_OPENINGS]
