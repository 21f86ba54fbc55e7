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
        self._expected: dict[str, float] = {}

    def learn(self, run: RunSpec, seconds: float) -> None:
        """A run took so long."""
        self._steps[run.step].append(seconds)
        self._rates.append(seconds / self._petaflops[run.signature])

    def expect(self, run: RunSpec, seconds: float) -> None:
        """A running run will have taken this long, as far as can be told by now."""
        self._expected[run.signature] = seconds

    def seconds(self, run: RunSpec) -> float | None:
        """What a run takes: as the other seeds of its step, else as measured, else by its operations, at the rate of
        the runs that are done, or before the first is done of those that are running; None: unknown."""
        if self._steps[run.step]:
            return mean(self._steps[run.step])
        if run.signature in self._measured:
            return self._measured[run.signature]
        expected = self._expected.items()
        rates = self._rates or [seconds / self._petaflops[signature] for signature, seconds in expected]
        return mean(rates) * self._petaflops[run.signature] if rates else None

    def left(self, waiting: Iterable[RunSpec], running: Iterable[float | None], slots: int) -> float | None:
        """Seconds until the last run ends: the ``running`` ones have that much left, the waiting ones follow in order.
        None: one of them is unknown."""
        expected, at_work = [self.seconds(run) for run in waiting], [*running]
        known = [[one for one in times if one is not None] for times in (expected, at_work)]
        if [len(times) for times in known] != [len(expected), len(at_work)]:
            return None
        free = known[1] + [0.0] * (slots - len(at_work))
        return max([*free, *(end for _, _, end in schedule(known[0], free))])


def schedule(seconds: Sequence[float], free: Sequence[float]) -> list[tuple[int, float, float]]:
    """(slot, start, end) of runs that take these seconds each, begun in order as slots fall ``free``."""
    free = list(free)
    planned = []
    for duration in seconds:
        slot = free.index(min(free))
        planned.append((slot, free[slot], free[slot] + duration))
        free[slot] += duration
    return planned
