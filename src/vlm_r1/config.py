"""params.yaml as typed, frozen sections: every knob and its bounds, checked at the door."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlm_r1.errors import ConfigError

METHODS = ("sft", "grpo")
Method = Literal["sft", "grpo"]
Role = Literal["train", "validation", "id", "ood"]
Frame = Literal["original", "input", "thousand", "unit"]
# names in rewards.REWARDS, which is not imported here: config stands below every room
REWARDS = (
    *("iou", "iou_hard", "giou", "center", "format", "length", "repetition"),
    *("map", "odlength"),
)
Template = Literal["plain", "r1", "json"]
Format = Literal[
    "vlm-r1", "rec-yaml", "refer", "refgta", "lisa", "llama-factory", "csv", "parquet", "records"
]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys, no silent type changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Experiment(Section):
    """What the whole experiment is called and sown with."""

    name: str  # MLflow experiment
    seed: Seed = 42  # of the data, the base and the first training run of each method
    seeds: list[Seed] = []  # of further training runs of both methods

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Experiment":
        if len({self.seed, *self.seeds}) <= len(self.seeds):
            raise ValueError(f"seed {self.seed} and seeds {self.seeds} name one seed twice")
        return self


class Prompts(Section):
    """Which template (see `prompts.TEMPLATES`) each method is trained and asked with."""

    sft: Template = "plain"
    grpo: Template = "r1"


class Task(Section):
    """What must be equal for both methods."""

    base_model: str = "models/base"  # folder, or a name on the Hugging Face hub
    frame: Frame = "input"  # the frame the model speaks in
    min_pixels: Count = 3136
    max_pixels: Count = 12_845_056
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "eager"
    prompts: Prompts = Prompts()

    @model_validator(mode="after")
    def _budget_is_ordered(self) -> "Task":
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self


class DrawnSplit(Section):
    """One split of a drawn world."""

    world: Literal["studio", "street"]
    pictures: Count
    phrases_per_picture: Count = 2


class Dataset(Section):
    """Where a dataset lies and what it is for."""

    role: Role
    records: str
    format: Format = "vlm-r1"  # docs/data.md shows a row of each
    split: str | None = None  # of the file's splits, the one to read; default: all
    published: str | None = None  # entry of data/published.py whose counts must be met
    images: str  # folder that the records' `image` paths are relative to
    # whether the boxes were drawn on pictures that EXIF had turned upright (docs/data.md)
    exif: Literal["applied", "ignored"] = "applied"


class Validation(Section):
    """Bounds of the Great Expectations suite, and what becomes of data that does not meet it."""

    max_phrase_characters: Count = 300
    min_box_side_px: Positive = 1.0
    max_degenerate_share: Share = 0.0  # of boxes with a shorter side
    max_repeated_share: Share = 0.0  # of records that repeat picture, phrase and box
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)] = 20  # of a 256-bit perceptual hash
    on_failure: Literal["fail", "quarantine"] = "fail"  # the dataset, or only its unfit rows
    on_leak: Literal["fail", "exclude"] = "fail"  # exclude: from the training set


class BaseTraining(Section):
    """Raising the tiny base (stage `base`, frozen: its weights are in the repository)."""

    locate_steps: Count
    match_steps: Count
    find_steps: Count
    obey_steps: Count
    batch_size: Count = 48
    learning_rate: Positive = 1e-3
    warmup_steps: Count = 60
    street_share: Share = 0.3
    stray_frame_after_the: Share = 0.75
    stray_frame_otherwise: Share = 0.03
    missing_tags: Share = 0.1


class Lora(Section):
    """Low-rank adapters instead of full fine-tuning; VLM-R1's values (run_grpo_rec_lora.sh)."""

    r: Count = 64
    alpha: Count = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: list[str] | None = None  # layer names; null: every linear layer of the language model


