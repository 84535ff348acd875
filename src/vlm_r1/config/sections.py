"""The sections of params.yaml: types and bounds of every parameter, checked when it is read.

No field has a default: a value stands in the params file and nowhere else, so DVC sees a change.
The sections that only training reads are in config/training.py.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vlm_r1.config.base import (
    Count,
    InputTerms,
    Pair,
    Positive,
    Section,
    Seed,
    Share,
)
from vlm_r1.config.training import Candidates, Grpo, Health, Launch, Search, Sft, Train
from vlm_r1.errors import ConfigError

Method = Literal["sft", "grpo"]
METHODS: tuple[Method, ...] = ("sft", "grpo")
Role = Literal["train", "validation", "id", "ood"]
Template = Literal["plain", "r1", "json"]
EngineName = Literal["transformers", "vllm"]
Format = Literal[
    "vlm-r1", "rec-yaml", "refer", "refgta", "lisa", "llama-factory", "csv", "parquet", "records"
]


class Experiment(Section):
    """Name and seeds of the whole experiment."""

    name: str  # MLflow experiment
    seed: Seed  # of the data, the base and the first training run of each method
    seeds: list[Seed]  # of further training runs of both methods

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Experiment":
        if len({self.seed, *self.seeds}) <= len(self.seeds):
            raise ValueError(f"seed {self.seed} and seeds {self.seeds} name one seed twice")
        return self


class Prompts(Section):
    """Which template (a key of `rec.prompts.TEMPLATES`) each method is trained and asked with."""

    sft: Template
    grpo: Template


def _is_commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"{revision!r}: need a commit, 40 hexadecimal digits; a branch or a tag can move"
        )
    return revision


class Task(InputTerms):
    """What must be equal for both methods, in training and in evaluation."""

    base_model: str  # folder, or a name on the Hugging Face hub
    revision: Annotated[str, AfterValidator(_is_commit)] | None  # of a name on the hub
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["eager", "sdpa", "flash_attention_2"]
    prompts: Prompts


class Sizes(Section):
    """Sizes of drawn images and of the objects in them, in original pixels."""

    images: Annotated[list[Pair], Field(min_length=1)]  # (width, height); each image takes one
    objects: Pair  # sides of an object's bounding box, at least and at most

    @model_validator(mode="after")
    def _two_objects_fit(self) -> "Sizes":
        least, most = self.objects
        short = min(side for size in self.images for side in size)
        if not least <= most <= short // 2:
            raise ValueError(
                f"objects {self.objects}: need the smaller one first, and no more than half of the "
                f"shortest image side ({short} px), or two objects may not fit"
            )
        return self


class DrawnSplit(Section):
    """One split of a drawn world."""

    world: Literal["studio", "street"]
    images: Count
    phrases_per_image: Count
    detection: bool  # a phrase lists kinds of things, and all things of these kinds are its boxes
    sizes: Sizes | None  # null: the world's own


class Dataset(Section):
    """A dataset's role, its files, and how to read them.

    Several datasets may have the role `train`: they are trained on as one, in params' order.
    """

    role: Role
    records: str
    format: Format  # docs/data.md shows a row of each
    split: str | None  # the only split of the file to read; null: all
    # VLM-R1's sampling_strategy, of the rows of that split
    sampling: Annotated[str, Field(pattern=r"^(all|(first|end|random):\d+%?)$")]
    published: str | None  # key of data/validation/published_counts.py: its counts must be met
    images: str  # folder that the records' `image` paths are relative to
    # applied: boxes were drawn on images that EXIF had turned upright (docs/data.md)
    exif: Literal["applied", "ignored"]
    # a name in grpo.rewards: the only reward that compares boxes for these rows; null: all
    accuracy_reward: str | None

    @model_validator(mode="after")
    def _only_training_is_rewarded(self) -> "Dataset":
        if self.accuracy_reward is not None and self.role != "train":
            raise ValueError(f"accuracy_reward of a dataset of role {self.role!r}: need null")
        return self


class Validation(Section):
    """Bounds of the Great Expectations suite, and what happens to data that breaks them."""

    max_phrase_characters: Count
    min_box_side_px: Positive
    max_degenerate_share: Share  # of boxes with a shorter side
    max_repeated_share: Share  # of records that repeat image, phrase and box
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)]  # of a 256-bit perceptual hash
    on_failure: Literal["fail", "quarantine"]  # the dataset, or only its unfit rows
    on_leak: Literal["fail", "exclude"]  # exclude: from training, or from validation


class BaseTraining(Section):
    """Pretraining of the tiny base (stage `base`, frozen: its weights are in the repository)."""

    locate_steps: Count
    match_steps: Count
    find_steps: Count
    obey_steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Count
    street_share: Share
    wrong_space_after_the: Share
    wrong_space_otherwise: Share
    missing_tags: Share


class Vllm(Section):
    """vLLM's server, for `evaluate.engine: vllm` (docs/vllm.md)."""

    python: str  # of the environment that vLLM is installed in
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)]
    start_timeout_s: Positive


