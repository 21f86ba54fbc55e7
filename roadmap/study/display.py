"""What a person sees while a study runs: a live table on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from statistics import mean, stdev
from typing import Any, Protocol, TextIO

from roadmap.study.forecast import Forecast
from roadmap.study.planning import steps_of
from roadmap.training.spec import RunSpec


class Display(Protocol):
    """Hears what happens to the runs of a study."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *error: object) -> None: ...
    def begin(
        self, runs: list[RunSpec], petaflops: dict[str, float], slots: int, measured: dict[str, float]
    ) -> None: ...
    def start(self, run: RunSpec) -> None: ...
    def progress(self, run: RunSpec, progress: dict[str, Any] | None) -> None: ...
    def refresh(self, waiting: list[RunSpec], elsewhere: int) -> None: ...
    def pause(self, run: RunSpec, why: str) -> None: ...
    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None: ...
    def say(self, text: str) -> None: ...


def make_display() -> Display:
    """The live display on a terminal, else plain lines."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()


def outcome(result: dict[str, Any]) -> str:
    """A result in a few words, such as ``81.3 %``."""
    return f"{result['top1']:.1f} %" if result["status"] == "done" else f"failed ({result['reason']})"


def clock(seconds: float) -> str:
    """A duration such as ``1:02:03``, ``2:05`` or ``8 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02}:{whole % 60:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def end_time(seconds: float) -> str:
    """When it is over in so many seconds, such as ``14:05`` or ``Tue 24 Nov 14:05``."""
    end = datetime.now() + timedelta(seconds=seconds)
    return end.strftime("%H:%M" if end.date() == datetime.now().date() else "%a %d %b %H:%M")


class PlainDisplay:
    """One line a finished run, on standard output or another ``stream``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._finished: set[str] = set()

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float], slots: int, measured: dict[str, float]) -> None:
        self._total = len(runs)
        packed = f", {slots} side by side" if slots > 1 else ""
        print(
            f"{self._total} runs, {sum(petaflops.values()):.3g} PFLOPs of training{packed}",
            file=self._stream,
            flush=True,
        )

    def start(self, run: RunSpec) -> None:
        pass

    def progress(self, run: RunSpec, progress: dict[str, Any] | None) -> None:
        pass

    def refresh(self, waiting: list[RunSpec], elsewhere: int) -> None:
        pass

    def pause(self, run: RunSpec, why: str) -> None:
        print(f"{run.step} seed {run.seed}: {why}", file=self._stream, flush=True)

    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None:
        self._finished.add(run.signature)
        seconds = f", {result['wall_seconds']:.1f} s" if result["wall_seconds"] else ""
        note = "" if trained else " (was there already)"
        line = f"[{len(self._finished)}/{self._total}] {run.step} seed {run.seed}: {outcome(result)}{seconds}{note}"
        print(line, file=self._stream, flush=True)

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveDisplay:
    """A table with a row a rung, one with a row a running run, and where the study stands."""

    def __init__(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        self._group, self._table, self._bar = Group, Table, ProgressBar
        self._runs: list[RunSpec] = []
        self._results: dict[str, dict[str, Any]] = {}
        self._running: dict[str, tuple[RunSpec, dict[str, Any]]] = {}
        self._waiting: list[RunSpec] = []
        self._elsewhere = 0
        self._slots = 1
        self._begun = time.monotonic()
        self._live = Live(
            console=Console(), refresh_per_second=4, get_renderable=self._render, vertical_overflow="visible"
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float], slots: int, measured: dict[str, float]) -> None:
        self._runs, self._waiting, self._slots = runs, list(runs), slots
        self._forecast = Forecast(petaflops, measured)

    def start(self, run: RunSpec) -> None:
        self._running[run.signature] = (run, {})
        self._waiting = [other for other in self._waiting if other.signature != run.signature]

    def progress(self, run: RunSpec, progress: dict[str, Any] | None) -> None:
        if progress and run.signature in self._running:
            self._running[run.signature] = (run, progress)

    def refresh(self, waiting: list[RunSpec], elsewhere: int) -> None:
        self._waiting, self._elsewhere = waiting, elsewhere

    def pause(self, run: RunSpec, why: str) -> None:
        self._running.pop(run.signature, None)
        self.say(f"{run.step} seed {run.seed}: {why}")

    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None:
        self._running.pop(run.signature, None)
        self._waiting = [other for other in self._waiting if other.signature != run.signature]
        self._results[run.signature] = result
        if result["status"] != "done":
            self.say(f"{run.step} seed {run.seed}: {outcome(result)}")
        elif trained:
            self._forecast.learn(run, result["wall_seconds"])

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def _render(self):
        return self._group(self._rungs(), *([self._at_work()] if self._running else []), self._standing())

    def _rungs(self):
        table = self._table(box=None, pad_edge=False)
        for name in ("step", "done", "top-1 %", "std", "s a run"):
            table.add_column(name, justify="left" if name == "step" else "right")
        at_work = {run.step for run, _ in self._running.values()}
        for step in steps_of(self._runs):
            runs = [run for run in self._runs if run.step == step]
            results = [self._results[run.signature] for run in runs if run.signature in self._results]
            done = [result for result in results if result["status"] == "done"]
            top1 = [result["top1"] for result in done]
            cells = [
                f"{len(results)}/{len(runs)}",
                f"{mean(top1):.1f}" if top1 else "failed" if results else "",
                f"{stdev(top1):.1f}" if len(top1) > 1 else "",
                f"{mean(result['wall_seconds'] for result in done):.1f}" if done else "",
            ]
            style = "bold" if step in at_work else "" if len(results) == len(runs) else "dim"
            table.add_row(step, *cells, style=style)
        return table

    def _at_work(self):
        table = self._table(box=None, pad_edge=False)
        for name in ("running", "", "epoch", "train top-1 %", "test", "img/s", "left"):
            table.add_column(name, justify="left" if name in ("running", "") else "right", no_wrap=True)
        for run, progress in self._running.values():
            epochs = run.recipe.epochs
            trained = progress.get("epoch", 0) + progress.get("fraction", 0.0)
            left = self._left(run, progress)
            cells = [
                f"{progress.get('epoch', 0)}/{epochs}",
                f"{progress['train_top1']:.1f}" if "train_top1" in progress else "",
                f"{progress['test_top1']:.1f}" if progress.get("test_top1") is not None else "",
                f"{progress['images_per_second']:.0f}" if "images_per_second" in progress else "",
                clock(left) if left is not None else "",
            ]
            bar = self._bar(total=epochs, completed=trained, width=16)
            table.add_row(f"{run.step}, seed {run.seed}", bar, *cells)
        return table

    def _left(self, run: RunSpec, progress: dict[str, Any]) -> float | None:
        if progress.get("seconds_left") is not None:
            return max(0.0, progress["seconds_left"] - (time.time() - progress["updated"]))
        return self._forecast.seconds(run)

    def _standing(self) -> str:
        failed = sum(result["status"] != "done" for result in self._results.values())
        counts = {
            "done": len(self._results) - failed, "running": len(self._running), "elsewhere": self._elsewhere,
            "waiting": len(self._waiting), "failed": failed,
        }  # fmt: skip
        shown = [f"{number} {name}" for name, number in counts.items() if number or name not in ("elsewhere", "failed")]
        line = f"{', '.join(shown)} of {len(self._runs)} runs; {clock(time.monotonic() - self._begun)} so far"
        if self._running:
            running = [self._left(*run) for run in self._running.values()]
            left = self._forecast.left(self._waiting, running, self._slots)
            if left:
                line += f", {clock(left)} left: ends at {end_time(left)}"
        return line
