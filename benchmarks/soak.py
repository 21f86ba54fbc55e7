"""Kills a study at random moments, again and again, and sees whether it ends equal to one that was never disturbed.

    python benchmarks/soak.py N [--seed S] [--engine local|ray] [--jobs 2] [--epochs 20] [--every 8] [--folder FOLDER]

A small study on generated images is trained once in peace. Then the same study starts in another store, and at N random
moments, most of them while runs train, something of it is killed with SIGKILL: the runner, a worker, or the server
that workers are forked from (with Ray: the runner, a worker, or a node of a cluster of three on this machine, and a new
node comes). Some runs are asked to stop and save, and some of the time two runners are at the same study. When the
study ends before N kills, it begins anew in another store. Printed: what was killed, how often it was started, and how
many runs ended with the same bytes of weights; exit code 1 where one did not, was lost, or was finished twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

#: Every kind of randomness, some ten seconds a run; checkpoints come every ten seconds and when asked to stop.
RECIPE = """
batch_size: 16
lr: 0.004
warmup_epochs: 1
label_smoothing: 0.1
mixup: 0.8
cutmix: 1.0
crop: shift
flip: true
random_erasing: 0.25
stochastic_depth: 0.2
clip_gradient: 1.0
"""
STUDY = [
    "--only",
    "patchify_stem,layer_norm,gelu",
    "--seeds",
    "2",
    "--width",
    "4",
    "--image-size",
    "16",
    "--device",
    "cpu",
    "--threads",
    "1",
]


def make_images(folder: Path, train: int, test: int) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test)):
        for name, colour in (("blue", (40, 60, 200)), ("green", (40, 180, 60)), ("red", (200, 50, 40))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = (np.array(colour) + generator.normal(0, 90, (16, 16, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number:04}.png")


class Soak:
    """One study, disturbed."""

    def __init__(self, folder: Path, seed: int, engine: str, jobs: int, every: float) -> None:
        self.folder, self.random, self.engine, self.jobs, self.every = folder, random.Random(seed), engine, jobs, every
        self.kills: Counter[str] = Counter()
        self.starts = self.doubles = self.stops = self.rounds = self.equal = self.compared = 0
        self.faults: list[str] = []
        self.runners: list[subprocess.Popen] = []
        self.cluster = Cluster() if engine == "ray" else None
        self._begin()

    def _begin(self) -> None:
        self.rounds += 1
        self.store = self.folder / f"store-{self.rounds}"
        self.finished: dict[str, tuple[int, bytes]] = {}

    def start(self, store: Path, engine: str) -> subprocess.Popen:
        """Start the study, its words into a log."""
        words = ["run", *STUDY, "--recipe", self.folder / "recipe.yaml", "--data", "folder", "--engine", engine]
        words += ["--data-dir", self.folder / "images", "--store", store, "--out", f"{store}-table", "--retries", 1000]
        words += ["--jobs", self.jobs] if engine == "local" else ["--address", self.cluster.address]
        self.starts += 1
        with (self.folder / "runners.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "roadmap", *map(str, words)], stdout=log, stderr=log, start_new_session=True
            )

    def go(self, count: int) -> bool:
        """Train the reference, kill so many times, and compare. Whether all is as it should be."""
        if self.start(self.folder / "reference", "local").wait():
            sys.exit(f"the undisturbed study failed: {(self.folder / 'runners.log').read_text()}")
        self.starts = 0
        while self.kills.total() < count:
            self._keep_running()
            self._watch(self.random.expovariate(1 / self.every))
            if not self._training() and self.random.random() < 0.9:
                continue  # most of the time something is to be at work
            if self.random.random() < 0.15:
                self._ask_to_stop()
            self._kill()
        while self.runners or len(self.finished) < len(self._reference()):
            self._watch(1)  # what was just killed is gone then
            if not self.runners and len(self.finished) < len(self._reference()):
                self.runners.append(self.start(self.store, self.engine))
        self._compare()
        for fault in self.faults:
            print(f"FAULT: {fault}")
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kills.items()))
        print(
            f"{self.kills.total()} kills ({kinds}), {self.stops} runs asked to stop, {self.starts} starts "
            f"({self.doubles} of a second runner), {self.rounds} studies: "
            f"{self.equal} of {self.compared} weight files equal, {len(self.faults)} faults"
        )
        return self.equal == self.compared and not self.faults

    def _keep_running(self) -> None:
        """Start a runner where there is none; another study when this one has ended; sometimes a second runner."""
        self._watch(0)
        if not self.runners:
            if (self.store / "runs").is_dir() and len(self.finished) == len(self._reference()):
                self._compare()
                self._begin()
            self.runners.append(self.start(self.store, self.engine))
        elif len(self.runners) == 1 and self.random.random() < 0.05:
            self.doubles += 1
            self.runners.append(self.start(self.store, self.engine))

    def _watch(self, seconds: float) -> None:
        """Let time pass; see that nothing finished ever changes, and which runners have ended."""
        end = time.monotonic() + seconds
        while True:
            for path in self.store.glob("runs/*/run.json"):
                with contextlib.suppress(FileNotFoundError):
                    now = (path.stat().st_ino, path.read_bytes())
                    if self.finished.setdefault(path.parent.name, now) != now:
                        self.faults.append(f"{path} was finished twice")
                        self.finished[path.parent.name] = now
            for name in self.finished:
                if not (self.store / "runs" / name).is_dir():
                    self.faults.append(f"{name} was finished, and is lost")
            for runner in [runner for runner in self.runners if runner.poll() is not None]:
                self.runners.remove(runner)
                if runner.returncode not in (0, -signal.SIGKILL):
                    self.faults.append(f"a runner ended with exit code {runner.returncode}")
            if time.monotonic() >= end:
                return
            time.sleep(0.05)

    def _training(self) -> list[int]:
        """Process numbers of the workers that train, of those whose progress is fresh."""
        found = []
        for path in self.store.glob("partial/*/progress.json"):
            with contextlib.suppress(OSError, ValueError):
                progress = json.loads(path.read_text())
                os.kill(progress["pid"], 0)
                if progress["epoch"] + progress["fraction"] > 0:
                    found.append(progress["pid"])
        return found

    def _ask_to_stop(self) -> None:
        for path in self.store.glob("partial/*/progress.json"):
            with contextlib.suppress(OSError):
                (path.parent / "stop").touch()
                self.stops += 1
                self._watch(self.random.uniform(0, 2))
                return

    def _kill(self) -> None:
        kind = self.random.choice(["runner", "worker", "worker", "node" if self.cluster else "fork server"])
        if kind == "node":
            self.cluster.replace_a_node(self.random)
            self.kills[kind] += 1
            return
        found = [runner.pid for runner in self.runners] if kind == "runner" else self._training()
        if kind == "fork server":
            found = [child for runner in self.runners for child in children(runner.pid) if is_fork_server(child)]
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(found), signal.SIGKILL)
                self.kills[kind] += 1
            if kind == "runner":
                self._watch(self.random.choice([0.0, 0.5, 3.0]))

    def _reference(self) -> list[Path]:
        return sorted((self.folder / "reference" / "runs").iterdir())

    def _compare(self) -> None:
        for run in self._reference():
            self.compared += 1
            ours = self.store / "runs" / run.name / "weights.safetensors"
            if ours.is_file() and ours.read_bytes() == (run / "weights.safetensors").read_bytes():
                self.equal += 1
            else:
                self.faults.append(f"{ours} is not the reference's")
        print(f"studies: {self.rounds}, kills: {self.kills.total()}, equal: {self.equal}/{self.compared}", flush=True)


class Cluster:
    """Three Ray nodes of one CPU each on this machine, bound to 127.0.0.1; the first, the head, stays."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self._nodes = [self._add(), self._add()]

    def _add(self):
        return self._cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")

    def replace_a_node(self, generator: random.Random) -> None:
        """Kill one of the nodes that are not the head, and add another."""
        node = self._nodes.pop(generator.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def end(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def children(pid: int) -> list[int]:
    """Process numbers of the children of a process."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_fork_server(pid: int) -> bool:
    """Whether this process is multiprocessing's fork server."""
    with contextlib.suppress(OSError):
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, metavar="N", help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, with --engine local")
    parser.add_argument("--epochs", type=int, default=20, help="of every run")
    parser.add_argument("--every", type=float, default=8.0, metavar="SECONDS", help="between kills, on average")
    parser.add_argument("--images", type=int, default=600, help="training images of each of three classes")
    parser.add_argument("--folder", type=Path, help="keep everything here [default: a temporary folder]")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        make_images(folder / "images", arguments.images, 20)
        (folder / "recipe.yaml").write_text(f"{RECIPE}epochs: {arguments.epochs}\n")
        soak = Soak(folder, arguments.seed, arguments.engine, arguments.jobs, arguments.every)
        try:
            well = soak.go(arguments.count)
        finally:
            for runner in soak.runners:
                runner.kill()
            if soak.cluster:
                soak.cluster.end()
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