class Train(Section):
    """The schedule and the model options that both methods share."""

    steps: Count
    save_every: Count
    prompts_per_step: Count = 16
    max_grad_norm: Positive = 1.0
    log_every: Count = 5
    save_only_model: bool = False  # True: weights alone, so that a killed training begins anew
    gradient_checkpointing: bool = False
    freeze_vision: bool = False  # the vision tower; VLM-R1's --freeze_vision_modules
    freeze_projector: bool = False  # what carries pictures from the tower into the language model
    lora: Lora | None = None
    liger: bool = False  # Liger's kernels, where TRL allows them
    deepspeed: str | None = None  # zero2, zero3, zero3_offload, or the path of a DeepSpeed JSON

    @model_validator(mode="after")
    def _grid_is_whole(self) -> "Train":
        if self.steps % self.save_every:
            raise ValueError(
                f"steps {self.steps} is not a multiple of save_every {self.save_every}"
            )
        return self

    @property
    def step_grid(self) -> list[int]:
        """Step 0 (the base) and every checkpoint's step."""
        return list(range(0, self.steps + 1, self.save_every))


class Launch(Section):
    """On how many processes training runs; `vlm-r1 launch` and the stages start them."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    processes_per_node: Count = 1  # one a GPU
    nodes: Count = 1
    endpoint: Annotated[str, Field(pattern=r"^\S+:\d+$")] | None = None  # host:port of node 0
    id: str = "vlm-r1"  # tells concurrent runs at one endpoint apart

    @model_validator(mode="after")
    def _nodes_can_meet(self) -> "Launch":
        if self.nodes > 1 and self.endpoint is None:
            raise ValueError(
                f"{self.nodes} nodes need an endpoint, host:port of node 0, to meet at"
            )
        return self

    @property
    def processes(self) -> int:
        """Processes of all nodes together."""
        return self.nodes * self.processes_per_node


class Optimizer(Section):
    """AdamW's knobs, one set a method."""

    learning_rate: Positive
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_share: Share = 0.0
    micro_batch: Count  # rows (SFT) or completions (GRPO) a device holds at once


class Sft(Optimizer):
    """Supervised fine-tuning."""


def _reward_is_known(name: str) -> str:
    if name not in REWARDS and ":" not in name:
        raise ValueError(
            f"no reward {name!r}: need one of {', '.join(REWARDS)}, or FILE.py:FUNCTION"
        )
    return name


def _weight_counts(weight: float) -> float:
    if weight == 0:
        raise ValueError("a reward of weight 0 changes nothing: leave it out")
    return weight


Rewards = Annotated[
    dict[
        Annotated[str, AfterValidator(_reward_is_known)],
        Annotated[float, Field(allow_inf_nan=False), AfterValidator(_weight_counts)],
    ],
    Field(min_length=1),
]


class Grpo(Optimizer):
    """VLM-R1's values where nothing else is said (reference: run_grpo_rec.sh)."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    num_iterations: Count = 1  # how often a rollout is trained on
    steps_per_generation: Count | None = None  # micro-batches a rollout fills; null: one step
    beta: Annotated[float, Field(ge=0)] = 0.04  # 0: no reference model
    epsilon: Positive = 0.2
    epsilon_high: Positive | None = None  # null: as epsilon
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "grpo"  # VLM-R1's mean per sequence
    importance_sampling_level: Literal["token", "sequence"] = "token"
    rollouts: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    vllm_server_url: str = "http://127.0.0.1:8000"
    temperature: Positive = 1.0
    max_completion_tokens: Count = 256
    rewards: Rewards = {"iou": 1.0, "format": 1.0}
    sample_every: Count = 25  # steps between tables of sampled completions


Threshold = Annotated[float, Field(ge=0)] | None


class Health(Section):
    """When a training is called ill (training/health.py); a threshold of null is not checked."""

    on_alarm: Literal["warn", "stop"] = "warn"
    patience: Count = 3  # log lines in a row; loss or gradient that is no number: one
    min_reward_std: Threshold = 0.01
    max_equal_groups: Threshold = 0.95  # share of groups in which all rewards are equal
    max_kl: Threshold = 1.0
    max_length_drift: Annotated[float, Field(gt=1)] | None = 3.0  # factor, up or down
    max_format_only_gain: Threshold = 0.2  # of rewards/format, while no reward for boxes gains
    min_parse_rate: Threshold = 0.3


class Evaluate(Section):
    """Greedy decoding of every checkpoint."""

    batch_tokens: Count = 32_768  # rows x (longest prompt with its picture + max_new_tokens)
    max_new_tokens: Count = 256


class Report(Section):
    """Intervals and pictures of the report."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: Count = 10_000
    gallery: Annotated[int, Field(ge=0)] = 12  # pictures shown
    prompt_matrix: bool = False  # ask base and best checkpoints with every template


