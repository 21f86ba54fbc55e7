"""Training throughput of a run of ours against a bare PyTorch loop: same network, images, batch, optimizer, threads.

    python benchmarks/training_speed.py [--threads 2] [--rounds 3] [--epochs 2] [STEP ...]

Both sides run in turn in one process. The bare loop gathers uint8 images, normalises them, and does forward, backward
and step; it neither augments, reports, saves nor schedules. Printed: images per second of each (median of the rounds)
and their ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch

from roadmap.data.sources import ImageData, open_data
from roadmap.network.model import RoadmapNet
from roadmap.study.spec import StudySpec, plan
from roadmap.training.fit import fit_run
from roadmap.training.spec import Execution, RunSpec


def ours(run: RunSpec, data: ImageData, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return fit_run(run, data, Path(folder), Execution(device="cpu", threads=threads)).metrics["images_per_second"]


def bare(run: RunSpec, data: ImageData, threads: int) -> float:
    torch.set_num_threads(threads)
    torch.manual_seed(run.seed)
    network = RoadmapNet(run.design).to(memory_format=torch.channels_last).train()
    recipe = run.recipe
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), recipe.peak_lr, recipe.momentum, fused=True)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), recipe.peak_lr, fused=True)
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    mean, std = torch.tensor(data.mean) * 255, torch.tensor(data.std) * 255
    size = recipe.batch_size
    seen, started = 0, time.perf_counter()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images))
        for index in order[: len(order) // size * size].split(size):
            batch = ((images[index].float() - mean) / std).permute(0, 3, 1, 2)
            loss = torch.nn.functional.cross_entropy(network(batch), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(index)
    return seen / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps", nargs="*", default=["resnet50", "depthwise_conv", "large_kernel", "separate_downsample"]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    data = open_data("embedded")
    for run in plan(StudySpec(only=tuple(options.steps), seeds=1), data):
        run = dataclasses.replace(run, recipe=run.recipe.with_training(epochs=options.epochs))
        pairs = [(ours(run, data, options.threads), bare(run, data, options.threads)) for _ in range(options.rounds)]
        left, right = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(
            f"{run.step:22} roadmap {left:7.0f} img/s   bare loop {right:7.0f} img/s   ratio {left / right:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
