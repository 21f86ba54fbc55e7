"""Which device there is, and what made a result: versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import roadmap
from roadmap.accelerator import is_memory_error as is_memory_error
from roadmap.checks import RoadmapError
from roadmap.data.images import cores
from roadmap.training.spec import Execution

#: The first compute capability of NVIDIA that calculates with bfloat16.
BF16_CAPABILITY = (8, 0)


def resolve_device(execution: Execution, precision: str = "32") -> torch.device:
    """The device to run on. Raises `RoadmapError` where it is not there, or cannot work at this precision."""
    wanted = execution.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"this machine has {count}" if count else "torch sees no CUDA device on this machine"
            raise RoadmapError(f"device '{wanted}' is not there: {there}; use --device cpu, or another")
        device = torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RoadmapError(
            "device 'mps' is not there: this machine has no Apple GPU that torch can use; use --device cpu, or another"
        )
    if device.type == "mps" and execution.processes > 1:
        raise RoadmapError("an Apple GPU trains a run alone: leave --devices out, or use --device cpu")
    if precision == "16-mixed" and device.type == "cpu":
        raise RoadmapError("precision 16-mixed needs a GPU; on the CPU use 32 or bf16-mixed")
    if precision == "bf16-mixed" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < BF16_CAPABILITY:  # torch would emulate it, slower than 32 bits
            raise RoadmapError(
                f"precision bf16-mixed needs a GPU of compute capability {BF16_CAPABILITY[0]}.{BF16_CAPABILITY[1]} or "
                f"above, but {device} ({device_name(device)}) has {capability[0]}.{capability[1]}: use 16-mixed or 32"
            )
    return device


def loader_workers(execution: Execution) -> int:
    """Processes that load streamed images."""
    return min(4, cores()) if execution.workers is None else execution.workers


def device_name(device: torch.device) -> str:
    """The name of the processor or graphics card, such as ``NVIDIA H100``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def environment(device: torch.device, execution: Execution) -> dict[str, Any]:
    """Versions and hardware, one flat mapping of plain values."""
    return {
        "device": device.type,
        "device_name": device_name(device),
        "devices": execution.processes,
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "pytorch_lightning": version("pytorch-lightning"),
        "roadmap": roadmap.__version__,
        "platform": platform.platform(),
    }
