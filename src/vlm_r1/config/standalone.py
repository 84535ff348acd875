"""Settings of commands that work without a params file; a test holds them equal to params.yaml."""

from vlm_r1.config.sections import ReportSettings, Validation
from vlm_r1.config.training import Lora

VALIDATION = Validation(  # `vlm-r1 validate`
    max_phrase_characters=300,
    min_box_side_px=1.0,
    max_degenerate_share=0.0,
    max_repeated_share=0.0,
    near_duplicate_bits=20,
    on_failure="fail",
    on_leak="fail",
)
REPORT = ReportSettings(  # the report of prediction logs
    confidence=0.95, gallery=12, prompt_matrix=False
)
# what `vlm-r1 plan` proposes: VLM-R1's values (run_grpo_rec_lora.sh), as in profiles/lora-1gpu.yaml
LORA = Lora(r=64, alpha=128, dropout=0.05, targets=None)
