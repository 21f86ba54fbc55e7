"""What a person sees while a study runs: a live table on a terminal, a bar in a notebook, plain lines in a file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any, Protocol, TextIO

from roadmap.phases import Listener, StatusLine
from roadmap.planning.runs import steps_of
from roadmap.running.progress import StudyProgress, clock
from roadmap.tasks import task_named
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


def display_in_python() -> PlainDisplay:
    """A bar in a notebook, else plain lines."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return NotebookDisplay() if hasattr(shell, "kernel") else PlainDisplay()


def outcome(run: RunSpec, result: dict[str, Any]) -> str:
    """The result of a run in a few words, such as ``81.3 %``."""
    score = result.get(task_named(run.task).metric.key)
    return f"{score:.1f} %" if result["status"] == "done" else f"failed ({result['reason']})"


class PlainDisplay(StudyProgress):
    """One line a finished run, on standard output or another ``stream``; phases on standard error."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._told: set[str] = set()
        self.doing: Listener = StatusLine()

    def __enter__(self) -> PlainDisplay:
        return self

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float], slots: int, measured: dict[str, float]) -> None:
        super().begin(runs, petaflops, slots, measured)
        packed = f", {slots} side by side" if slots > 1 else ""
        self.say(f"{len(runs)} runs, {sum(petaflops.values()):.3g} PFLOPs of training{packed}")

    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None:
        super().finish(run, result, trained)
        self._told.add(run.signature)
        seconds = f", {result['wall_seconds']:.1f} s" if result["wall_seconds"] else ""
        note = "" if trained else " (was there already)"
        self.say(
            f"[{len(self._told)}/{len(self.runs)}] {run.step} seed {run.seed}: {outcome(run, result)}{seconds}{note}"
        )

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End what is shown only while the study is at work."""


class NotebookDisplay(PlainDisplay):
    """A bar with the time left, and the lines of `PlainDisplay` above it; without ipywidgets the bar is text."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is no ipywidgets, which is fine
            from tqdm.auto import tqdm
        self._bar = tqdm(
            total=100, bar_format="{desc} {percentage:3.0f} %|{bar}|{postfix}", leave=False, file=sys.stdout
        )
        self.doing = self._describe

    def changed(self) -> None:
        self._bar.n = 100 * self.share
        self._bar.set_postfix_str(f"{self.counts}; {self.times}")

    def say(self, text: str) -> None:
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()

    def _describe(self, doing: Sequence[str]) -> None:
        self._bar.set_description_str(doing[-1] if doing else "training")


#: Columns of the running runs that a narrow terminal goes without, the first one first.
OPTIONAL = ("img/s", "bar", "train", "test")
BAR = 16


class LiveDisplay(StudyProgress):
    """A table with a row a rung, one with a row a running run, and where the study stands; as large as the terminal."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        super().__init__()
        self._group, self._table, self._bar = Group, Table, ProgressBar
        self._console = console or Console()
        self._new_live = partial(
            Live, console=self._console, refresh_per_second=4, get_renderable=self._render, vertical_overflow="crop"
        )

    def __enter__(self) -> LiveDisplay:
        self._open()
        return self

    def _open(self) -> None:
        """Begin a table below what stands there; a `Live` that was stopped would overwrite that."""
        self._size, self._live = self._console.size, self._new_live()
        self._live.start(refresh=True)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._live.stop()

    def refresh(self, waiting: list[RunSpec], elsewhere: int) -> None:
        super().refresh(waiting, elsewhere)
        if self._console.size != self._size:  # how a terminal breaks the lines that stand there is not known
            self._live.stop()
            self._console.clear()
            self._open()

    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None:
        super().finish(run, result, trained)
        if result["status"] != "done":
            self.say(f"{run.step} seed {run.seed}: {outcome(run, result)}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _render(self) -> Any:
        running = self._at_work()
        lines = [self.counts, self.times]
        rungs = self._rungs(self._console.height - len(self.running) - len(lines) - 4)
        return self._group(rungs, *([running] if self.running else []), *lines)

    def _rungs(self, room: int) -> Any:
        steps = steps_of(self.runs)
        at_work = {run.step for run, _ in self.running.values()}
        rows, styles = [], []
        for step in steps:
            runs = [run for run in self.runs if run.step == step]
            results = [self.results[run.signature] for run in runs if run.signature in self.results]
            done = [result for result in results if result["status"] == "done"]
            metric = task_named(runs[0].task).metric
            scores = [result[metric.key] for result in done]
            row = {
                "step": step,
                "done": f"{len(results)}/{len(runs)}",
                f"{metric.short} %": f"{mean(scores):.1f}" if scores else "failed" if results else "",
                "std": f"{stdev(scores):.1f}" if len(scores) > 1 else "",
                "s a run": f"{mean(result['wall_seconds'] for result in done):.1f}" if done else "",
            }
            rows.append(row)
            styles.append("bold" if step in at_work else "" if len(results) == len(runs) else "dim")
        first = 0
        if not self.ended and len(rows) > max(room, 1):  # those at work and after them
            open_rows = [place for place, style in enumerate(styles) if style]
            first = min(max(0, (open_rows or [0])[0] - 1), len(rows) - max(room, 1))
            rows, styles = rows[first : first + max(room, 1)], styles[first : first + max(room, 1)]
        return self._fitted(rows, styles)

    def _at_work(self) -> Any:
        rows = []
        for run, progress in self.running.values():
            left, task = self.left_of(run, progress), task_named(run.task)
            tested = progress.get(f"test_{task.metric.key}")
            trained = task.trained and progress.get(f"train_{task.trained.key}")
            row = {
                "running": f"{run.step}, seed {run.seed}",
                "bar": self._bar(total=1.0, completed=self._share(run, progress), width=BAR),
                "epoch": f"{progress.get('epoch', 0)}/{run.recipe.epochs}",
                f"train {(task.trained or task.metric).short} %": "" if trained is None else f"{trained:.1f}",
                "test": "" if tested is None else f"{tested:.1f}",
                "img/s": f"{progress['images_per_second']:.0f}" if "images_per_second" in progress else "",
                "left": clock(left) if left else "",
            }
            rows.append(row)
        return self._fitted(rows, [""] * len(rows))

    def _fitted(self, rows: Sequence[Mapping[str, Any]], styles: Sequence[str]) -> Any:
        """A table of the columns that fit into the terminal; of the first one as much as there is room for."""
        table, names = self._table(box=None, pad_edge=False), list(rows[0]) if rows else []
        wide = {name: BAR if name == "bar" else max(len(name), *(len(row[name]) for row in rows)) for name in names}
        for name in (name for part in OPTIONAL for name in [*names] if name.partition(" ")[0] == part):
            if sum(wide[one] + 2 for one in names) - 2 > self._console.width:
                names.remove(name)
        for name in names:
            rest = sum(wide[one] + 2 for one in names if one != names[0])
            table.add_column(
                "" if name == "bar" else name,
                justify="left" if name in (names[0], "bar") else "right",
                no_wrap=True,
                overflow="ellipsis",
                max_width=max(8, self._console.width - rest) if name == names[0] else None,
            )
        for row, style in zip(rows, styles, strict=True):
            table.add_row(*(row[name] for name in names), style=style)
        return table
