"""Where a study stands while it runs: which runs are done, running and waiting, and how long the rest takes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from roadmap.running.forecast import Forecast
from roadmap.training.spec import RunSpec


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
    """When it is over in this many seconds, such as ``14:05`` or ``Tue 24 Nov 14:05``."""
    end = datetime.now() + timedelta(seconds=seconds)
    return end.strftime("%H:%M" if end.date() == datetime.now().date() else "%a %d %b %H:%M")


class StudyProgress:
    """Hears what happens to the runs of a study, as every `roadmap.running.display.Display`, and keeps it."""

    def __init__(self) -> None:
        self.runs: list[RunSpec] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.running: dict[str, tuple[RunSpec, dict[str, Any]]] = {}
        self.waiting: list[RunSpec] = []
        self.elsewhere = 0
        self.slots = 1
        self.ended = False
        self._petaflops: dict[str, float] = {}
        self._forecast = Forecast({})
        self._begun = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.ended = True

    def begin(self, runs: list[RunSpec], petaflops: dict[str, float], slots: int, measured: dict[str, float]) -> None:
        self.runs, self.waiting, self.slots, self.ended = runs, list(runs), slots, False
        self._petaflops, self._forecast = petaflops, Forecast(petaflops, measured)
        self.changed()

    def start(self, run: RunSpec) -> None:
        self.running[run.signature] = (run, {})
        self._begins(run)

    def progress(self, run: RunSpec, progress: dict[str, Any] | None) -> None:
        if progress and run.signature in self.running:
            self.running[run.signature] = (run, progress)
            share = self._share(run, progress)
            if share < 1 and progress.get("seconds_left") is not None:
                self._forecast.expect(run, progress["seconds_left"] / (1 - share))
            self.changed()

    def refresh(self, waiting: list[RunSpec], elsewhere: int) -> None:
        self.waiting, self.elsewhere = waiting, elsewhere
        self.changed()

    def pause(self, run: RunSpec, why: str) -> None:
        self.running.pop(run.signature, None)
        self.changed()
        self.say(f"{run.step} seed {run.seed}: {why}")

    def finish(self, run: RunSpec, result: dict[str, Any], trained: bool) -> None:
        self.running.pop(run.signature, None)
        self.results[run.signature] = result
        if trained and result["status"] == "done":
            self._forecast.learn(run, result["wall_seconds"])
        self._begins(run)

    def changed(self) -> None:
        """Is called whenever something has changed."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def _begins(self, run: RunSpec) -> None:
        self.waiting = [other for other in self.waiting if other.signature != run.signature]
        self.changed()

    def left_of(self, run: RunSpec, progress: dict[str, Any]) -> float | None:
        """Seconds until a running run ends; None: unknown."""
        if progress.get("seconds_left") is not None:
            return max(0.0, progress["seconds_left"] - (time.time() - progress["updated"]))
        return self._forecast.seconds(run)

    @property
    def left(self) -> float | None:
        """Seconds until the last run ends; None: unknown."""
        return self._forecast.left(self.waiting, [self.left_of(*run) for run in self.running.values()], self.slots)

    @property
    def share(self) -> float:
        """The share of the training that is done, from 0 to 1."""
        parts = {signature: self._share(*run) for signature, run in self.running.items()}
        parts |= dict.fromkeys(self.results, 1.0)
        done = sum(self._petaflops.get(signature, 0.0) * part for signature, part in parts.items())
        return done / (sum(self._petaflops.values()) or 1.0)

    @staticmethod
    def _share(run: RunSpec, progress: dict[str, Any]) -> float:
        return (progress.get("epoch", 0) + progress.get("fraction", 0.0)) / run.recipe.epochs

    @property
    def counts(self) -> str:
        """How many runs are done, running and so on, of how many."""
        results = [self.results[run.signature] for run in self.runs if run.signature in self.results]
        failed = sum(result["status"] != "done" for result in results)
        counts = {
            "done": len(results) - failed,
            "running": len(self.running),
            "elsewhere": self.elsewhere,
            "waiting": len(self.waiting),
            "failed": failed,
        }
        shown = [f"{number} {name}" for name, number in counts.items() if number or name not in ("elsewhere", "failed")]
        return f"{', '.join(shown)} of {len(self.runs)} runs"

    @property
    def times(self) -> str:
        """How long it has taken, and how long it still takes as far as that is known."""
        so_far = f"{clock(time.monotonic() - self._begun)} so far"
        if self.ended or not (self.waiting or self.running):
            return so_far
        left = self.left
        if left is None:
            return f"{so_far}, time left not known yet"
        return f"{so_far}, {clock(left)} left: ends at {end_time(left)}" if left else f"{so_far}, about to end"
