"""What packing brings: a study with ``--jobs auto`` against ``--jobs 1`` and against as many bare processes.

    python benchmarks/packing.py [--rounds 3] [--seeds 4] [--epochs 5] [--images N] [STEP ...]

All sides train the same runs on the embedded data set, in turn. Printed are training images a second of wall time from
the first worker's start to the last run's end (imports, which every side does once, are outside), their ratios, and the
scheduler's own share: processor seconds of the process that hands out the runs, by seconds of wall time.

The bare side is one pinned process a core with one thread each, which share out the same runs among them and do nothing
but gather images, normalise them, forward, backward, step, and a test at the end of each run: no augmentation, no
schedule, no reports, no store.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from training_speed import bare, some_images

from roadmap.data.sources import ImageData, open_data
from roadmap.network.model import RoadmapNet
from roadmap.planning.reading import load_spec
from roadmap.running.display import PlainDisplay
from roadmap.running.prepared import Prepared
from roadmap.running.preparing import prepare
from roadmap.running.runner import run_study
from roadmap.store.store import Store
from roadmap.training.spec import Execution, RunSpec


class Silent(PlainDisplay):
    def begin(self, *arguments) -> None:
        pass

    def finish(self, *arguments, **words) -> None:
        pass


def study_side(study: Prepared, jobs: str) -> tuple[float, float]:
    """(seconds of wall time, processor seconds of this process) of a whole study in a fresh store."""
    study = dataclasses.replace(study, spec=dataclasses.replace(study.spec, jobs=jobs))
    with tempfile.TemporaryDirectory() as folder:
        wall, own = time.perf_counter(), time.process_time()
        run_study(study, Path(folder) / "study", Store(Path(folder) / "store"), False, Silent(), "benchmark")
        return time.perf_counter() - wall, time.process_time() - own


def bare_process(core: int, runs: list[RunSpec], data: ImageData, barrier) -> None:
    os.sched_setaffinity(0, [core])
    torch.set_num_threads(1)
    barrier.wait()
    for run in runs:
        bare(run, data, Execution("cpu", threads=1))
        network = RoadmapNet(run.design).to(memory_format=torch.channels_last).eval()
        with torch.inference_mode():
            for images in torch.from_numpy(data.test.images).split(256):
                network(images.permute(0, 3, 1, 2).float())
    barrier.wait()


def bare_side(study: Prepared) -> float:
    """Seconds of wall time of as many bare processes as there are cores, on the same runs."""
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(cores) + 1)
    processes = [
        context.Process(target=bare_process, args=(core, study.runs[index :: len(cores)], study.data, barrier))
        for index, core in enumerate(cores)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", default=["depthwise_conv", "large_kernel"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, help="of each split, at least a batch [default: all]")
    options = parser.parse_intermixed_args()
    spec = load_spec(only=tuple(options.steps), seeds=options.seeds, epochs=options.epochs)
    study = dataclasses.replace(prepare(spec), data=some_images(open_data("embedded"), options.images))
    images = sum(
        run.recipe.epochs * (len(study.data.train) // run.recipe.batch_size * run.recipe.batch_size)
        for run in study.runs
    )
    rounds = []
    for _ in range(options.rounds):
        packed, one, plain = study_side(study, "auto"), study_side(study, "1"), bare_side(study)
        rounds.append((images / packed[0], images / one[0], images / plain, packed[1] / packed[0]))
        print(
            "packed {:6.0f} img/s   one at a time {:6.0f}   bare processes {:6.0f}   scheduler {:.2%}".format(
                *rounds[-1]
            ),
            flush=True,
        )
    packed, one, plain, share = (statistics.median(side) for side in zip(*rounds, strict=True))
    print(f"{len(study.runs)} runs on {len(os.sched_getaffinity(0))} cores, medians of {options.rounds} rounds:")
    print(f"  --jobs auto / --jobs 1            {packed / one:.2f}")
    print(f"  --jobs auto / bare processes      {packed / plain:.2f}")
    print(f"  the scheduler's own share         {share:.2%} of wall time")


if __name__ == "__main__":
    main()