class Registry(Section):
    """Where the chosen checkpoints are registered."""

    model_name: str


class Params(Section):
    """All of params.yaml."""

    experiment: Experiment
    task: Task
    draw: dict[str, DrawnSplit] = {}
    sources: list[str] = []  # archives of data/raw that the stage `unpack` opens
    datasets: dict[str, Dataset]
    validation: Validation = Validation()
    base: BaseTraining
    train: Train
    launch: Launch = Launch()
    sft: Sft
    grpo: Grpo
    health: Health = Health()
    evaluate: Evaluate
    report: Report
    registry: Registry

    @model_validator(mode="after")
    def _roles_are_filled(self) -> "Params":
        roles = [dataset.role for dataset in self.datasets.values()]
        for role in ("train", "validation", "id", "ood"):
            if role not in roles:
                raise ValueError(f"no dataset has the role {role!r}")
        if roles.count("train") != 1:
            raise ValueError(f"{roles.count('train')} datasets have the role 'train', need one")
        return self

    def sown(self, seed: int | None) -> "Params":
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

    @property
    def all_seeds(self) -> list[int]:
        """Of the training runs of each method, the first run's first."""
        return [self.experiment.seed, *self.experiment.seeds]

    def names(self, *roles: Role) -> list[str]:
        """Names of the datasets with these roles, in the file's order."""
        return [name for name, dataset in self.datasets.items() if dataset.role in roles]

    @property
    def train_dataset(self) -> str:
        """The one dataset both methods train on."""
        return self.names("train")[0]

    @property
    def test_datasets(self) -> list[str]:
        """In domain first, then out of domain: what the report compares on."""
        return self.names("id") + self.names("ood")

    @property
    def evaluated_datasets(self) -> list[str]:
        """Validation (for choosing a checkpoint) and the test datasets."""
        return self.names("validation") + self.test_datasets


def profile_file(name: str, folder: Path = Path("profiles")) -> Path:
    """The params file of the profile `name`.

    Raises:
        ConfigError: there is no such profile.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none here"
        raise ConfigError(
            got=f"profile {name!r}",
            need=f"one of: {known}",
            because=f"a profile is a params file in {folder}/",
            do="name one of these, or write that file; run from the project's root",
        )
    return path


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has an unknown key or a wrong value.
    """
    return parse_params(_read_yaml(path), source=str(path))


def parse_params(values: dict, source: str) -> Params:
    """`values` as `Params`; every fault is named by its dotted key.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
            f" (found {_brief(fault['input'])})"
            for fault in error.errors()
        )
        raise ConfigError(
            got=f"{source}: {faults}",
            need="only known keys with values of the documented type",
            because="a misspelt key would otherwise train with a default that nobody chose",
            do="correct the keys named above; `vlm-r1 config` prints the resolved parameters",
        ) from None


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        values, fault = None, "no such file"
    except yaml.YAMLError as error:
        values, fault = None, " ".join(str(error).split())
    else:
        fault = f"a {type(values).__name__}"
    if not isinstance(values, dict):
        raise ConfigError(
            got=f"{path}: {fault}",
            need="a YAML file with one section a stage",
            because="every stage reads its knobs there",
            do="run from the project's root, or name the file with --params",
        )
    return values


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
