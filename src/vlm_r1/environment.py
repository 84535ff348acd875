"""The environment that every program of this project starts with: quiet, unbuffered, two threads.

A variable that is set already stays as it is.
"""

import os

DEFAULTS = {
    # telemetry off: DVC, Prefect, MLflow, Great Expectations, Hugging Face, and whoever asks
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # a line appears when it is written, also through a pipe
    "PYTHONUNBUFFERED": "1",
    # the same sums in the same order on every machine; a tiny model gains nothing from more
    "OMP_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_defaults() -> None:
    """Complete this process's environment; call it before torch and its like are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
