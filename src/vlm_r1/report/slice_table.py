"""Table of results -> the report's block `slices`: both methods at the last common step."""

import numpy as np

from vlm_r1.evaluation.slices import Slice, slice_rows
from vlm_r1.report.results_table import TESTED, ResultsTable, SeedGroup
from vlm_r1.report.schema import LeftOut, Share, SliceLine, Slices
from vlm_r1.report.wording import estimate
from vlm_r1.stats.clustered import discordant_images, min_discordant_images
from vlm_r1.stats.intervals import interval, paired_difference


def slice_block(table: ResultsTable) -> Slices:
    """Every slice of every tested dataset, and the dimensions without data."""
    lines, left_out = [], []
    for dataset in table.datasets(*TESTED):
        step = table.common_steps(dataset)[-1]
        sft, grpo = table["sft", dataset, step], table["grpo", dataset, step]
        found = slice_rows(grpo.first.rows, dataset)
        lines += [_line(part, sft, grpo) for part in found.slices]
        left_out += [
            LeftOut(dataset=dataset, dimension=dimension, reason=reason)
            for dimension, reason in found.left_out.items()
        ]
    return Slices(
        min_discordant=min_discordant_images(table.confidence), lines=lines, left_out=left_out
    )


def _line(part: Slice, sft: SeedGroup, grpo: SeedGroup) -> SliceLine:
    images = grpo.images[part.rows]
    ours, theirs = (group.hit[..., part.rows] for group in (grpo, sft))
    count, discordant = len(set(images)), discordant_images(ours, theirs, images)
    return SliceLine(
        dataset=grpo.dataset,
        step=grpo.step,
        dimension=part.dimension,
        name=part.name,
        n=len(part.rows),
        n_images=count,
        n_discordant=discordant,
        undecided=discordant < min_discordant_images(grpo.confidence),
        sft=_share(theirs, images, grpo.confidence),
        grpo=_share(ours, images, grpo.confidence),
        difference=estimate(paired_difference(ours, theirs, images, grpo.confidence))
        if count > 1
        else None,
    )


def _share(hits: np.ndarray, images: np.ndarray, confidence: float) -> Share:
    if len(set(images)) < 2:
        return Share(percent=100 * float(np.mean(hits)), ci_low=None, ci_high=None)
    mean, low, high = interval(hits, images, confidence)
    return Share(percent=mean, ci_low=low, ci_high=high)
