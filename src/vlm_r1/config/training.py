"""The sections of params.yaml that only training reads."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vlm_r1.config.base import Count, InputTerms, Positive, Section, Share

# the keys of rec.rewards.REWARDS; config must not import other packages of ours, a test compares
REWARDS = (
    *("iou", "iou_hard", "giou", "center", "format", "length", "repetition"),
    *("map", "odlength"),
)


class Lora(Section):
    """Low-rank adapters (LoRA) instead of full fine-tuning."""

    r: Count
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: list[str] | None  # layer names; null: every linear layer of the language model


def _require_steps(value: object) -> object:
    """A step count, or steps in ascending order; checked before the type, for one clear message."""
    steps = value if isinstance(value, list) else [value]
    if not steps or not all(type(step) is int and step >= 1 for step in steps):
        raise ValueError("need a number of steps, or a list of steps from 1 on")
    if steps != sorted(set(steps)):
        raise ValueError("steps must ascend, each once")
    return value


Checkpoints = Annotated[int | list[int], BeforeValidator(_require_steps)]


class Train(Section):
    """The schedule and the model options that both methods share."""

    steps: Count
    checkpoints: Checkpoints  # every so many steps, or these; the last step has one always
    prompts_per_step: Count
    max_grad_norm: Positive
    log_every: Count
    save_only_model: bool  # True: weights alone, so that a killed training begins anew
    gradient_checkpointing: bool
    freeze_vision: bool  # the vision tower; VLM-R1's --freeze_vision_modules
    freeze_projector: bool  # what carries images from the tower into the language model
    lora: Lora | None
    use_kernels: bool  # kernels of the Hugging Face hub in place of layers; TRL 1.16's after Liger
    optimizer: Literal["adamw", "adamw_8bit"]  # 8bit: bitsandbytes' moments, a quarter of the bytes
    workers: Annotated[int, Field(ge=0)]  # that open and process images ahead; 0: none
    deepspeed: str | None  # zero2, zero3, zero3_offload, or the path of a DeepSpeed JSON

    @property
    def step_grid(self) -> list[int]:
        """Steps that both methods have: 0 (the base) and every checkpoint's, up to `steps`."""
        return self.steps_up_to(self.steps)

    def steps_up_to(self, last: int) -> list[int]:
        """The grid of a training of `last` steps: `step_grid`, the checkpoints after it, `last`.

        Example: steps 60, checkpoints [2, 20, 80]: up to 60 -> 0, 2, 20, 60; up to 100 -> 0, 2,
        20, 60, 80, 100
        """
        grid = self.checkpoints
        found = range(grid, last + 1, grid) if isinstance(grid, int) else grid
        return sorted({0, *(step for step in found if step <= last), self.steps, last})


class Launch(Section):
    """On how many processes training runs; `vlm-r1 launch` and the stages start them."""

    device: Literal["auto", "cpu", "cuda"]  # auto: cuda where there is one
    processes_per_node: Count  # one a GPU
    nodes: Count
    endpoint: Annotated[str, Field(pattern=r"^\S+:\d+$")] | None  # host:port of node 0
    id: str  # tells concurrent runs at one endpoint apart
    start_timeout_s: Count  # the other nodes wait so long for node 0 to start
    rendezvous_timeout_s: Count  # then all nodes for each other (torchrun)
    collective_timeout_s: Count  # a process waits so long for the others within a step
    vllm_server_url: str  # for grpo.rollouts: vllm_server

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
    """AdamW's settings, one set per method."""

    steps: Count | None  # null: train.steps; more: trained on after what both methods share
    learning_rate: Positive
    schedule: Literal["linear", "cosine", "constant"]
    warmup_share: Share
    micro_batch: Count  # rows (SFT) or completions (GRPO) a device holds at once


class Sft(Optimizer):
    """Supervised fine-tuning."""

    own_terms: InputTerms | None  # of training alone, in place of the task's: never fair


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
    """GRPO; docs/training.md compares each value with VLM-R1's run_grpo_rec.sh."""

    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: Count  # how often a rollout is trained on
    steps_per_generation: Count | None  # micro-batches a rollout fills; null: one step
    beta: Annotated[float, Field(ge=0)]  # 0: no reference model
    epsilon: Positive
    epsilon_high: Positive | None  # null: as epsilon
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"]  # VLM-R1 has grpo: mean per sequence
    importance_sampling_level: Literal["token", "sequence"]
    rollouts: Literal["transformers", "vllm_colocate", "vllm_server"]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]  # 1: all tokens
    top_k: Annotated[int, Field(ge=0)]  # 0: all tokens; VLM-R1's is 50, transformers' own default
    max_completion_tokens: Count
    stop_at_answer: bool  # end completions at </answer>, as evaluation does
    drop_finished: bool  # completions that have ended leave the batch that is being written
    share_prompts: bool  # a prompt is read once for all completions of its group
    mask_truncated_completions: bool  # no loss for completions that the limit cut off (DAPO)
    scale_rewards: Literal["group", "batch", "none"]  # by whose deviation advantages are divided
    max_resamples: Annotated[int, Field(ge=0)]  # of further prompts for groups of equal rewards
    entropy_coef: Annotated[float, Field(ge=0)]  # weight of an entropy bonus; 0: none
    rewards: Rewards
    sample_every: Count  # steps between tables of sampled completions


def _require_candidates(values: list[float]) -> list[float]:
    if len(values) == 1 or len(set(values)) < len(values):
        raise ValueError("need two or more different values to search among, or none")
    return values


class Candidates(Section):
    """Values of one method that are tried in its place; [] searches nothing."""

    learning_rate: Annotated[list[Positive], AfterValidator(_require_candidates)]


class Search(Section):
    """Values that validation chooses between, for each method."""

    sft: Candidates
    grpo: Candidates
    unequal: bool  # allow one method more candidates than the other; the report says so

    @model_validator(mode="after")
    def _care_is_equal(self) -> "Search":
        sft, grpo = len(self.sft.learning_rate), len(self.grpo.learning_rate)
        if sft != grpo and not self.unequal:
            raise ValueError(
                f"{sft} candidates for sft and {grpo} for grpo: more tries are an advantage; give "
                "both as many, or set unequal: true"
            )
        return self


Threshold = Annotated[float, Field(ge=0)] | None


class Health(Section):
    """Thresholds of the training alarms (training/health.py); null: not checked."""

    on_alarm: Literal["warn", "stop"]
    patience: Count  # consecutive bad log lines; a NaN or infinite loss or gradient alarms at once
    min_reward_std: Threshold
    max_equal_groups: Threshold  # share of groups in which all rewards are equal
    max_kl: Threshold
    max_length_drift: Annotated[float, Field(gt=1)] | None  # factor, up or down
    max_format_only_gain: Threshold  # of rewards/format, while no reward for boxes gains
    min_parse_rate: Threshold
