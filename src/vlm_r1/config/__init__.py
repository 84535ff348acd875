"""params.yaml as typed, frozen sections: every knob and its bounds, checked at the door."""

from vlm_r1.config.load import load_params, parse_params, profile_file
from vlm_r1.config.sections import (
    METHODS,
    BaseTraining,
    Dataset,
    DrawnSplit,
    Format,
    Frame,
    Method,
    Params,
    Role,
    Task,
    Validation,
)

__all__ = [
    "METHODS",
    "BaseTraining",
    "Dataset",
    "DrawnSplit",
    "Format",
    "Frame",
    "Method",
    "Params",
    "Role",
    "Task",
    "Validation",
    "load_params",
    "parse_params",
    "profile_file",
]
