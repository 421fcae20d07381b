"""Frozen networks given by path: what kind of file is it, and a TorchScript one opened."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import torch
from torch import nn

from training.evaluation.error import EvaluationError


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive. Raises EvaluationError where there is no such file."""
    if not path.is_file():
        raise EvaluationError(f"{path} is missing: give the path of the downloaded weights")
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_torchscript(path: Path, device: str) -> nn.Module:
    """The network in a TorchScript archive, in evaluation mode. Raises EvaluationError."""
    try:
        module: nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read as TorchScript: {first_line(error)}") from error
    return module.eval()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes. Raises EvaluationError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error


def first_line(error: Exception) -> str:
    """What an error says, without the trace or the list that torch appends."""
    return str(error).strip().partition("\n")[0]
