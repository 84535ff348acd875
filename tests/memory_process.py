"""Trains two steps and prints torch's peak memory in bytes, for each case (ROOT PARAMS METHOD)...

It counts torch's allocations on the CPU as its profiler reports them, weights included. The
process's resident size would include Python, caches and fragmentation.
"""

import gc
import json
import sys
from pathlib import Path

import torch

from tests.training_jobs import job_of, train
from vlm_r1.config import load_params


def peak_bytes(root: Path, params_file: Path, method: str) -> int:
    """The largest sum of allocations while training."""
    job = job_of(method, load_params(params_file), root, root / f"models/{method}")
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profiler:
        train(job)
    gc.collect()  # the trainer has reference cycles, and must not occupy memory in the next case
    profiler.export_chrome_trace(str(root / "trace.json"))
    events = json.loads((root / "trace.json").read_text())["traceEvents"]
    return _peak(sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]))


def _peak(events: list[dict]) -> int:
    """Peak of the allocations that were made while the profiler ran."""
    held: dict[int, int] = {}
    total = peak = 0
    for event in events:
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            held[address] = size
            total += size
        else:
            total -= held.pop(address, 0)
        peak = max(peak, total)
    return peak


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = [sys.argv[at : at + 3] for at in range(1, len(sys.argv), 3)]
    print(json.dumps([peak_bytes(Path(root), Path(file), how) for root, file, how in cases]))
