"""Networks of equal cost: a design made wider or narrower, deeper or shallower, until it costs what another does."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from statistics import median
from typing import Any

from roadmap.checks import RoadmapError, check_choice, check_number
from roadmap.network.design import Design
from roadmap.network.families import digest

#: What can be matched: multiply-accumulates in 1e9, parameters in 1, seconds of training an image.
MATCHED_COSTS = ("gmacs", "params", "time")
MATCHED_BY = ("width", "depth")
#: Largest ratio between the costs of a match and its target, either way. Whole channels come within
#: 1.023 at every rung from base width 8 on, whole blocks of the smallest networks, of 6, within 1.21. What is farther
#: off is no match: at the paper's size, unmatched rungs are at most 1.75 times off their start (Table 10).
FARTHEST = 1.25
#: Costs of wide networks grow with this power of the width, and of the depth: where the search begins.
POWERS = {"width": 2.0, "depth": 1.0}
#: Costs are taken to grow with a power between these.
FLATTEST, STEEPEST = 0.25, 4.0
#: Timings per design, seconds of each (the median counts), and sizes that are timed to match one.
TIMES, TIMED_SECONDS = 3, 1.0
TIMED_SIZES = 4
#: Largest ratio between two sizes tried one after the other.
LARGEST_STEP = 4.0
#: Less, relatively, than lies between two bases at which a size changes.
HAIR = Fraction(1, 10**12)


@dataclass(frozen=True)
class Matched:
    """A design rescaled to a cost: its widths (or numbers of blocks) times ``factor``, in whole numbers, cost ``cost``
    where ``target`` was asked for."""

    design: Design
    factor: float
    cost: float
    target: float

    @property
    def ratio(self) -> float:
        """Cost over target: 1.01 costs one per cent more."""
        return self.cost / self.target

    @property
    def distance(self) -> float:
        """How many times the target the cost is, or the cost the target: at least 1."""
        return max(self.ratio, 1 / self.ratio)


def counted(kind: str, image_size: int) -> Callable[[Design], float]:
    """A design's ``gmacs`` (in 1e9, for images of ``image_size`` pixels) or ``params`` (in 1), as a function of it."""
    from roadmap.cost.counting import count, count_params

    check_choice("match", kind, ("gmacs", "params"))
    return count_params if kind == "params" else lambda design: count(design, image_size).gmacs


def match(design: Design, target: float, cost_of: Callable[[Design], float], by: str = "width") -> Matched:
    """The design with the widths (``by="width"``) or numbers of blocks (``"depth"``) whose cost is nearest ``target``.

    Sizes keep their ratios r_i to the first stage's: for a real number b, the base, they are b * r_i, rounded half up,
    at least one, and multiples of what numeric ``groups`` need. Of all b the best is found for a ``cost_of`` that never
    falls where b grows; so designs that differ by a common factor come to the very same sizes. It is asked about five
    times. Raises `RoadmapError`, with the nearest, where that is farther off than `FARTHEST`.
    """
    check_number("the cost to be matched", target, 1e-30)
    sizes = _Sizes(design, by)
    below: Matched | None = None
    above: Matched | None = None
    low, high = Fraction(0), None  # bases under low cost at most the target, those from high on more
    base, power, last = sizes.own, POWERS[by], None
    while low != high:
        start, end = sizes.around(base)
        scaled = sizes.scaled(base)
        tried = Matched(scaled, sizes.factor(base), cost_of(scaled), target)
        if tried.cost <= target:
            low, below = end, tried
        else:
            high, above = start, tried
        power = _power(last, tried, power)
        last = tried
        guess = max(low, sizes.own * _guess(tried, power))
        base = guess if high is None or guess < high else max(low, high * (1 - HAIR))
    return _near(min((one for one in (below, above) if one), key=lambda one: one.distance), by)


@dataclass(frozen=True)
class Timing:
    """How training steps are timed on this machine: images of ``image_size`` pixels in batches of ``batch_size`` on a
    ``device`` with this name, with this many CPU ``threads`` (None: torch's own choice).

    ``known`` holds what was measured before, in seconds an image by `key`, and takes what is measured: with it kept,
    the same question has the same answer.
    """

    image_size: int
    batch_size: int
    device: str
    device_name: str
    threads: int | None
    known: MutableMapping[str, float]

    def key(self, design: Design) -> str:
        """A line that names everything a time depends on."""
        return (
            f"design {digest(design)}, {self.image_size} px, "
            f"batch {self.batch_size}, {self.device_name}, threads {self.threads}, torch {version('torch')}"
        )

    def seconds(self, design: Design) -> float:
        """Seconds of a training step for each image. Raises `RoadmapError` where the batch does not fit into memory."""
        key = self.key(design)
        if key not in self.known:
            from roadmap.cost.measuring import training_seconds

            how = (self.image_size, self.batch_size, self.device, TIMED_SECONDS, self.threads)
            self.known[key] = median(training_seconds(design, *how) for _ in range(TIMES))
        return self.known[key]


