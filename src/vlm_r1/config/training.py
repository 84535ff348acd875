"""The sections of params.yaml that only training reads."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vlm_r1.config.base import Count, Positive, Section, Share

# names in rewards.REWARDS, which is not imported here: config stands below every room
REWARDS = (
    *("iou", "iou_hard", "giou", "center", "format", "length", "repetition"),
    *("map", "odlength"),
)


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
    freeze_projector: bool = False  # what carries images from the tower into the language model
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
    rewards: Rewards = Field(default_factory=lambda: {"iou": 1.0, "format": 1.0})
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
