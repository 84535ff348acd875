"""Environment variables that every program of this project starts with.

Variables that are already set are kept.
"""

import os

DEFAULTS = {
    # telemetry off: DVC, Prefect, MLflow, Great Expectations, Hugging Face, and others
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # output appears line by line, also through a pipe
    "PYTHONUNBUFFERED": "1",
    # the number of threads sets the order of sums; a tiny model gains nothing from more than two
    "OMP_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_defaults() -> None:
    """Set what is missing in this process's environment; call it before importing torch."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