class Evaluate(Section):
    """Decoding of every checkpoint: greedy, and sampled as often as `repeats` says."""

    engine: EngineName  # what generates; results of the two are never compared
    vllm: Vllm
    # rows x (longest prompt with its image + max_new_tokens); null: by the GPUs' memory
    batch_tokens: Count | None
    max_new_tokens: Count
    repeats: Annotated[int, Field(ge=0)]  # sampled answers to each question; 0: none
    temperature: Positive  # of the sampled answers


class ReportSettings(Section):
    """Confidence intervals and gallery of the report."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    gallery: Annotated[int, Field(ge=0)]  # images shown
    prompt_matrix: bool  # ask base and best checkpoints with every template


class Registry(Section):
    """Where the chosen checkpoints are registered."""

    model_name: str


class Params(Section):
    """All of params.yaml."""

    experiment: Experiment
    task: Task
    draw: dict[str, DrawnSplit]
    sources: list[str]  # archives of data/raw to unpack
    datasets: dict[str, Dataset]
    validation: Validation
    base: BaseTraining
    train: Train
    launch: Launch
    sft: Sft
    grpo: Grpo
    search: Search
    health: Health
    evaluate: Evaluate
    report: ReportSettings
    registry: Registry

    @model_validator(mode="after")
    def _roles_are_filled(self) -> "Params":
        roles = [dataset.role for dataset in self.datasets.values()]
        for role in ("train", "validation", "id", "ood"):
            if role not in roles:
                raise ValueError(f"no dataset has the role {role!r}")
        return self

    @model_validator(mode="after")
    def _rewards_are_known(self) -> "Params":
        known = [key.rpartition(":")[2] for key in self.grpo.rewards]
        for name, dataset in self.datasets.items():
            if dataset.accuracy_reward not in (None, *known):
                raise ValueError(
                    f"datasets.{name}.accuracy_reward {dataset.accuracy_reward!r} is not in "
                    f"grpo.rewards: {', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _grids_fit(self) -> "Params":
        train = self.train
        for method in METHODS:
            if self.steps_of(method) < train.steps:
                raise ValueError(
                    f"{method}.steps {self.steps_of(method)} is below train.steps {train.steps}, "
                    "which both methods are compared on: lower train.steps, and give the other "
                    "method its own steps"
                )
        grid, longest = train.checkpoints, max(map(self.steps_of, METHODS))
        last = grid if isinstance(grid, int) else grid[-1]
        if last > longest:
            raise ValueError(f"train.checkpoints: step {last} is after the last one, {longest}")
        return self

    def steps_of(self, method: Method) -> int:
        """Optimizer steps of a method's training: its own number, or the shared one."""
        own = (self.sft if method == "sft" else self.grpo).steps
        return self.train.steps if own is None else own

    def candidates(self, method: Method) -> list[float]:
        """Learning rates that validation chooses between; none without a search."""
        searched = self.search.sft if method == "sft" else self.search.grpo
        return searched.learning_rate

    def as_candidate(self, method: Method, learning_rate: float) -> "Params":
        """These parameters with this learning rate for `method`, and no search for it."""
        own = getattr(self, method).model_copy(update={"learning_rate": learning_rate})
        none = self.search.model_copy(update={method: Candidates(learning_rate=[])})
        return self.model_copy(update={method: own, "search": none})

    def step_grid(self, method: Method) -> list[int]:
        """Step 0 (the base) and the steps of the method's checkpoints."""
        return self.train.steps_up_to(self.steps_of(method))

    def with_seed(self, seed: int | None) -> "Params":
        """These parameters for the training run of `seed`; None is the first run's.

        Raises:
            ConfigError: the experiment has no such seed.
        """
        first, others = self.experiment.seed, self.experiment.seeds
        if seed is None or seed == first:
            return self
        if seed not in others:
            raise ConfigError(
                got=f"seed {seed}",
                need=f"experiment.seed {first}, or one of experiment.seeds {others}",
                because="a run that the experiment does not name would be in no report",
                do="add it to experiment.seeds in params.yaml",
            )
        return self.model_copy(
            update={"experiment": self.experiment.model_copy(update={"seed": seed, "seeds": []})}
        )

    def run_name(self, method: Method, seed: int | None = None) -> str:
        """What a training run's folders are called: its method, and its seed unless the first."""
        return method if seed in (None, self.experiment.seed) else f"{method}-{seed}"

    def task_in_training(self, method: Method) -> Task:
        """The task as `method` is trained on it: for SFT with `sft.own_terms`, if there are any."""
        own = self.sft.own_terms if method == "sft" else None
        return self.task if own is None else self.task.model_copy(update=dict(own))

    @property
    def all_seeds(self) -> list[int]:
        """Seeds of the training runs of each method, the first run's first."""
        return [self.experiment.seed, *self.experiment.seeds]

    def names(self, *roles: Role) -> list[str]:
        """Names of the datasets with these roles, in the file's order."""
        return [name for name, dataset in self.datasets.items() if dataset.role in roles]

    @property
    def train_datasets(self) -> list[str]:
        """The datasets that both methods train on, as one."""
        return self.names("train")

    @property
    def test_datasets(self) -> list[str]:
        """In domain first, then out of domain: what the report compares on."""
        return self.names("id") + self.names("ood")

    @property
    def evaluated_datasets(self) -> list[str]:
        """Validation (for choosing a checkpoint) and the test datasets."""
        return self.names("validation") + self.test_datasets
