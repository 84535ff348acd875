"""params.yaml as typed, frozen sections."""

from vlm_r1.config.base import CoordinateSpace
from vlm_r1.config.load import load_params, parse_params, profile_file
from vlm_r1.config.sections import (
    METHODS,
    BaseTraining,
    Dataset,
    DrawnSplit,
    EngineName,
    Format,
    Method,
    Params,
    ReportSettings,
    Role,
    Sizes,
    Task,
    Validation,
)

__all__ = [
    "METHODS",
    "BaseTraining",
    "CoordinateSpace",
    "Dataset",
    "DrawnSplit",
    "EngineName",
    "Format",
    "Method",
    "Params",
    "ReportSettings",
    "Role",
    "Sizes",
    "Task",
    "Validation",
    "load_params",
    "parse_params",
    "profile_file",
]
