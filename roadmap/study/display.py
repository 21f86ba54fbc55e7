"""What a person sees while a study runs: a live table and bar on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
import time
from statistics import mean, stdev
from typing import Any, Protocol

from roadmap.study.spec import steps_of
from roadmap.training.spec import RunSpec


class Display(Protocol):
    """Hears what happens to the runs of a study."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *error: object) -> None: ...
    def begin(self, runs: list[RunSpec], petaflops: dict[str, float]) -> None: ...
    def start(self, run: RunSpec) -> None: ...
    def progress(self, run: RunSpec, epochs: int, fraction: float, loss: float) -> None: ...
    def finish(self, run: RunSpec, result: dict[str, Any]) -> None: ...


def make_display() -> Display:
    """The live display on a terminal, else plain lines."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()


def outcome(result: dict[str, Any]) -> str:
    """A result in a few words, such as ``81.3 %``."""
    return f"{result['top1']:.1f} %" if result["status"] == "done" else result["status"]


class PlainDisplay:
    """One line a finished run."""

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float]) -> None:
        self._total, self._done, self._started = len(runs), 0, set[str]()
        print(f"{self._total} runs, {sum(petaflops.values()):.3g} PFLOPs of training", flush=True)

    def start(self, run: RunSpec) -> None:
        self._started.add(run.signature)

    def progress(self, run: RunSpec, epochs: int, fraction: float, loss: float) -> None:
        pass

    def finish(self, run: RunSpec, result: dict[str, Any]) -> None:
        self._done += 1
        note = "" if run.signature in self._started else " (was there already)"
        seconds = f"{result['seconds']:.1f} s"
        reason = f" ({result['reason']})" if result["reason"] else ""
        print(
            f"[{self._done}/{self._total}] {run.step} seed {run.seed}: {outcome(result)}{reason}, {seconds}{note}",
            flush=True,
        )


class LiveDisplay:
    """A table with a row a rung, a bar for the running run and one for the study."""

    def __init__(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._runs: list[RunSpec] = []
        self._results: dict[str, dict[str, Any]] = {}
        self._running: RunSpec | None = None
        self._group = Group
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._live = Live(
            console=Console(), refresh_per_second=4, get_renderable=self._render, vertical_overflow="visible"
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float]) -> None:
        self._runs, self._petaflops = runs, petaflops
        self._study = self._bars.add_task("study", total=sum(petaflops.values()), note=f"0/{len(runs)} runs")
        self._run = self._bars.add_task("", total=1.0, note="", visible=False)

    def start(self, run: RunSpec) -> None:
        self._running, self._begun = run, time.monotonic()
        self._bars.reset(self._run, description=f"{run.step}, seed {run.seed}", note="", visible=True)

    def progress(self, run: RunSpec, epochs: int, fraction: float, loss: float) -> None:
        done = (epochs + fraction) / run.recipe.epochs
        self._bars.update(self._run, completed=done, note=f"epoch {epochs}/{run.recipe.epochs}, loss {loss:.3f}")
        self._bars.update(self._study, completed=self._finished() + done * self._petaflops[run.signature])

    def finish(self, run: RunSpec, result: dict[str, Any]) -> None:
        self._results[run.signature] = result
        if self._running is None:  # it was there already: that took no time, and says nothing of the time left
            self._bars.reset(self._study)
        self._running = None
        self._bars.update(self._run, visible=False)
        self._bars.update(self._study, completed=self._finished(), note=f"{len(self._results)}/{len(self._runs)} runs")

    def _finished(self) -> float:
        return sum(self._petaflops[signature] for signature in self._results)

    def _render(self):
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name in ("step", "seeds", "top-1 %", "std", "s a run"):
            table.add_column(name, justify="left" if name == "step" else "right")
        for step in steps_of(self._runs):
            runs = [run for run in self._runs if run.step == step]
            results = [self._results[run.signature] for run in runs if run.signature in self._results]
            top1 = [result["top1"] for result in results if result["status"] == "done"]
            cells = [
                f"{len(results)}/{len(runs)}",
                f"{mean(top1):.1f}" if top1 else "diverged" if results else "",
                f"{stdev(top1):.1f}" if len(top1) > 1 else "",
                f"{mean(result['seconds'] for result in results):.1f}" if results else "",
            ]
            running = self._running is not None and self._running.step == step
            table.add_row(step, *cells, style="bold" if running else "" if len(results) == len(runs) else "dim")
        return self._group(table, self._bars)
