"""Referring expressions: short labels in the studio, spatial relations in the street.

Every expression refers to exactly one thing in its scene. The street shares no color or kind word
with the studio, so that generalization from one to the other cannot come from the vocabulary.
"""

import numpy as np

from vlm_r1.data.synthetic.scenes import Scene, Thing

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
CLEAR_OFFSET_PX = 6  # centers closer than this along an axis have no clear order on it


def expression_for(scene: Scene, target: int, rng: np.random.Generator) -> str:
    """A random expression that refers to `scene.things[target]` and nothing else in the scene."""
    describe = {"studio": _studio_expression, "street": _street_expression}[scene.world.name]
    return describe(scene, target, rng)


def _studio_expression(scene: Scene, target: int, rng: np.random.Generator) -> str:
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
    """The sides (left, right, top, bottom) on which `thing` clearly lies beyond all `others`."""
    x, y = thing.center
    beyond = {
        "left": all(o.center[0] - x > CLEAR_OFFSET_PX for o in others),
        "right": all(x - o.center[0] > CLEAR_OFFSET_PX for o in others),
        "top": all(o.center[1] - y > CLEAR_OFFSET_PX for o in others),
        "bottom": all(y - o.center[1] > CLEAR_OFFSET_PX for o in others),
    }
    return [side for side, holds in beyond.items() if holds]


def _street_expression(scene: Scene, target: int, rng: np.random.Generator) -> str:
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
    """Where `thing` is relative to `anchor`, along the axis on which their centers differ most."""
    dx = thing.center[0] - anchor.center[0]
    dy = thing.center[1] - anchor.center[1]
    if abs(dx) >= abs(dy):
        side = "left" if dx < 0 else "right"
    else:
        side = "above" if dy < 0 else "below"
    return str(rng.choice(RELATIONS[side]))
