"""Synthetic data: unambiguous expressions, tight boxes, no shared scenes, no constant answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from vlm_r1.config import DrawnSplit, load_params
from vlm_r1.data.synthetic.dataset import normalized, require_no_shared_scene, sample_split
from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.synthetic.expressions import RELATIONS, STREET_COLORS, STREET_KINDS, expression_for
from vlm_r1.data.synthetic.scenes import COLORS, KINDS, WORLDS, Scene, Thing
from vlm_r1.errors import ConfigError
from vlm_r1.rec.boxes import iou, is_hit
from vlm_r1.stages import draw

SEED = 42
PARAMS = Path(__file__).parents[1] / "params.yaml"


KEYS = {  # of a record in VLM-R1's rec_jsons_processed
    *("height", "width", "id", "original_id", "dataset_name", "area", "iscrowd", "image_id"),
    *("category_id", "bbox_list", "text_type", "image", "problem", "normal_caption"),
    *("solution", "normalized_solution"),
}


def split_of(world, images=40, expressions=2, sizes=None):
    return DrawnSplit(
        world=world,
        images=images,
        phrases_per_image=expressions,
        detection=False,
        sizes=sizes,
    )


def two_circles_and_a_square(world):
    return Scene(
        WORLDS[world],
        (
            Thing("circle", "red", (0, 0, 20, 20)),
            Thing("circle", "blue", (50, 4, 70, 24)),
            Thing("square", "red", (30, 35, 52, 57)),
        ),
        look_seed=7,
    )


# --- expressions ---------------------------------------------------------------------------


def referents(expression, scene):
    """An independent parser of expressions: the indices of all things one may refer to."""
    read = {"studio": read_studio, "street": read_street}[scene.world.name]
    return read(expression.split(), scene.things)


def read_studio(words, things):
    found = [
        i
        for i, thing in enumerate(things)
        if all(thing.color == w for w in words if w in COLORS)
        and all(thing.kind == w for w in words if w in KINDS)
    ]
    reach = {
        "left": lambda i: -things[i].center[0],
        "right": lambda i: things[i].center[0],
        "top": lambda i: -things[i].center[1],
        "bottom": lambda i: things[i].center[1],
    }
    for side in reach.keys() & set(words):
        furthest = max(map(reach[side], found))
        found = [i for i in found if reach[side](i) > furthest - 6]  # nearly level counts as level
    assert set(words) <= {"the", "one", *COLORS, *KINDS, *reach}
    return found


def read_street(words, things):
    text = " ".join(words)
    [(side, where)] = [(s, r) for s, group in RELATIONS.items() for r in group if f" {r} " in text]
    subject, anchor = (named(part.split(), things) for part in text.split(where))
    (anchor_index,) = anchor
    ax, ay = things[anchor_index].center
    holds = {
        "left": lambda x, y: x < ax,
        "right": lambda x, y: x > ax,
        "above": lambda x, y: y < ay,
        "below": lambda x, y: y > ay,
    }[side]
    return [i for i in subject if holds(*things[i].center)]


def named(words, things):
    colors = [c for c, synonyms in STREET_COLORS.items() if set(synonyms) & set(words)]
    kinds = [k for k, synonyms in STREET_KINDS.items() if set(synonyms) & set(words)]
    return [i for i, t in enumerate(things) if [t.color] == colors and [t.kind] == kinds]


def all_expressions(scene, target):
    rng = np.random.default_rng(0)
    return {expression_for(scene, target, rng) for _ in range(300)}


def test_studio_expressions_of_a_hand_made_scene():
    scene = two_circles_and_a_square("studio")

    assert all_expressions(scene, 0) == {"red circle", "the red circle", "left circle"}
    # 4 px lower than the red circle: too level to be the bottom one
    assert all_expressions(scene, 1) == {
        "blue circle",
        "the blue circle",
        "blue one",
        "right circle",
    }
    assert all_expressions(scene, 2) == {"red square", "the red square", "square"}


@pytest.mark.parametrize("world", WORLDS)
def test_every_expression_of_a_hand_made_scene_refers_to_its_thing_only(world):
    scene = two_circles_and_a_square(world)

    for target in range(3):
        for expression in all_expressions(scene, target):
            assert referents(expression, scene) == [target], expression


@pytest.mark.parametrize("world", WORLDS)
def test_every_expression_of_a_split_refers_to_its_thing_only(world):
    scenes = sample_split("some", split_of(world, images=300), SEED)

    assert len(scenes) == 300
    for described in scenes:
        for expression, target in described.expressions.items():
            assert referents(expression, described.scene) == [target], expression


def test_two_expressions_of_an_image_refer_to_two_things():
    for described in sample_split("some", split_of("studio"), SEED):
        assert len(described.expressions) == 2
        assert len(set(described.expressions.values())) == 2


def test_more_expressions_than_a_scene_allows_are_refused():
    with pytest.raises(ConfigError, match="phrases_per_image 200 in the world 'studio'"):
        sample_split("some", split_of("studio", images=1, expressions=200), SEED)


# --- images ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [(11, 7, 31, 27), (20, 30, 53, 63)])
def test_box_is_tight_around_the_drawn_pixels(kind, box):
    scene = Scene(WORLDS["studio"], (Thing(kind, "blue", box),), look_seed=3)
    pixels = np.asarray(draw_scene(scene)).astype(int)

    ys, xs = np.nonzero((pixels != pixels[0, 0]).any(axis=-1))

    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == box


@pytest.mark.parametrize("world", WORLDS)
def test_image_has_the_worlds_size(world):
    assert draw_scene(two_circles_and_a_square(world)).size == (
        WORLDS[world].width,
        WORLDS[world].height,
    )


@pytest.mark.parametrize("split", ["studio_test", "street_test"])
def test_no_constant_box_scores_above_15_percent(split):
    params = load_params(PARAMS)
    scenes = sample_split(split, params.draw[split], params.experiment.seed)
    truth = np.array([d.scene.things[i].box for d in scenes for i in d.expressions.values()])
    world = scenes[0].scene.world
    sides = np.arange(world.min_side, 1.5 * world.max_side, 4)
    lefts = np.arange(0, world.width - world.min_side + 1, 4)
    tops = np.arange(0, world.height - world.min_side + 1, 4)
    x, y, w, h = (v.ravel() for v in np.meshgrid(lefts, tops, sides, sides))
    guesses = np.stack([x, y, x + w, y + h], axis=-1)

    accuracy = [is_hit(iou(guess, truth)).mean() for guess in guesses]

    assert len(truth) == 1000
    assert len(guesses) > 9_000
    assert 0.02 < max(accuracy) <= 0.15


# --- splits --------------------------------------------------------------------------------


def test_a_split_depends_on_seed_and_name_only():
    scenes = sample_split("a", split_of("street", images=5), SEED)

    assert sample_split("a", split_of("street", images=9), SEED)[:5] == scenes
    assert sample_split("b", split_of("street", images=5), SEED) != scenes
    assert sample_split("a", split_of("street", images=5), SEED + 1) != scenes


def test_splits_of_the_committed_params_share_no_scene():
    params = load_params(PARAMS)
    splits = {s: sample_split(s, drawn, params.experiment.seed) for s, drawn in params.draw.items()}

    require_no_shared_scene(splits)

    layouts = {s: {frozenset(d.scene.things) for d in scenes} for s, scenes in splits.items()}
    assert not layouts["studio_train"] & (layouts["studio_val"] | layouts["studio_test"])
    assert not layouts["studio_val"] & layouts["studio_test"]


def test_a_shared_scene_is_refused_even_if_decorated_differently():
    scenes = sample_split("a", split_of("studio", images=3), SEED)
    scene = scenes[2].scene
    copy = type(scenes[2])(Scene(scene.world, scene.things[::-1], scene.look_seed + 1), {})

    with pytest.raises(ConfigError, match=r"one scene in a \(image 3\) and in b \(image 1\)"):
        require_no_shared_scene({"a": scenes, "b": [copy]})


# --- the stage -----------------------------------------------------------------------------


@pytest.fixture
def small_params():
    params = load_params(PARAMS)
    drawn = {"studio_train": split_of("studio", 4), "street_test": split_of("street", 3)}
    return params.model_copy(update={"draw": drawn})


def with_seed(params, seed):
    return params.model_copy(
        update={"experiment": params.experiment.model_copy(update={"seed": seed})}
    )


def bytes_under(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(small_params, tmp_path):
    draw.run(small_params, tmp_path / "a")
    draw.run(small_params, tmp_path / "b")
    draw.run(with_seed(small_params, 7), tmp_path / "c")
    a, b, c = (bytes_under(tmp_path / name) for name in "abc")

    assert len(a) == 4 + 3 + 2
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


def test_records_have_the_layout_of_vlm_r1(small_params, tmp_path):
    draw.run(small_params, tmp_path)

    folder = tmp_path / "data/drawn/street_test"
    records = json.loads((folder / "records.json").read_text())
    assert len(records) == 6
    assert [r["id"] for r in records] == [1, 2, 3, 4, 5, 6]
    first = records[0]
    assert first.keys() == KEYS
    assert (first["width"], first["height"]) == (90, 60)
    assert first["image"] == "images/street_test_000001.png"
    x1, y1, x2, y2 = first["solution"]
    assert all(isinstance(v, float) for v in first["solution"])
    assert first["bbox_list"] == [[x1, y1, x2 - 1, y2 - 1]]
    assert first["area"] == (x2 - x1) * (y2 - y1)
    assert first["problem"].endswith(f"describes: {first['normal_caption']}.")


def test_drawing_again_removes_the_old_splits(small_params, tmp_path):
    draw.run(small_params, tmp_path)
    draw.run(
        small_params.model_copy(update={"draw": {"studio_val": split_of("studio", 1)}}), tmp_path
    )

    assert [p.name for p in (tmp_path / "data/drawn").iterdir()] == ["studio_val"]


def test_a_failing_draw_leaves_the_old_splits_whole(small_params, tmp_path, monkeypatch):
    draw.run(small_params, tmp_path)
    before = bytes_under(tmp_path)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(draw, "write_split", full_disk)
    with pytest.raises(OSError, match="no space left"):
        draw.run(with_seed(small_params, 7), tmp_path)

    assert bytes_under(tmp_path) == before


def test_normalized_solution_of_vlm_r1s_own_example():
    box = (103.93, 299.99, 238.15, 477.41)

    assert normalized(box, width=427, height=640) == [243, 468, 557, 745]
