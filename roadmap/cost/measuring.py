"""Throughput and peak memory of a network, measured on this machine, each in a fresh process."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.network.building import build_network
from roadmap.network.families import NetworkDesign
from roadmap.network.layers import load_plugins, loaded_plugins
from roadmap.processes import ProcessDiedError, in_clean_process

MIB = 2**20
#: Turns that every network has when latencies are measured.
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """Images per second and peak memory in MiB, of inference and of training steps (forward, backward, SGD update).

    Memory on a GPU is what torch had allocated at most; on the CPU the growth of the process's peak resident set from
    before the network was built.
    """

    inference_images_per_second: float
    inference_memory_mib: float
    training_images_per_second: float
    training_memory_mib: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a batch takes to pass through a network in evaluation: median and 95th percentile of all calls,
    and the standard error of the median, from the medians of the rounds."""

    median: float
    percentile_95: float
    std_error: float
    calls: int


def latencies(
    designs: Mapping[str, NetworkDesign],
    image_size: int,
    batch_size: int,
    device: str,
    seconds: float = 2.0,
    threads: int | None = None,
) -> dict[str, Latency]:
    """The latency of every network, by its name, on random images. They take turns, in `ROUNDS` rounds, so that a
    machine that is busy for a while is busy for all; each has about ``seconds`` in all, after a warm-up in every round.

    Raises `RoadmapError` as `measure`.
    """
    for design in designs.values():
        design.feature_sizes(image_size)
    rounds: dict[str, list[np.ndarray]] = {name: [] for name in designs}
    for _ in range(ROUNDS):
        for name, design in designs.items():
            how = (device, seconds / ROUNDS, threads, False)
            durations, _ = _in_own_process(design, image_size, batch_size, *how)
            rounds[name].append(1e3 * np.array(durations))
    return {name: _latency(measured) for name, measured in rounds.items()}


def _latency(rounds: Sequence[np.ndarray]) -> Latency:
    every = np.concatenate(rounds)
    medians = [float(np.median(durations)) for durations in rounds]
    return Latency(
        float(np.median(every)),
        float(np.percentile(every, 95)),
        float(np.std(medians, ddof=1) / len(medians) ** 0.5),
        len(every),
    )


def measure(
    design: NetworkDesign,
    image_size: int,
    batch_size: int,
    device: str,
    seconds: float = 2.0,
    threads: int | None = None,
) -> Speed:
    """Measure one design on random images. Each of the two measurements lasts about ``seconds``, after a warm-up.

    Raises `RoadmapError` where the strides leave nothing of the image, the machine runs out of memory, or the batch is
    a single image, over which BatchNorm cannot train.
    """
    design.feature_sizes(image_size)
    if batch_size < 2:
        raise RoadmapError("training is measured with at least two images in a batch; one is for --inference")
    # A process's peak memory never falls: every measurement has a process of its own.
    results = []
    for training in (False, True):
        durations, memory = _in_own_process(design, image_size, batch_size, device, seconds, threads, training)
        results += [batch_size / median(durations), memory]
    return Speed(*results)


def training_seconds(
    design: NetworkDesign,
    image_size: int,
    batch_size: int,
    device: str,
    seconds: float = 2.0,
    threads: int | None = None,
) -> float:
    """Seconds of a training step for each image of its batch, measured as `measure` does."""
    design.feature_sizes(image_size)
    durations, _ = _in_own_process(design, image_size, batch_size, device, seconds, threads, True)
    return median(durations) / batch_size


def _in_own_process(
    design: NetworkDesign, image_size: int, batch_size: int, *arguments: Any
) -> tuple[list[float], float]:
    """(seconds of every call, peak memory in MiB), measured by `_measure`."""
    try:
        return in_clean_process(_try, loaded_plugins(), design, image_size, batch_size, *arguments)
    except (ProcessDiedError, MemoryError):
        raise RoadmapError(
            f"a batch of {batch_size} images of {image_size} pixels does not fit into memory: give a smaller "
            "--batch-size"
        ) from None


def _try(*arguments: Any) -> tuple[list[float], float]:
    from roadmap.accelerator import is_memory_error

    try:
        return _measure(*arguments)
    except Exception as error:
        if is_memory_error(error):
            raise MemoryError from None
        raise


def _measure(
    plugins: tuple[str, ...],
    design: NetworkDesign,
    image_size: int,
    batch_size: int,
    device_name: str,
    seconds: float,
    threads: int | None,
    training: bool,
) -> tuple[list[float], float]:
    import torch

    load_plugins(plugins)
    device = torch.device(device_name)
    if threads:
        torch.set_num_threads(threads)
    before = peak_resident()
    network = build_network(design).to(device).to(memory_format=torch.channels_last).train(training)  # type: ignore[call-overload]
    images = torch.randn(batch_size, design.in_channels, image_size, image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, max(design.num_classes, 1), (batch_size,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def infer() -> None:
        with torch.inference_mode():
            network(images)

    def train() -> None:
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    durations = _durations(train if training else infer, device, seconds)
    if device.type == "cuda":
        return durations, torch.cuda.max_memory_allocated(device) / MIB
    return durations, (peak_resident() - before) / MIB


def _durations(step: Callable[[], None], device: Any, seconds: float) -> list[float]:
    """Seconds of repeated calls, after two that warm up."""
    from roadmap.accelerator import synchronize

    durations: list[float] = []
    deadline = math.inf
    for index in range(10_000):
        begin = time.perf_counter()
        step()
        synchronize(device)
        if index < 2:
            deadline = time.perf_counter() + seconds
            continue
        durations.append(time.perf_counter() - begin)
        if len(durations) >= 3 and time.perf_counter() > deadline:
            break
    return durations


def peak_resident() -> int:
    """Peak resident set of this process in bytes; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
