"""Adding seeds until every effect is decided, without erring more often for having looked so often.

Every network starts with three seeds. Then one run after another is added where it closes an effect soonest:

- An effect is looked at whenever the smallest number n of seeds among its networks has grown, n = 3..N for at most N
  seeds. Its interval errs at a level of its own for each n, such that all of them hold at once, at every look.
- It closes, and is frozen at its values, when its interval excludes zero (`DECIDED`), when half the interval's length
  is at most the wanted width (`SETTLED`), when n = N (`EXHAUSTED`), or when a run of its networks failed
  (`UNTESTABLE`). Between looks its row stands as it was, so that a verdict never contradicts its interval.
- The next run belongs to the open effect that needs fewest more to close, if its estimate and the variances hold; to
  that of its networks with fewest seeds. Ties go to the first in the study's order. A plan must not look at estimates;
  this may, since the boundaries below allow for it.

The levels: alpha = 1 - 0.95^(1/m) for each of m effects, of which alpha * (n / N)^2 is spent by n (Lan & DeMets, Kim &
DeMets). The boundary |z_n| follows by recursive numerical integration (Armitage, McPherson & Rowe), and Student's t
takes it at the same nominal p (Jennison & Turnbull), which gives repeated confidence intervals. The boundaries are
exact for networks of equal counts and known variance; how often they err else, tests/test_sequential.py simulates.

**The stored scores are the whole state.** `look` takes them in the order of their seeds and goes the way again: from
three seeds of each network a run at a time, always the next seed of the network that the rule above names, until that
one is not there yet. So the way depends on the scores alone, and not on when, where or how many at a time they were
trained: a study that was killed goes on as if it had not been, and with eight runs at a time it comes to the same
verdicts as with one. A run that is there before its turn waits for it.

Sources
-------
Armitage, McPherson & Rowe, "Repeated significance tests on accumulating data" (1969). Lan & DeMets, "Discrete
sequential boundaries for clinical trials" (1983). Kim & DeMets, "Design and analysis of group sequential tests based on
the type I error spending rate function" (1987). Jennison & Turnbull, "Interim analyses: the repeated confidence
interval approach" (1989), and "Group Sequential Methods" (2000), chapters 3, 7, 9 and 19.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.special import ndtr, ndtri

from roadmap.checks import check_int, check_number
from roadmap.planning.seeds import FIRST
from roadmap.results.estimation import (
    GAIN,
    LOSS,
    ROUNDING,
    Effect,
    Moderated,
    Sample,
    estimate,
    sidak,
)

#: Why an effect is closed.
DECIDED, SETTLED, EXHAUSTED, UNTESTABLE = "decided", "settled", "exhausted", "untestable"


@dataclass(frozen=True)
class Rule:
    """When a study stops to add seeds: ``width`` is the wanted half-length of intervals in points, ``most_seeds`` the
    limit for each network."""

    width: float
    most_seeds: int


@dataclass(frozen=True)
class InterimLook:
    """Where a study stands.

    ``effects`` are as they were at their last look (none before all networks have three seeds), and ``closed`` says
    why each is closed, None while it is open. ``next`` are the networks to train next, most urgent first, at most as
    many as asked for; a network that stands there twice needs two more seeds. ``forecast`` is the number of runs still
    needed to close all effects, if estimates and variances stay as they are; None before the first look. ``counts``
    are the seeds of each network that were looked at, ``seeds`` the smallest of them in each effect at its last look.
    """

    effects: list[Effect]
    closed: list[str | None]
    next: list[int]
    forecast: int | None
    counts: list[int]
    seeds: list[int]


def look(
    runs: Sequence[Sequence[float]],
    contrasts: np.ndarray,
    *,
    width: float,
    most_seeds: int,
    matters: float,
    lower_is_better: bool = False,
    slots: int = 1,
    correct: Sequence[np.ndarray] | None = None,
) -> InterimLook:
    """Where the study of these ``runs`` stands, and which networks to train next.

    ``runs`` holds for each network the scores of its seeds in their order, up to the first that is not there yet, with
    NaN for a run that failed. ``contrasts`` (effects, networks), ``matters`` and ``lower_is_better`` are as in
    `estimate`. ``width`` is the wanted half-length of intervals: at most half of ``matters``, and what settles is
    negligible. ``most_seeds`` is the limit N for each network, ``slots`` the number of runs at a time. ``correct``
    holds for each network which test images its runs got right, in the order of ``runs``: bool (runs, images).

    Raises `RoadmapError` for fewer than three seeds or one slot, and for a width that is not above zero.
    """
    check_int("most_seeds", most_seeds, FIRST)
    check_int("slots", slots, 1)
    check_number("width", width, ROUNDING)
    contrasts = np.asarray(contrasts, dtype=float).reshape(len(contrasts), len(runs))
    stored = np.array([len(scores) for scores in runs], dtype=int)
    first = [k for n in range(FIRST) for k in np.flatnonzero(stored <= n).tolist()]
    if first:
        return InterimLook(
            [], [None] * len(contrasts), first[:slots], None, np.minimum(stored, FIRST).tolist(), [0] * len(contrasts)
        )
    way = _Way(runs, contrasts, width, most_seeds, matters, lower_is_better, correct)
    while (network := next(way.ahead(), None)) is not None and way.counts[network] < stored[network]:
        way.add(network)
    counts, lacking = way.counts.copy(), []
    for network in way.ahead():
        counts[network] += 1
        if counts[network] > stored[network]:
            lacking.append(network)
    return InterimLook(way.effects, way.closed, lacking[:slots], len(lacking), way.counts.tolist(), way.seen)


class _Way:
    """The way through the runs: how many seeds of each network were looked at, and what was seen."""

    def __init__(
        self,
        runs: Sequence[Sequence[float]],
        contrasts: np.ndarray,
        width: float,
        most_seeds: int,
        matters: float,
        lower_is_better: bool,
        correct: Sequence[np.ndarray] | None,
    ) -> None:
        self.runs, self.contrasts, self.correct = runs, contrasts, correct
        self.width, self.most_seeds = width, most_seeds
        self.matters, self.lower_is_better = matters, lower_is_better
        self.levels = np.array(levels(len(contrasts), most_seeds))
        self.networks = [np.flatnonzero(row) for row in contrasts]
        self.counts = np.full(len(runs), FIRST)
        self.samples = [self._sample(network) for network in range(len(runs))]
        self.closed: list[str | None] = [None] * len(contrasts)
        self.seen = [0] * len(contrasts)  # the smallest count at the last look
        self.effects: list[Effect] = []
        self._look()

    def add(self, network: int) -> None:
        """Take the next run of this network, and look."""
        self.counts[network] += 1
        self.samples[network] = self._sample(network)
        self._look()

    def _sample(self, network: int) -> Sample:
        scores = np.asarray(self.runs[network][: self.counts[network]], dtype=float)
        well = ~np.isnan(scores)
        correct = None if self.correct is None else self.correct[network][: len(scores)][well]
        return Sample.of(scores[well], int((~well).sum()), correct)

    def _smallest(self, effect: int) -> int:
        return int(self.counts[self.networks[effect]].min(initial=self.most_seeds))

    def _look(self) -> None:
        """Bring those effects up to date whose smallest count has grown, and close them where they are to be closed."""
        smallest = [self._smallest(effect) for effect in range(len(self.contrasts))]
        level = self.levels[np.array(smallest, dtype=int) - FIRST]
        self._now = estimate(
            self.samples,
            self.contrasts,
            matters=self.matters,
            lower_is_better=self.lower_is_better,
            tests=len(self.contrasts),
            levels=level,
        )
        self.effects = self.effects or list(self._now)
        for effect, n in enumerate(smallest):
            failed = any(self.samples[network].failed for network in self.networks[effect])
            if self.closed[effect] or not (n > self.seen[effect] or failed):
                continue
            self.seen[effect] = n
            self.effects[effect] = now = self._now[effect]
            if failed or not len(self.networks[effect]):
                self.closed[effect] = UNTESTABLE
            elif now.verdict in (GAIN, LOSS):
                self.closed[effect] = DECIDED
            elif (now.high - now.low) / 2 <= self.width:
                self.closed[effect] = SETTLED
            elif n == self.most_seeds:
                self.closed[effect] = EXHAUSTED

    def ahead(self) -> Iterator[int]:
        """The networks whose runs come next, one after the other, if estimates and variances stay as they are."""
        variances = Moderated.of(self.samples).variances
        counts, needs = self.counts.copy(), {}
        waiting = {effect for effect, why in enumerate(self.closed) if why is None}
        changed = set(waiting)
        while waiting:
            for effect in changed & waiting:
                needs[effect] = self._needs(effect, counts, variances)
            waiting = {effect for effect in waiting if needs[effect]}
            if waiting:
                network = needs[min(waiting, key=lambda effect: (len(needs[effect]), effect))][0]
                yield network
                counts[network] += 1
                changed = {effect for effect in waiting if network in self.networks[effect]}

    def _needs(self, effect: int, counts: np.ndarray, variances: np.ndarray) -> list[int]:
        """The networks that must be run until this effect closes, always that with fewest seeds."""
        networks, now = self.networks[effect], self._now[effect]
        own = counts[networks]
        weights = self.contrasts[effect, networks] ** 2 * variances[networks]
        # Every run is a step of one network from n seeds to n + 1; steps from fewer seeds come first.
        index = np.repeat(np.arange(len(networks)), self.most_seeds - own)
        steps = np.concatenate([np.arange(n, self.most_seeds) for n in own])
        order = np.argsort(steps, kind="stable")
        index, steps = index[order], steps[order]
        saved = weights[index] * (1 / steps - 1 / (steps + 1))
        present = now.std_error**2 - (weights / self.counts[networks]).sum() + (weights / own).sum()
        variance = present - np.concatenate([[0], np.cumsum(saved)])
        smallest, reached = np.append(steps, self.most_seeds), self._smallest(effect)
        # Student's quantile falls as the first term of its expansion in 1 / freedom does, and freedom grows with seeds.
        z = -ndtri(self.levels[np.append(smallest, reached) - FIRST] / 2)
        freedom = now.freedom * np.append((smallest - 1) / (reached - 1), 1)
        quantile = z * (1 + (z**2 + 1) / (4 * freedom))
        half = (now.high - now.low) / 2 * quantile[:-1] / quantile[-1] * np.sqrt(variance) / now.std_error
        shut = (half <= self.width) | (half < abs(now.estimate)) | (smallest == self.most_seeds)
        shut &= smallest > self.seen[effect]
        return [*map(int, networks[index[: int(np.argmax(shut))]])]


@lru_cache(maxsize=256)
def levels(tests: int, most_seeds: int) -> tuple[float, ...]:
    """The level at which each interval of a study with this number of effects errs, at n = 3..``most_seeds`` seeds.

    Two-sided nominal p of the boundaries that spend 1 - 0.95^(1/tests) times (n / most_seeds)^2 by n.
    """
    alpha = sidak(tests)
    counts = range(FIRST, most_seeds + 1)
    spent = tuple(alpha * (n / most_seeds) ** 2 for n in counts)
    return tuple(float(2 * ndtr(-z)) for z in boundaries(tuple(counts), spent))


def boundaries(information: Sequence[float], spent: Sequence[float]) -> list[float]:
    """|z| at each look that crosses so that the probability to have crossed at any look up to it is what is ``spent``.

    ``information`` rises from look to look, as the number of seeds does; where there is nothing to find, the sum of a
    score is a Brownian motion over it. Its density within the boundaries is carried on from look to look by numerical
    integration (Gauss-Legendre), which gives the next boundary; exact to about ten decimals.
    """
    from scipy.optimize import brentq  # which nothing else needs, and takes long to import

    found = [float(-ndtri(spent[0] / 2))]
    points, mass, before = np.zeros(1), np.ones(1), 0.0  # where the sum was at the last look, and how probably
    for now, following, spend in zip(information, information[1:], np.diff(spent), strict=False):
        scale, next_scale = math.sqrt(now - before), math.sqrt(following - now)
        edge = found[-1] * math.sqrt(now)
        nodes, weights = np.polynomial.legendre.leggauss(32 + math.ceil(8 * edge / min(scale, next_scale)))
        density = np.exp(-(((edge * nodes[:, None] - points) / scale) ** 2) / 2) @ mass / scale / math.sqrt(2 * math.pi)
        points, mass, before = edge * nodes, edge * weights * density, now
        # |z| times the root of the information is where the sum must lie to cross.
        crossing = partial(_outside, points / next_scale, mass, math.sqrt(following) / next_scale, spend)
        found.append(float(brentq(crossing, 0, 40, xtol=1e-12)))
    return found


def _outside(points: np.ndarray, mass: np.ndarray, scale: float, spend: float, z: float) -> float:
    """The share of ``mass`` at ``points`` that a standard normal step takes beyond -+``z * scale``, less ``spend``."""
    return float(mass @ (ndtr(-z * scale - points) + ndtr(-z * scale + points)) - spend)
