"""Stage `base`: pretrains the tiny Qwen2.5-VL that both methods start from -> models/base."""

from pathlib import Path

from vlm_r1.config import Params
from vlm_r1.files import whole_folder
from vlm_r1.models.tiny.train import pretrain


def run(params: Params, root: Path) -> None:
    """Pretrain the base and write it as a Hugging Face checkpoint."""
    model, processor = pretrain(params.base, params.task, params.experiment.seed)
    with whole_folder(root / params.task.base_model) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
