"""Labels of report.html and report.md: sections, roles, contract terms, slices, prompts, models."""

from vlm_r1.report.wording import NAMES, PLACES

SECTIONS = {  # of report.html, in order; each has a template of its name in templates/html
    "verdict": "Verdict",
    "curves": "Curves",
    "fairness": "Equal terms",
    "choices": "Chosen per method",
    "comparisons": "Differences",
    "statistics": "Over all steps",
    "decomposition": "Coordinates",
    "slices": "Slices",
    "thresholds": "Thresholds",
    "answers": "Answers",
    "repeats": "Sampled answers",
    "prompts": "Prompts",
    "compute": "Equal compute",
    "cost": "Cost",
    "published": "Published figures",
    "training": "Training",
    "cases": "Cases",
    "notes": "Notes",
    "lineage": "Lineage",
    "reading": "How to read",
}
ROLES = PLACES | {
    "train": "training",
    "validation": "validation (for choosing a checkpoint; never compared)",
}
RIGHT = {
    "grpo": "Only GRPO right",
    "sft": "Only SFT right",
    "neither": "Neither right",
    "both": "Both right",
}
TERM_LABELS = {
    "base_digest": "base checkpoint (digest)",
    "training_records_digest": "training records (digest)",
    "min_pixels": "smallest image, pixels",
    "max_pixels": "largest image, pixels",
    "coordinate_space": "coordinate space of the boxes",
    "trained_min_pixels": "smallest image in training, pixels",
    "trained_max_pixels": "largest image in training, pixels",
    "trained_coordinate_space": "coordinate space of the boxes in training",
    "prompts_per_step": "prompts a step",
    "step_grid": "steps evaluated",
    "dtype": "floating-point type",
    "prompts": "prompt of each method",
    "max_new_tokens": "tokens of an answer, at most",
    "repeats": "sampled answers besides the greedy one",
    "parser_version": "parser version",
    "scoring_version": "scoring version",
}
CHOICE_LABELS = {
    "steps": "steps",
    "learning_rate": "learning rate",
    "schedule": "schedule of the learning rate",
    "warmup_share": "share of steps that warm up",
    "micro_batch": "rows a device holds at once",
    "prompts_per_step": "prompts a step",
    "max_grad_norm": "largest norm of the gradient",
    "gradient_checkpointing": "gradient checkpointing",
    "freeze_vision": "vision tower frozen",
    "freeze_projector": "projector frozen",
    "lora": "LoRA",
    "liger": "Liger's kernels",
    "deepspeed": "DeepSpeed",
    "processes": "processes",
    "num_generations": "completions a prompt",
    "num_iterations": "trainings on one rollout",
    "steps_per_generation": "micro-batches a rollout fills",
    "beta": "weight of KL (beta)",
    "epsilon": "clipping (epsilon)",
    "epsilon_high": "clipping upward (epsilon_high)",
    "loss_type": "loss",
    "importance_sampling_level": "importance sampling by",
    "rollouts": "rollouts by",
    "temperature": "temperature of rollouts",
    "max_completion_tokens": "tokens of a completion, at most",
    "rewards": "rewards and their weights",
    "own_rewards": "own rewards (digests)",
}
DIMENSION_LABELS = {
    "box_area_percent": "Size of the true box, % of the image's area",
    "box_area_px2": "Size of the true box, pixels (COCO's bounds)",
    "box_aspect_ratio": "Shape of the true box, width : height",
    "phrase_words": "Length of the phrase, words",
    "spatial_words": "Spatial words in the phrase (left, top, between, ...)",
    "objects_named": "Different objects asked for in the same image",
    "category": "Category of the object",
    "split": "Split of the test set",
}
MODEL_LABELS = {"base": "Base"} | NAMES
TEMPLATE_LABELS = {
    "plain": "plain question",
    "r1": "R1 (think, then answer)",
    "json": "JSON request",
}
