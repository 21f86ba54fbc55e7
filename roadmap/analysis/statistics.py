"""The statistics of studies, each written once and with its source: intervals, tests, power and rank agreement.

Differences are tested with Student's t, paired by seed. A test that flips the signs of the R differences, which needs
no normal distribution, has only 2^R patterns, and so with three seeds no p below 2 / 8 = 0.25, nor any below 0.05 with
less than six.

One rule says what is a finding: p after Holm's correction over all tests of a study, below 5 %. Else the difference is
within noise, which does not say that it is zero. Intervals are those of single differences, without a correction: one
may exclude zero and its difference be within noise all the same, since of 16 such intervals one errs more often than
not. Accuracies are in per cent and differences in percentage points throughout.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from roadmap.checks import check_int, check_number

#: Probability with which an interval covers the true value, if the seeds vary normally.
CONFIDENCE = 0.95
#: Probability with which a test errs where there is nothing to find.
LEVEL = 0.05
#: Probability with which `seeds_needed` finds a difference.
POWER = 0.8
#: Verdicts on a difference; of one that cannot be tested there is none.
GAIN, LOSS, NOISE = "gain", "loss", "within noise"
FINDINGS = (GAIN, LOSS)
#: Nobody trains more seeds.
MOST_SEEDS = 10**6
#: Decimals of a percentage point that are more than rounding of floating point numbers.
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


def paired_interval(differences: Iterable[float], failed: bool) -> tuple[float, float, float, float]:
    """`mean_interval` of the differences between runs of one seed. Where a run ``failed`` only the mean is known: runs
    that diverge are no chance selection, and so the rest of them say nothing of how far others vary."""
    mean, *spread = mean_interval(differences)
    std, low, high = [math.nan] * 3 if failed else spread
    return mean, std, low, high


def half_width(std_error: float, freedom: float) -> float:
    """Half the length of the 95 % interval of an estimate with this standard error and these degrees of freedom."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * std_error


def p_value(estimate: float, std_error: float, freedom: float) -> float:
    """The two-sided p of Student's t-test that the true value is zero; NaN where the estimate or its error is unknown.

    Of the mean of R paired differences (R - 1 degrees of freedom) it is the paired t-test. Without any error it is 1
    where the estimate is zero, too, and else NaN, no test: accuracies are counts of images, so that on few of them two
    seeds have equal differences far more often than once in twenty studies, which says nothing of the noise.
    """
    estimate, std_error = round(estimate, DECIMALS), round(std_error, DECIMALS)
    if std_error == 0:
        return 1.0 if estimate == 0 else math.nan
    return float(2 * stdtr(freedom, -abs(estimate / std_error)))


def holm(p: Sequence[float]) -> list[float]:
    """p of several tests, corrected so that all findings of a study are right with a probability of 95 %.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the smallest of m counts m times, the next
    m - 1 times, none less than the one before it. It holds however the tests depend on each other, as gains of steps do
    that share a network. A p of NaN is no test: it stays NaN and does not count.
    """
    corrected = [math.nan] * len(p)
    tested = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    least = 0.0
    for rank, (value, index) in enumerate(tested):
        least = corrected[index] = max(least, min(1.0, (len(tested) - rank) * value))
    return corrected


def verdict(estimate: float, p_holm: float) -> str | None:
    """`GAIN` or `LOSS` where the corrected p is below 5 %, `NOISE` where it is not, None where there is no p."""
    if math.isnan(p_holm):
        return None
    return NOISE if p_holm >= LEVEL else GAIN if estimate > 0 else LOSS


def pooled_deviation(deviations: Sequence[float], seeds: Sequence[float]) -> float:
    """One standard deviation for several, each of so many seeds: the root of their mean variance.

    The mean is by degrees of freedom. Those that are NaN are left out; NaN where none is left. Of three seeds, one
    alone lies anywhere between 0.16 and 1.9 times the truth (95 %, from the chi-square distribution).
    """
    known = [(std**2, count - 1) for std, count in zip(deviations, seeds, strict=True) if not math.isnan(std)]
    freedom = sum(count for _, count in known)
    return math.sqrt(math.fsum(variance * count for variance, count in known) / freedom) if known else math.nan