def match_time(design: Design, target: float, timing: Timing, by: str = "width") -> Matched:
    """As `match`, for ``target`` seconds of training an image. Times are noisy and may jump with the size, so that no
    search can find the best one: of `TIMED_SIZES` that approach the target, the nearest is taken.

    Raises `RoadmapError`, with the nearest, where that is farther off than `FARTHEST`.
    """
    sizes = _Sizes(design, by)
    check_number("the time to be matched", target, 1e-30)
    tried: list[Matched] = []
    base, power = sizes.own, POWERS[by]
    for _ in range(TIMED_SIZES):
        scaled = sizes.scaled(base)
        if scaled in (one.design for one in tried):
            break
        tried.append(Matched(scaled, sizes.factor(base), timing.seconds(scaled), target))
        power = _power(tried[-2] if tried[1:] else None, tried[-1], power)
        base = sizes.own * _guess(tried[-1], power)
    return _near(min(tried, key=lambda one: one.distance), by)


class _Sizes:
    """The widths or blocks of a design as functions of the base b, the first stage's before it is rounded."""

    def __init__(self, design: Design, by: str) -> None:
        check_choice("match by", by, MATCHED_BY)
        self.design = design
        self.flag = {"width": "widths", "depth": "blocks"}[by]
        stages = getattr(design, self.flag)
        stem = getattr(design, "stem_width", None) if by == "width" else None
        self.has_stem = stem is not None
        self.own = Fraction(stages[0])
        self.ratios = [Fraction(size, stages[0]) for size in (*stages, *([stem] if stem is not None else []))]
        self.multiple = self._multiple() if by == "width" else 1

    def _multiple(self) -> int:
        """The smallest number whose multiples all are widths that the design's groups allow."""
        if not isinstance(self.design.groups, int):
            return 1
        divisors = (number for number in range(1, self.design.groups + 1) if self.design.groups % number == 0)
        return next(number for number in divisors if self._builds([number] * len(self.ratios)))

    def _builds(self, numbers: list[int]) -> bool:
        try:
            self._with(numbers)
        except RoadmapError:
            return False
        return True

    def _with(self, numbers: list[int]) -> Design:
        changes: dict[str, Any] = {self.flag: tuple(numbers)}
        if self.has_stem:
            *changes[self.flag], changes["stem_width"] = numbers
        return self.design.replace(**changes)

    def _counts(self, base: Fraction) -> list[int]:
        """Every size in multiples."""
        return [max(1, math.floor(base * ratio / self.multiple + Fraction(1, 2))) for ratio in self.ratios]

    def scaled(self, base: Fraction) -> Design:
        return self._with([count * self.multiple for count in self._counts(base)])

    def around(self, base: Fraction) -> tuple[Fraction, Fraction]:
        """[start, end) of the bases that give the same sizes as this one."""
        pairs = [(count * self.multiple, ratio) for count, ratio in zip(self._counts(base), self.ratios, strict=True)]
        half = Fraction(self.multiple, 2)
        start = max((size - half) / ratio if size > self.multiple else Fraction(0) for size, ratio in pairs)
        return start, min((size + half) / ratio for size, ratio in pairs)

    def factor(self, base: Fraction) -> float:
        """What the design's own sizes are multiplied by: 1 where they stay."""
        start, end = self.around(base)
        return 1.0 if start <= self.own < end else float((start + end) / 2 / self.own)


def _power(last: Matched | None, tried: Matched, power: float) -> float:
    """The power of the factor with which costs grow between two designs."""
    if last is None or last.factor == tried.factor or last.cost <= 0 or tried.cost <= 0:
        return power
    slope = math.log(tried.cost / last.cost) / math.log(tried.factor / last.factor)
    return min(max(slope, FLATTEST), STEEPEST)


def _guess(tried: Matched, power: float) -> Fraction:
    """The factor that would meet the target if the cost grew with this power of it."""
    step = tried.ratio ** (-1 / power) if tried.ratio else LARGEST_STEP
    return Fraction(tried.factor * min(max(step, 1 / LARGEST_STEP), LARGEST_STEP))


def _near(found: Matched, by: str) -> Matched:
    if found.distance <= FARTHEST:
        return found
    sizes = getattr(found.design, "widths" if by == "width" else "blocks")
    raise RoadmapError(
        f"no {by} brings this network's cost near {found.target:.4g}: the nearest, {'-'.join(map(str, sizes))}, costs "
        f"{found.cost:.4g}, {found.ratio:.2f} times that"
    )
