"""Training throughput of our runs: small images against a bare PyTorch loop, 224 px against timm's own training.

    python benchmarks/training_speed.py small [--threads 2] [--rounds 3] [--device cpu] [--precision 32] [STEP ...]
    python benchmarks/training_speed.py timm  [--batch-size 8] [--images 48] [--compile] ...

Both sides run in turn in one process, with the same images, batch, precision, optimizer and threads; printed are the
images per second of each (medians of the rounds) and their ratio. Our side is a whole run: it also augments, counts,
reports and schedules.

small   the embedded set at its usual size; the bare loop gathers uint8 images, normalises them, and does forward,
        backward and step, with nothing else.
timm    the ladder's ends, as resnet50 and convnext_tiny: timm's model and the training step of timm's script (autocast,
        loss, backward, step of timm's optimizer), in torch's usual layout, and again in channels_last; without
        augmentation, which timm leaves to loader processes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from timm.optim import create_optimizer_v2

from roadmap.data.sources import ImageData, Split, open_data
from roadmap.ladders.rungs import ladder
from roadmap.network.model import RoadmapNet
from roadmap.planning.runs import plan
from roadmap.planning.spec import StudySpec
from roadmap.training.fit import fit_run
from roadmap.training.spec import Execution, RunSpec

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def ours(run: RunSpec, data: ImageData, execution: Execution) -> float:
    with tempfile.TemporaryDirectory() as folder:
        history = fit_run(run, data, Path(folder), execution).history[1:]  # the first epoch warms up
    return sum(epoch["images"] for epoch in history) / sum(epoch["seconds"] for epoch in history)


def loop(
    run: RunSpec, data: ImageData, execution: Execution, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> float:
    """Images per second of forward, backward and step."""
    device = torch.device("cuda" if execution.device == "auto" and torch.cuda.is_available() else execution.device)
    images, labels = (torch.from_numpy(array).to(device) for array in (data.train.images, data.train.labels))
    mean, std = (torch.tensor(values, device=device) * 255 for values in (data.mean, data.std))
    size = run.recipe.batch_size
    scaler = torch.amp.GradScaler(device.type) if run.precision == "16-mixed" else None
    kind = AUTOCAST.get(run.precision)
    cast: Callable[[], contextlib.AbstractContextManager] = (
        contextlib.nullcontext if kind is None else lambda: torch.autocast(device.type, kind)
    )
    seen, started = 0, 0.0
    for epoch in range(run.recipe.epochs):
        if epoch == 1:
            seen, started = 0, _now(device)
        order = torch.randperm(len(images), device=device)
        for index in order[: len(order) // size * size].split(size):
            batch = ((images[index].float() - mean) / std).permute(0, 3, 1, 2)
            with cast():
                loss = torch.nn.functional.cross_entropy(network(batch), labels[index])
            optimizer.zero_grad()
            if scaler:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
            seen += len(index)
    return seen / (_now(device) - started)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def bare(run: RunSpec, data: ImageData, execution: Execution) -> float:
    network = _placed(RoadmapNet(run.design), execution, torch.channels_last)
    recipe = run.recipe
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            network.parameters(), recipe.peak_lr, recipe.momentum, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(network.parameters(), recipe.peak_lr, fused=True)
    return loop(run, data, execution, network, optimizer)


def of_timm(layout: torch.memory_format) -> Callable[[RunSpec, ImageData, Execution], float]:
    def side(run: RunSpec, data: ImageData, execution: Execution) -> float:
        name = {"resnet50": "resnet50", "separate_downsample": "convnext_tiny"}[run.step]
        network = _placed(timm.create_model(name, num_classes=run.design.num_classes), execution, layout)
        kind = "momentum" if run.recipe.optimizer == "sgd" else run.recipe.optimizer
        optimizer = create_optimizer_v2(network, kind, run.recipe.peak_lr, run.recipe.weight_decay)
        return loop(run, data, execution, network, optimizer)

    return side


def _placed(network: torch.nn.Module, execution: Execution, layout: torch.memory_format) -> torch.nn.Module:
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = "cuda" if execution.device == "auto" and torch.cuda.is_available() else execution.device
    network = network.to(device, memory_format=layout).train()
    if execution.compile:
        network.compile()
    return network


def large_images(count: int, size: int) -> ImageData:
    """Random images: only the time matters here."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    split = Split(generator.integers(0, 1000, count).astype(np.int64), images)
    test = Split(split.labels[:1], images[:1])
    names = tuple(str(number) for number in range(1000))
    return ImageData("random", size, names, split, test, True, (0.5,) * 3, (0.25,) * 3, "random")


def some_images(data: ImageData, count: int | None) -> ImageData:
    """The data set with the first images of each of its splits alone."""
    train, test = (Split(split.labels[:count], split.images[:count]) for split in (data.train, data.test))
    return dataclasses.replace(data, train=train, test=test)


def compare(run: RunSpec, data: ImageData, execution: Execution, sides: dict[str, Callable], rounds: int) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in ("roadmap", *sides)}
    for _ in range(rounds):
        for name, side in {"roadmap": ours, **sides}.items():
            torch.manual_seed(0)
            speeds[name].append(side(run, data, execution))
    median = {name: statistics.median(values) for name, values in speeds.items()}
    told = "   ".join(
        f"{name} {median[name]:.1f} img/s, ratio {median['roadmap'] / median[name]:.3f}" for name in sides
    )
    print(f"{run.step:20} roadmap {median['roadmap']:.1f} img/s   {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["small", "timm"])
    parser.add_argument("steps", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="the first is not counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32", choices=["32", *AUTOCAST])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", type=int, help="[default: the recipe's, and 8 of 224 px images]")
    parser.add_argument("--width", type=int, help="of small networks [default: 8]; CIFAR's are 16, with batches of 128")
    parser.add_argument("--images", type=int, help="of each split [default: all of the embedded set, 32 of 224 px]")
    options = parser.parse_intermixed_args()
    execution = Execution(options.device, compile=options.compile, threads=options.threads)
    if options.what == "small":
        data, sides = some_images(open_data("embedded"), options.images), {"bare loop": bare}
        steps = options.steps or ["resnet50", "depthwise_conv", "large_kernel", "separate_downsample"]
        spec = StudySpec(
            only=tuple(steps),
            seeds=(0,),
            precision=options.precision,
            width=options.width,
            batch_size=options.batch_size,
        )
        runs = plan(spec, data)
    else:
        data = large_images(options.images or 32, 224)
        sides = {"timm": of_timm(torch.contiguous_format), "timm channels_last": of_timm(torch.channels_last)}
        spec = StudySpec(
            only=tuple(options.steps or ["resnet50", "separate_downsample"]),
            seeds=(0,),
            recipe="quick",
            width=64,
            depth=1.0,
            stem_stride=4,
            batch_size=options.batch_size or 8,
            precision=options.precision,
        )
        runs = [
            dataclasses.replace(
                run, design=run.design.replace(layer_scale=1e-6) if run.step == ladder().names[-1] else run.design
            )
            for run in plan(spec, data)
        ]
    for run in runs:
        settings = {} if options.what == "small" else {"crop": "none"}
        run = dataclasses.replace(run, recipe=run.recipe.with_training(options.epochs, settings=settings))
        compare(run, data, execution, sides, options.rounds)


if __name__ == "__main__":
    main()