def power(difference: float, deviation: float, seeds: int, tests: int = 1) -> float:
    """The probability that a paired t-test over so many seeds, two at least, finds a true difference.

    Exact, from the noncentral t distribution with noncentrality difference / deviation * sqrt(seeds) (Cohen,
    Statistical Power Analysis, 1988). ``deviation`` is that of the paired differences, above zero. The level is 5 %
    over the number of ``tests`` of the study (Bonferroni), which Holm's correction never asks more than.
    """
    from scipy.stats import nct

    freedom = seeds - 1
    noncentrality = abs(difference) / deviation * math.sqrt(seeds)
    critical = -float(stdtrit(freedom, LEVEL / 2 / tests))
    # Of the side that the difference is not on, little is left, and of little the distribution may be NaN.
    other = nct.cdf(-critical, freedom, noncentrality)
    return float(nct.sf(critical, freedom, noncentrality) + np.nan_to_num(other))


def seeds_needed(difference: float, deviation: float, tests: int = 1, wanted: float = POWER) -> int | None:
    """The fewest seeds with which `power` is what is wanted, 0.8 if nothing is said.

    None where no number up to a million is enough, where one of the two is NaN, and where there is no deviation, which
    says nothing of the noise (see `p_value`). Raises `RoadmapError` for a power or a number of tests that there is not.
    """
    check_number("power", wanted, 0.01, 0.9999)
    check_int("tests", tests, 1, MOST_SEEDS)
    difference, deviation = round(abs(difference), DECIMALS), round(deviation, DECIMALS)
    if not (difference > 0 and deviation > 0):
        return None
    counts = range(2, MOST_SEEDS + 1)
    place = bisect_left(counts, wanted, key=lambda seeds: power(difference, deviation, seeds, tests))
    return counts[place] if place < len(counts) else None


@dataclass(frozen=True)
class Sample:
    """What is known of one side of an unpaired comparison: mean, sample standard deviation, number of runs."""

    mean: float
    std: float
    count: int


def welch(sample: Sample, other: Sample) -> tuple[float, float, float]:
    """(difference, standard error, degrees of freedom) of two independent samples whose variances may differ.

    Welch, "The generalization of Student's problem" (1947), with Satterthwaite's degrees of freedom. Both deviations
    zero: an error of zero, and NaN degrees of freedom.
    """
    parts = [(one.std**2 / one.count, one.count - 1) for one in (sample, other)]
    variance = math.fsum(part for part, _ in parts)
    freedom = satterthwaite(parts) if variance else math.nan
    return sample.mean - other.mean, math.sqrt(variance), freedom


def satterthwaite(parts: Iterable[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of independent variances, from (variance, its degrees of freedom) of each.

    Satterthwaite, "An approximate distribution of estimates of variance components" (1946). The sum is above zero.
    """
    parts = list(parts)
    variance = math.fsum(part for part, _ in parts)
    return 1 / math.fsum((part / variance) ** 2 / count for part, count in parts)


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of rungs agree: Kendall's tau (1 the same, -1 the reverse), its 95 % interval, and the p
    that it is zero; how many rungs it is of, and how many more have no value."""

    tau: float
    low: float
    high: float
    p: float
    rungs: int
    unknown: int

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
    from scipy.stats import kendalltau

    pairs = np.round(np.array([ours, theirs], dtype=float), DECIMALS)
    known = pairs[:, ~np.isnan(pairs).any(axis=0)]
    rungs, unknown = known.shape[1], pairs.shape[1] - known.shape[1]
    if rungs < 2:
        return Agreement(math.nan, math.nan, math.nan, math.nan, rungs, unknown)
    tau, p = map(float, kendalltau(*known))
    low = high = math.nan
    if rungs > 4 and abs(tau) < 1 - 1e-12:
        half = half_width(math.sqrt(0.437 / (rungs - 4)), math.inf)
        low, high = math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half)
    return Agreement(tau, low, high, p, rungs, unknown)
