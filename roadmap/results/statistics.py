"""Rank agreement between studies and the paper, and one deviation for several networks, each with its source.

What decides an effect is in `roadmap.results.estimation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from roadmap.results.estimation import CONFIDENCE

#: Decimals of a percentage point that are more than rounding of floating-point numbers.
DECIMALS = 9


def mean_interval(values: Iterable[float]) -> tuple[float, float, float, float]:
    """(mean, sample standard deviation, low, high), the last two being the 95 % t-interval of the mean.

    NaN for whatever the number of values does not allow: everything for none, all but the mean for one.
    """
    sample = np.array([*values], dtype=float)
    count = len(sample)
    if count < 2:
        return (float(sample[0]) if count else math.nan), math.nan, math.nan, math.nan
    mean, std = float(sample.mean()), float(sample.std(ddof=1))
    half = half_width(std / math.sqrt(count), count - 1)
    return mean, std, mean - half, mean + half


def accuracy_interval(values: Iterable[float]) -> tuple[float, float, float, float]:
    """`mean_interval` of accuracies in per cent, cut off at 0 and 100, between which every mean of them lies: it covers
    the true value as often as before."""
    mean, std, low, high = mean_interval(values)
    low, high = (float(end) for end in np.clip([low, high], 0.0, 100.0))
    return mean, std, low, high


def half_width(std_error: float, freedom: float) -> float:
    """Half the length of the 95 % interval of an estimate with this standard error and these degrees of freedom."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * std_error


def pooled_deviation(deviations: Sequence[float], seeds: Sequence[float]) -> float:
    """The pooled standard deviation of several samples with these numbers of seeds: the root of their mean variance.

    The mean is by degrees of freedom. Those that are NaN are left out; NaN where none is left. Of three seeds, one
    alone lies anywhere between 0.16 and 1.9 times the truth (95 %, from the chi-square distribution).
    """
    known = [(std**2, count - 1) for std, count in zip(deviations, seeds, strict=True) if not math.isnan(std)]
    freedom = sum(count for _, count in known)
    return math.sqrt(math.fsum(variance * count for variance, count in known) / freedom) if known else math.nan


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of rungs agree: Kendall's tau (1 the same, -1 the reverse) and its 95 % interval; how many
    more rungs have no value, and the values of all others, ours and theirs."""

    tau: float
    low: float
    high: float
    unknown: int
    pairs: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def rungs(self) -> int:
        """How many rungs it is of."""
        return len(self.pairs[0])

    @property
    def p(self) -> float:
        """The p that tau is zero; NaN where tau is."""
        from scipy.stats import kendalltau  # takes as long to import as all else that a page of a study needs

        return math.nan if math.isnan(self.tau) else float(kendalltau(*self.pairs).pvalue)

    def __str__(self) -> str:
        if math.isnan(self.tau):
            return "unknown"
        interval = "" if math.isnan(self.low) else f" [{self.low:+.2f}, {self.high:+.2f}]"
        unknown = f", {self.unknown} without a value" if self.unknown else ""
        return f"{self.tau:+.2f}{interval} over {self.rungs} rungs{unknown}".replace("-", "−")


def rank_agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Kendall's tau-b, which takes ties into account, between the values of the same rungs, NaN where one has none.

    The interval is tanh(atanh(tau) -+ 1.96 sqrt(0.437 / (n - 4))) (Fieller, Hartley & Pearson, "Tests for rank
    correlation coefficients", 1957; checked up to 0.8 by Bonett & Wright, 2000). It takes the n rungs for the sample,
    since what is asked is whether choices that pay here pay there, and so holds for a single seed; the noise of the
    seeds is in it as scatter, and draws tau towards zero. A bootstrap over seeds would leave the rungs out, has ten
    resamples of three seeds and none of one, and adds noise to the noise. NaN: tau for fewer than two rungs, or where
    all values of a side are alike; the interval for fewer than five rungs, and where tau is 1 or -1.
    """
    pairs = np.round(np.array([ours, theirs], dtype=float), DECIMALS)
    known = pairs[:, ~np.isnan(pairs).any(axis=0)]
    rungs, unknown = known.shape[1], pairs.shape[1] - known.shape[1]
    ahead, behind = (np.sign(side[:, None] - side) for side in known)
    untied = float((ahead**2).sum() * (behind**2).sum())
    tau = float((ahead * behind).sum()) / math.sqrt(untied) if untied else math.nan
    low = high = math.nan
    if rungs > 4 and abs(tau) < 1 - 1e-12:
        half = half_width(math.sqrt(0.437 / (rungs - 4)), math.inf)
        low, high = math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half)
    return Agreement(tau, low, high, unknown, (tuple(known[0].tolist()), tuple(known[1].tolist())))
