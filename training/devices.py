"""The processes and the device that a command runs on."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from model.config import ConfigError


def make_accelerator(device: str = "auto") -> Accelerator:
    """This process among those that torchrun or `accelerate launch` started; "auto", "cpu" or "cuda".

    Several processes speak gloo on the CPU, NCCL on CUDA. Raises ConfigError where there is no such device.
    """
    chosen = resolve_device(device)
    parallel = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    # "no": the run's own configuration decides on precision, not the environment of `accelerate launch`.
    return Accelerator(cpu=chosen == "cpu", mixed_precision="no", kwargs_handlers=[parallel])


def resolve_device(name: str) -> str:
    """ "auto" is cuda where there is one, else cpu. Raises ConfigError."""
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not available:
        raise ConfigError("device cuda was asked for, but torch sees no GPU here")
    return name
