"""Stage draw: params.draw -> data/drawn/<split>/ with images/*.png and records.json."""

import logging
from pathlib import Path

from vlm_r1.config import Params
from vlm_r1.data.synthetic.dataset import require_no_shared_scene, sample_split, write_split
from vlm_r1.files import whole_folder
from vlm_r1.paths import DRAWN

log = logging.getLogger(__name__)


def run(params: Params, root: Path) -> None:
    """Draw every split; the same params give the same bytes.

    Raises:
        ConfigError: more expressions per image than its scene allows, or two splits share a scene.
    """
    seed = params.experiment.seed
    splits = {split: sample_split(split, drawn, seed) for split, drawn in params.draw.items()}
    require_no_shared_scene(splits)
    with whole_folder(root / DRAWN) as folder:
        for split, scenes in splits.items():
            write_split(folder / split, split, scenes)
            log.info("%s: %d images", split, len(scenes))
