"""GRPO: params -> TRL's arguments, records -> rows with what rewards need, and TRL's trainer."""

from functools import partial
from pathlib import Path

import datasets
import pandas as pd
from trl import GRPOConfig

from vlm_r1.config import Params, Task
from vlm_r1.data.images import open_image
from vlm_r1.data.records import BOX, detects, optional_values, true_objects
from vlm_r1.models.families import QWEN2_5_VL, Family
from vlm_r1.preflight.checks import check_rollouts
from vlm_r1.rec.rewards.custom import source_file
from vlm_r1.training import run
from vlm_r1.training.arguments import accumulation_steps, shared_arguments
from vlm_r1.training.callbacks import Listener, ignore
from vlm_r1.training.dataset import input_sizes, prompt_columns
from vlm_r1.training.job import TrainingJob
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.trainers import ResumableGRPOTrainer


def train(job: TrainingJob, listener: Listener = ignore) -> None:
    """Train the base by rewards for its answers; see `run.train` for what it leaves and raises.

    Raises:
        ConfigError: a reward cannot be used; known before the model is loaded.
    """
    params = job.params
    samples = job.work_folder / "samples"
    rewards = RewardFunctions(params.grpo, params.task.coordinate_space, samples, job.root)
    rewards.require_known(optional_values(job.records, "accuracy_reward"))
    first = grpo_rows(job.records.head(1), job.images, job.root, params.task)[0]
    rewards.try_on(first | {"image": open_image(Path(first["image"]))})
    own_files = {key: source_file(key, job.root) for key in params.grpo.rewards if ":" in key}
    make_trainer = partial(_make_trainer, rewards=rewards)
    run.train(job, run.TrainerFactory(grpo_arguments, make_trainer, own_files), listener)


def grpo_arguments(params: Params, output: Path, processes: int = 1) -> GRPOConfig:
    """TRL's GRPO arguments: `prompts_per_step` prompts x `num_generations` completions a step.

    Raises:
        ConfigError: a step or a rollout does not split as it must, or vLLM cannot be used.
    """
    grpo = params.grpo
    check_rollouts(grpo, processes)
    return GRPOConfig(
        **shared_arguments(params, grpo, output),
        gradient_accumulation_steps=accumulation_steps(
            params.train.prompts_per_step * grpo.num_generations,
            grpo.micro_batch,
            processes,
            "grpo",
        ),
        shuffle_dataset=False,  # rows are shuffled already (training_order)
        remove_unused_columns=False,  # the rewards read the other columns
        num_generations=grpo.num_generations,
        num_iterations=grpo.num_iterations,
        steps_per_generation=grpo.steps_per_generation,
        max_completion_length=grpo.max_completion_tokens,
        temperature=grpo.temperature,
        top_p=grpo.top_p,
        top_k=grpo.top_k,
        beta=grpo.beta,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        reward_weights=list(grpo.rewards.values()),
        scale_rewards=grpo.scale_rewards,
        mask_truncated_completions=grpo.mask_truncated_completions,
        entropy_coef=grpo.entropy_coef,
        log_multimodal=False,  # with several processes TRL would exchange all images, for no log
        loss_type=grpo.loss_type,  # TRL's own default is dapo
        importance_sampling_level=grpo.importance_sampling_level,
        use_vllm=grpo.rollouts != "transformers",
        vllm_mode="server",  # the only mode that check_rollouts accepts
        vllm_server_base_url=params.launch.vllm_server_url,
    )


def grpo_rows(
    records: pd.DataFrame, images: Path, root: Path, task: Task, family: Family = QWEN2_5_VL
) -> datasets.Dataset:
    """Columns prompt, image (a path), and what rewards and samples read.

    These are record_id, expression, accuracy_reward, true_box (xyxy in original pixels; of a
    detection record around all its objects), true_boxes and true_labels (of each object; labels
    None for an expression), image_size and input_size ((height, width) before and after the
    processor's resize), and image_path.

    Args:
        records: in training order; boxes in original pixels.
        images: the folder that the records' image paths are relative to.
        root: the project's root.
    """
    columns = prompt_columns(records, images, task.prompts.grpo)
    columns["record_id"] = records["record_id"].astype(str).tolist()
    columns["expression"] = records["expression"].tolist()
    columns["accuracy_reward"] = optional_values(records, "accuracy_reward")
    columns["true_box"] = records[BOX].to_numpy(dtype=float).tolist()
    objects, labeled = true_objects(records), detects(records)
    columns["true_boxes"] = [[list(box) for box, _ in own] for own in objects]
    columns["true_labels"] = [
        [label for _, label in own] if has_labels else None
        for own, has_labels in zip(objects, labeled, strict=True)
    ]
    columns["image_size"] = records[["height", "width"]].to_numpy().tolist()
    columns["input_size"] = input_sizes(records, task, family).tolist()
    # relative to the project, so that the tables of samples are the same on every machine
    folder = images.relative_to(root) if images.is_relative_to(root) else images
    columns["image_path"] = [f"{folder.as_posix()}/{name}" for name in records["image"]]
    return datasets.Dataset.from_dict(columns)  # the trainer opens images, see rollout_images


def _make_trainer(prepared: run.Prepared, rewards: RewardFunctions) -> ResumableGRPOTrainer:
    job = prepared.job
    rows = grpo_rows(prepared.records, job.images, job.root, job.params.task, prepared.family)
    return ResumableGRPOTrainer(
        params=job.params,
        train_dataset=rows,
        reward_funcs=rewards.as_list(),
        **prepared.trainer_options(),
    )
