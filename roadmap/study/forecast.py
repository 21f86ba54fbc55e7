"""How long the rest of a study takes: from what was measured before, or from the runs that are done by now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from roadmap.training.spec import RunSpec


class Forecast:
    """``petaflops``: of each run's training, by signature. ``measured``: seconds of a run, where they are known."""

    def __init__(self, petaflops: Mapping[str, float], measured: Mapping[str, float] | None = None) -> None:
        self._petaflops, self._measured = petaflops, measured or {}
        self._steps: dict[str, list[float]] = defaultdict(list)
        self._rates: list[float] = []

    def learn(self, run: RunSpec, seconds: float) -> None:
        """A run took so long."""
        self._steps[run.step].append(seconds)
        self._rates.append(seconds / self._petaflops[run.signature])

    def seconds(self, run: RunSpec) -> float | None:
        """What a run takes: as the other seeds of its step, else as measured, else by its operations; None: unknown."""
        if self._steps[run.step]:
            return mean(self._steps[run.step])
        if run.signature in self._measured:
            return self._measured[run.signature]
        return mean(self._rates) * self._petaflops[run.signature] if self._rates else None

    def left(self, waiting: Iterable[RunSpec], running: Iterable[float | None], slots: int) -> float | None:
        """Seconds until the last run ends: the ``running`` ones have so much left, the waiting ones follow in order."""
        seconds = [self.seconds(run) for run in waiting]
        if any(one is None for one in seconds):
            return None
        free = [one or 0.0 for one in running]
        free += [0.0] * (slots - len(free))
        return max([*free, *(end for _, _, end in schedule([one or 0.0 for one in seconds], free))])


def schedule(seconds: Sequence[float], free: Sequence[float]) -> list[tuple[int, float, float]]:
    """(slot, start, end) of runs that take so many seconds each, begun in order as slots fall ``free``."""
    free = list(free)
    planned = []
    for duration in seconds:
        slot = free.index(min(free))
        planned.append((slot, free[slot], free[slot] + duration))
        free[slot] += duration
    return planned
