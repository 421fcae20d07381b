"""The device that figures were measured on, in words and numbers."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

from benchmarks import machine

QUERY = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)
"""Fields of nvidia-smi --query-gpu."""


def environment(device: torch.device) -> dict[str, Any]:
    """Processor, torch and, on a GPU, its name, memory, driver and clocks at this moment."""
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpu_processors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "nvidia_smi": _nvidia_smi(),
    }


def _nvidia_smi() -> dict[str, str]:
    """Driver, clocks, power and temperature; empty where the program is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(QUERY, values, strict=False))
